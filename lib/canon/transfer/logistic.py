"""Softmax regression with weighted examples: the classifier of weighted sources, of boosting and of discriminators."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from canon.errors import UsageError


class SoftmaxModel(NamedTuple):
    """Logits (x - offset) / scale @ kernel + bias.

    Attributes:
      kernel: [D, C].
      bias: [C].
      offset: [D], the mean of the training rows.
      scale: [D], their standard deviation, 1 where it is 0.
    """

    kernel: np.ndarray
    bias: np.ndarray
    offset: np.ndarray
    scale: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Returns the logits [N, C] of rows [N, D]."""
        return (np.asarray(x, np.float64) - self.offset) / self.scale @ self.kernel + self.bias

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the classes [N] of rows [N, D]."""
        return self.logits(x).argmax(-1)


def fit_softmax(
    x: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    num_classes: int | None = None,
    l2: float = 1e-3,
) -> SoftmaxModel:
    """Minimises sum_i w_i CE(x_i) / sum_i w_i + l2 / 2 |kernel|^2 by L-BFGS; columns are standardised first.

    Args:
      x: rows [N, D].
      labels: integers [N].
      weights: w, [N], none negative; None weighs all alike.
      num_classes: C; None is the largest label + 1.
      l2: of the kernel; the bias is free.

    Raises:
      UsageError: labels or weights do not fit the rows.
    """
    rows, y = np.asarray(x, np.float64), np.asarray(labels)
    w = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
    count = int(y.max()) + 1 if num_classes is None else num_classes
    if rows.ndim != 2 or y.shape != (len(rows),) or w.shape != y.shape or y.min() < 0 or y.max() >= count:
        raise UsageError(f'rows {list(rows.shape)}, labels {list(y.shape)} and weights {list(w.shape)} do not fit')
    if w.min() < 0 or not w.sum() > 0:
        raise UsageError('weights must be at least 0, and not all 0')
    w = w / w.sum()
    offset, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 0, scale, 1)
    z, targets, width = (rows - offset) / scale, np.eye(count)[y], rows.shape[1]

    def risk(flat):
        kernel, bias = flat[: width * count].reshape(width, count), flat[width * count :]
        logits = z @ kernel + bias
        value = -(w[:, None] * targets * log_softmax(logits, -1)).sum() + l2 / 2 * (kernel**2).sum()
        error = w[:, None] * (softmax(logits, -1) - targets)
        return value, np.concatenate([(z.T @ error + l2 * kernel).ravel(), error.sum(0)])

    flat = minimize(risk, np.zeros((width + 1) * count), jac=True, method='L-BFGS-B', options={'maxiter': 500}).x
    return SoftmaxModel(flat[: width * count].reshape(width, count), flat[width * count :], offset, scale)
