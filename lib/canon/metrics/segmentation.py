"""Metrics of semantic segmentation, all computed from one confusion matrix [C, C] of (true class, predicted class).

The matrix adds exactly over batches, hosts and padding: `count_pixels` makes it from label maps, `metrics.confusion`
from logits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.metrics.classification import valid_labels

VOID = 255  # the label of pixels that do not count, as in Pascal VOC


def count_pixels(
    predictions: jax.Array,
    labels: jax.Array,
    num_classes: int,
    mask: jax.Array | None = None,
    ignore_label: int | None = VOID,
) -> jax.Array:
    """Counts pixels by (label, prediction): int32 [C, C].

    Args:
      predictions: predicted classes, integers [B, H, W] (or of any shape).
      labels: true classes, of the same shape. Labels outside of 0 .. num_classes - 1 do not count.
      num_classes: C.
      mask: the leading axes of the labels; what is False does not count.
      ignore_label: a label that does not count, in addition; None for none.

    Raises:
      UsageError: the shapes differ, or values are not integers.
    """
    predictions, labels = jnp.asarray(predictions), jnp.asarray(labels)
    if predictions.shape != labels.shape:
        raise UsageError(f'count_pixels: predictions {predictions.shape} and labels {labels.shape} differ in shape')
    if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in (predictions, labels)):
        raise UsageError(
            f'count_pixels: expected integers, got {predictions.dtype} and {labels.dtype}; take the argmax'
        )
    labels = labels.astype(jnp.int32)  # first: uint8 times the number of classes would overflow
    considered = (labels >= 0) & (labels < num_classes)
    valid = valid_labels(labels, mask, ignore_label)
    considered = considered if valid is None else considered & (valid != 0)
    # One flat index, with a last bin for what does not count: on a CPU six times as fast as a scatter in two axes.
    bins = jnp.where(considered, labels * num_classes + predictions, num_classes**2)
    # Integers: a sum of float32 ones stops at 2^24, fewer pixels than 100 images of 500x375 have.
    counts = jnp.zeros(num_classes**2 + 1, jnp.int32).at[bins.ravel()].add(1)
    return counts[:-1].reshape(num_classes, num_classes)


def class_iu(counts: np.ndarray) -> np.ndarray:
    """Computes each class's intersection over union, n_ii / (t_i + sum_j n_ji - n_ii), [C].

    NaN for a class that is neither in the truth nor predicted; 0 for one that is predicted but not there.
    """
    counts = np.asarray(counts, np.float64)
    hits = np.diagonal(counts)
    with np.errstate(invalid='ignore'):  # 0 / 0 is the NaN of a class that does not occur
        return hits / (counts.sum(1) + counts.sum(0) - hits)


def score_segmentation(counts: np.ndarray) -> dict[str, float]:
    """Computes the four metrics of the FCN paper (Long et al. 2015, section 5; Shelhamer et al. 2017, section 5).

    With n_ij the pixels of class i that are predicted as j, and t_i = sum_j n_ij:
      pixel_accuracy = sum_i n_ii / sum_i t_i
      mean_accuracy = mean_i n_ii / t_i
      mean_iu = mean_i n_ii / (t_i + sum_j n_ji - n_ii)
      frequency_weighted_iu = sum_i t_i IU_i / sum_k t_k
    Means are over the classes for which they are defined, as in the paper's code: a class that is not in the truth has
    no accuracy; it has an IU, of 0, if it is predicted, and none otherwise. All are NaN without a pixel.

    Args:
      counts: confusion matrix [C, C] of (true class, predicted class).

        >>> score_segmentation(np.array([[3, 1], [0, 4]]))['mean_iu']  # the mean of 3/4 and 4/5
        0.775
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UsageError(f'score_segmentation: expected a confusion matrix [C, C], got {counts.shape}')
    hits, totals, iu = np.diagonal(counts), counts.sum(1), class_iu(counts)
    if not counts.sum():
        return dict.fromkeys(('pixel_accuracy', 'mean_accuracy', 'mean_iu', 'frequency_weighted_iu'), float('nan'))
    present = totals > 0
    return {
        'pixel_accuracy': float(hits.sum() / counts.sum()),
        'mean_accuracy': float((hits[present] / totals[present]).mean()),
        'mean_iu': float(np.nanmean(iu)),
        'frequency_weighted_iu': float((totals[present] * iu[present]).sum() / counts.sum()),
    }
