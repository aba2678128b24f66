"""Calibration metrics: expected and maximum calibration error and the Brier score.

Probabilities are [..., C], labels integers [...], masks have the labels' leading axes; an `ignore_label` does not
count. Labels or masks of other shapes or types raise UsageError.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.losses.classification import check_labels
from canon.metrics.classification import valid_labels
from canon.metrics.mean import Mean


class Reliability(NamedTuple):
    """A histogram of predictions over their confidence, the largest probability; adds over batches.

    Bin m of M holds the confidences in ((m - 1) / M, m / M]. Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern
    Neural Networks", 2017, section 2.
    """

    count: Any  # [M] predictions
    confidence: Any  # [M] sum of their confidences
    right: Any  # [M] correct predictions

    def __add__(self, other: Reliability) -> Reliability:  # ty: ignore[incompatible-method-override]
        return Reliability(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def of(
        cls,
        probabilities: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        bins: int = 15,
        ignore_label: int | None = None,
    ) -> Reliability:
        """Bins one batch of predictions; 15 bins as in the paper's table 1."""
        check_labels(probabilities, labels)
        confidence = probabilities.max(-1).astype(jnp.float32)
        right = probabilities.argmax(-1) == labels
        valid = valid_labels(labels, mask, ignore_label)
        valid = jnp.ones(labels.shape, bool) if valid is None else valid
        index = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        index = jnp.where(valid, index, 0)  # masked rows may be NaN, which is not an index

        def sum_by_bin(values):
            values = jnp.where(valid, values, 0).astype(jnp.float32)
            return jnp.zeros(bins, jnp.float32).at[index].add(values)

        return cls(sum_by_bin(jnp.ones_like(confidence)), sum_by_bin(confidence), sum_by_bin(right))

    @property
    def error(self) -> float:
        """Expected calibration error (eq. 3): sum over bins of n_m / n |accuracy - confidence|."""
        return float(np.abs(np.asarray(self.right) - np.asarray(self.confidence)).sum() / np.asarray(self.count).sum())

    @property
    def worst(self) -> float:
        """Maximum calibration error (eq. 5): the largest gap of any bin that holds a prediction."""
        count, confidence, right = (np.asarray(x, np.float64) for x in self)
        occupied = count > 0
        return float((np.abs(right - confidence)[occupied] / count[occupied]).max())


def brier(
    probabilities: jax.Array, labels: jax.Array, mask: jax.Array | None = None, ignore_label: int | None = None
) -> Mean:
    """Computes Brier's score: the squared distance of the probabilities from the one-hot label, in [0, 2].

    Brier, "Verification of forecasts expressed in terms of probability", 1950, eq. 2.

    Args:
      probabilities: [..., C].
      labels: integers [...].
      mask: the leading axes of the labels; what is False does not count.
      ignore_label: an integer label that does not count.

    Returns:
      a `Mean`, whose `value` is the score.

    Raises:
      UsageError: labels or mask have another shape or type.
    """
    check_labels(probabilities, labels)
    target = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    return Mean.of(((probabilities - target) ** 2).sum(-1), valid_labels(labels, mask, ignore_label))
