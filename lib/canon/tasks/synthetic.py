"""Training and test data of tasks whose batches are drawn from a random generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from canon.data import Generated

TEST_BATCH = 1 << 40  # number of the first test batch; no training step reaches it


def draw_train_and_test(
    draw: Callable[[np.random.Generator], Any], seed: int, batch_size: int, test_batches: int
) -> tuple[Generated, Generated]:
    """Returns endless training batches and a finite test set; batch n is drawn by the generator of (seed, n).

    Args:
      draw: a generator -> a batch.
      seed: of both.
      batch_size: rows of a batch that `draw` returns.
      test_batches: of the test set, which shares no batch with training.
    """

    # Training and test batches come from one numbering, so that no number, hence no batch, is in both.
    def batch(number: int) -> Any:
        return draw(np.random.default_rng((seed, number)))

    return Generated(batch, batch_size), Generated(lambda i: batch(TEST_BATCH + i), length=test_batches)
