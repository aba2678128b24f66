"""Sizes and inputs that both sides of tests/nn/golden/attention_torch.npz compute; numpy only."""

import numpy as np

BATCH, T, S, D, HEADS, FF = 3, 4, 5, 8, 2, 12
LENGTHS = (5, 2, 1)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Queries [BATCH, T, D] and a memory [BATCH, S, D], float64."""
    rng = np.random.default_rng(5)
    return rng.normal(size=(BATCH, T, D)), rng.normal(size=(BATCH, S, D))
