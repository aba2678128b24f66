"""Weights of classes for a target whose classes occur in other proportions, which no alignment of features undoes."""

from __future__ import annotations

import numpy as np

from canon.errors import UsageError


def estimate_class_weights(
    source_predictions: np.ndarray, source_labels: np.ndarray, target_predictions: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns p_target(y) / p_source(y) [C] from any classifier's predictions: Lipton et al. 2018 (BBSE).

    Where p(x | y) is the same in both domains, mu = C w, with C[i, j] = P_source(prediction i, label j) and mu[i] =
    P_target(prediction i). Solved exactly; negative weights are then 0.

    Args:
      source_predictions: classes [N] that a classifier predicts for held-out source examples.
      source_labels: their labels [N].
      target_predictions: classes [M] that it predicts for target examples.
      num_classes: C.

    Raises:
      UsageError: a class does not occur among the labels, or the predictions do not tell the classes apart.
    """
    predicted, labels, hidden = (
        np.asarray(x, np.int64) for x in (source_predictions, source_labels, target_predictions)
    )
    absent = np.setdiff1d(np.arange(num_classes), labels)
    if len(absent) or not len(hidden):
        raise UsageError(f'class {absent[0] if len(absent) else 0} has no example to estimate its weight from')
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (predicted, labels), 1 / len(labels))
    if np.linalg.matrix_rank(joint) < num_classes:
        raise UsageError('the predictions do not tell the classes apart: their confusion matrix has no inverse')
    marginal = np.bincount(hidden, minlength=num_classes) / len(hidden)
    return np.maximum(np.linalg.solve(joint, marginal), 0)
