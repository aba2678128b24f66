"""Metrics of classifiers, for logits of any leading shape: [B, C] for images, [B, T, C] tokens, [B, H, W, C] pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from canon.losses.classification import check_labels
from canon.metrics.mean import Mean, broadcast_mask


def accuracy(
    logits: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    soft_labels: bool = False,
    ignore_label: int | None = None,
) -> Mean:
    """Computes the share of labels that are the class of the largest logit.

        >>> logits = jnp.array([[2.0, 0.0], [3.0, 1.0], [0.0, 0.0]])
        >>> accuracy(logits, jnp.array([0, 1, 0]), mask=jnp.array([True, True, False])).value
        Array(0.5, dtype=float32)

    Args:
      logits: [..., C].
      labels: integers [...], or, with `soft_labels`, distributions over the classes [..., C], as mixup makes them. A
        prediction then scores the probability that the distribution assigns it, as mixup's authors count (Zhang et al.
        2018, their code).
      mask: the leading axes of the labels, [B] for rows or [B, H, W] for pixels; what is False does not count, such as
        the zeros that fill up the last batch of `canon.data.Once`. None counts everything.
      soft_labels: whether labels of the logits' shape are distributions.
      ignore_label: an integer label that does not count, as 255 for the void pixels of segmentation.

    Returns:
      a `Mean`, which adds over batches; its `value` is the accuracy.

    Raises:
      UsageError: labels or mask have another shape or type.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels, soft_labels)
    valid = valid_labels(labels, mask, ignore_label, logits.shape[:-1])
    predictions = logits.argmax(-1)
    if labels.shape == logits.shape:
        # A distribution credits the predicted class with the probability that it gives it.
        return Mean.of(jnp.take_along_axis(labels, predictions[..., None], -1)[..., 0], valid)
    return Mean.of(predictions == labels, valid)


def top_k(
    logits: ArrayLike,
    labels: ArrayLike,
    k: int,
    mask: ArrayLike | None = None,
    soft_labels: bool = False,
    ignore_label: int | None = None,
) -> Mean:
    """Computes the share of labels among the k largest logits.

    A tie at rank k counts against the label, and so does NaN: a network whose logits are all equal scores 0, not 1.

    Args:
      logits, labels, mask, soft_labels, ignore_label: those of `accuracy`.
      k: the number of classes that a label may be among.

    Returns:
      a `Mean`, whose `value` is the share.

    Raises:
      UsageError: labels or mask have another shape or type.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels, soft_labels)
    valid = valid_labels(labels, mask, ignore_label, logits.shape[:-1])
    if k < logits.shape[-1]:
        largest = jax.lax.top_k(logits, k + 1)[0]  # one more than k: what ties with the next is not within
        within = logits > largest[..., -1:]
    else:
        within = ~jnp.isnan(logits)
    if labels.shape == logits.shape:
        return Mean.of(jnp.where(within, labels, 0).sum(-1), valid)
    # An ignored label may lie outside of the classes, where a gather would read NaN or the wrong class.
    labels = labels if ignore_label is None else jnp.where(labels == ignore_label, 0, labels)
    return Mean.of(jnp.take_along_axis(within, labels[..., None], -1)[..., 0], valid)


def confusion(
    logits: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    soft_labels: bool = False,
    ignore_label: int | None = None,
) -> jax.Array:
    """Counts (label, prediction) pairs; a distribution counts as its most likely class.

    Args:
      logits, labels, mask, soft_labels, ignore_label: those of `accuracy`.

    Returns:
      an int32 matrix [C, C], labels by predictions, which adds over batches.

    Raises:
      UsageError: labels or mask have another shape or type.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels, soft_labels)
    valid = valid_labels(labels, mask, ignore_label, logits.shape[:-1])
    labels = labels.argmax(-1) if labels.shape == logits.shape else labels
    labels = labels if ignore_label is None else jnp.where(labels == ignore_label, 0, labels)
    counts = jnp.zeros((logits.shape[-1],) * 2, jnp.int32)  # exact up to 2^31 per batch; float32 only to 2^24
    amounts = jnp.ones((), jnp.int32) if valid is None else valid.astype(jnp.int32)
    return counts.at[labels, logits.argmax(-1)].add(jnp.broadcast_to(amounts, labels.shape))


def valid_labels(
    labels: ArrayLike, mask: ArrayLike | None, ignore_label: int | None, shape: tuple[int, ...] | None = None
) -> jax.Array | None:
    """Combines a mask of the leading axes with an ignore label: the mask [...] of the labels that count, None for all.

    A loss with an ignore label averages with it: `Mean.of(softmax_cross_entropy(logits, labels, ignore_label=255),
    valid_labels(labels, mask, 255))`.

    Args:
      labels: integers [...]; distributions [..., C] with `shape` and no `ignore_label`.
      mask: booleans (or weights) of the leading axes of the labels.
      ignore_label: a label that does not count.
      shape: of the result; None takes that of the labels.
    """
    labels = jnp.asarray(labels)
    shape = labels.shape if shape is None else tuple(shape)
    valid = None if mask is None else broadcast_mask(mask, shape)
    if ignore_label is None or labels.shape != shape:
        return valid
    considered = labels != ignore_label
    # A mask of weights keeps its weights.
    return considered if valid is None else jnp.where(considered, valid, jnp.zeros((), valid.dtype))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """Computes the recall of each class, [C], from a confusion matrix [C, C]; NaN for classes without examples."""
    counts = np.asarray(counts, np.float64)
    with np.errstate(invalid='ignore'):
        return np.diagonal(counts) / counts.sum(1)
