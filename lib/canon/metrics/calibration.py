"""Calibration metrics: ECE, MCE and the Brier score. Probabilities are [B, C], labels integers [B], masks booleans [B].

Labels of another shape or type raise UsageError.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.losses.classification import check_labels
from canon.metrics.mean import Mean


class Reliability(NamedTuple):
    """Predictions in bins of their confidence, the largest probability; adds over batches.

    Bin m of M holds the confidences in ((m - 1) / M, m / M]. Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern
    Neural Networks", 2017, section 2.
    """

    count: Any  # [M] predictions
    confidence: Any  # [M] the sum of their confidences
    right: Any  # [M] how many of them were right

    def __add__(self, other: Reliability) -> Reliability:  # ty: ignore[incompatible-method-override]
        return Reliability(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def of(
        cls, probabilities: jax.Array, labels: jax.Array, mask: jax.Array | None = None, bins: int = 15
    ) -> Reliability:
        """A batch's part; 15 bins as in the paper's table 1."""
        check_labels(probabilities, labels)
        confidence = probabilities.max(-1).astype(jnp.float32)
        right = probabilities.argmax(-1) == labels
        shown = jnp.ones(labels.shape, bool) if mask is None else mask
        place = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        place = jnp.where(shown, place, 0)

        def add_up(values):
            values = jnp.where(shown, values, 0).astype(jnp.float32)
            return jnp.zeros(bins, jnp.float32).at[place].add(values)

        return cls(add_up(jnp.ones_like(confidence)), add_up(confidence), add_up(right))

    @property
    def error(self) -> float:
        """Expected calibration error (eq. 3): sum over bins of n_m / n |accuracy - confidence|."""
        return float(np.abs(np.asarray(self.right) - np.asarray(self.confidence)).sum() / np.asarray(self.count).sum())

    @property
    def worst(self) -> float:
        """Maximum calibration error (eq. 5): the largest gap of any bin that holds a prediction."""
        count, confidence, right = (np.asarray(x, np.float64) for x in self)
        full = count > 0
        return float((np.abs(right - confidence)[full] / count[full]).max())


def brier(probabilities: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Mean:
    """Brier's score: the squared distance of the probabilities from the truth, 0 to 2 (Brier 1950, eq. 2)."""
    check_labels(probabilities, labels)
    truth = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    return Mean.of(((probabilities - truth) ** 2).sum(-1), mask)
