"""Metrics of classifiers. Logits are [B, C], masks booleans [B].

Labels are integers [B], or, with `soft_labels`, distributions over the classes [B, C], as mixup makes them. A guess
then counts for as much as its distribution gives it, which is how mixup's authors count (Zhang et al. 2018, their
code). Labels of another shape or type raise UsageError.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.losses.classification import check_labels
from canon.metrics.mean import Mean, broadcast_mask


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, soft_labels: bool = False) -> Mean:
    """The share of rows whose largest logit is the label's."""
    check_labels(logits, labels, soft_labels)
    guess = logits.argmax(-1)
    if labels.ndim == logits.ndim:
        return Mean.of(jnp.take_along_axis(labels, guess[..., None], -1)[..., 0], mask)
    return Mean.of(guess == labels, mask)


def top_k(
    logits: jax.Array, labels: jax.Array, k: int, mask: jax.Array | None = None, soft_labels: bool = False
) -> Mean:
    """The share of rows whose label is among the k largest logits; a tie counts against the label, and NaN too.

    Counting against it keeps a network whose logits are all equal at 0, not at 1.
    """
    check_labels(logits, labels, soft_labels)
    if k < logits.shape[-1]:
        best = jax.lax.top_k(logits, k + 1)[0]
        within = logits > best[..., -1:]
    else:
        within = ~jnp.isnan(logits)
    if labels.ndim == logits.ndim:
        return Mean.of(jnp.where(within, labels, 0).sum(-1), mask)
    return Mean.of(jnp.take_along_axis(within, labels[..., None], -1)[..., 0], mask)


def confusion(
    logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, soft_labels: bool = False
) -> jax.Array:
    """Counts [C, C] of (label, prediction) pairs; int32, adds over batches. A distribution counts as its likeliest.

    logits [..., C]; labels integers [...] or distributions [..., C]; mask of the labels' leading axes: [B] leaves out
    whole label maps [B, H, W], [B, H, W] leaves out pixels. Raises UsageError for a mask of another shape.
    """
    check_labels(logits, labels, soft_labels)
    classes = logits.shape[-1]
    labels = labels.argmax(-1) if labels.ndim == logits.ndim else labels
    valid = jnp.ones((), jnp.int32) if mask is None else mask.astype(jnp.int32)
    if labels.shape[: valid.ndim] != valid.shape:
        raise UsageError(f'mask {valid.shape} must have the leading axes of the labels, {labels.shape}')
    counts = jnp.zeros((classes, classes), jnp.int32)
    return counts.at[labels, logits.argmax(-1)].add(broadcast_mask(valid, labels.shape))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """The share of each class that was right, [C], from a confusion matrix [C, C]; NaN for a class without examples."""
    counts = np.asarray(counts, np.float64)
    with np.errstate(invalid='ignore'):
        return np.diagonal(counts) / counts.sum(1)
