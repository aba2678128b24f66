"""The MultiBox loss: Liu et al. 2016, "SSD: Single shot multibox detector", section 2.2, equations 1 to 3.

    L = (L_conf + alpha L_loc) / N

L_loc is the smooth L1 of the encoded offsets of the N matched priors, L_conf the softmax cross entropy of the matched
priors and of the negatives with the highest loss, three for each positive of their image.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.losses.boxes import smooth_l1
from canon.losses.classification import softmax_cross_entropy
from canon.ops import boxes as box_ops
from canon.ops import matching


class MultiBoxLoss(NamedTuple):
    """Sums over a batch, and what they are divided by. Sums of batches add, so that N counts the whole batch.

    Attributes:
      localisation: smooth L1 of the four offsets of the positives, a scalar.
      confidence: cross entropy of the positives and the mined negatives, a scalar.
      positives: N, the matched priors.
      negatives: the mined ones.
    """

    localisation: jax.Array
    confidence: jax.Array
    positives: jax.Array
    negatives: jax.Array


def multibox_loss(
    offsets: jax.Array,
    logits: jax.Array,
    priors: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    mask: jax.Array | None = None,
    threshold: float = 0.5,
    negative_ratio: float = 3.0,
    min_negatives: int = 0,
    variances: tuple[float, ...] = box_ops.VARIANCES,
) -> MultiBoxLoss:
    """Computes the two sums of the MultiBox loss, to be divided by `positives` (Caffe's normalisation VALID).

    An image without objects has no positives, and so no mined negatives and no loss, as in the paper ("if N = 0 we set
    the loss to 0") and in torchvision. With `min_negatives` it contributes that many negatives, its hardest, and the
    detector learns from empty images as well. A batch without any positive then has a loss but the weight N = 0, and so
    a gradient of zero in training (`canon.train.step` divides the sums of all microbatches by their N once, so that a
    microbatch without positives counts if another one has some); Caffe divides by max(N, 1) instead.

    Args:
      offsets: predicted offsets from the priors [B, A, 4], as of `ops.boxes.encode_offsets`.
      logits: [B, A, 1 + classes]; class 0 is the background.
      priors: corner boxes [A, 4] in pixels.
      boxes: of the objects [B, M, 4], in pixels.
      labels: their classes 0, 1, ... without background, integers [B, M].
      valid: bool [B, M], false for padding and for objects that do not count.
      mask: bool [B], images that count; all if None.
      threshold: IoU from which a prior is matched to an object. Each object also has its best prior.
      negative_ratio: mined negatives per positive of the same image; infinity takes all negatives.
      min_negatives: mined negatives per image at least.
      variances: that the targets are divided by.

    Raises:
      UsageError: the numbers of priors differ.
    """
    if not (offsets.shape[-2] == logits.shape[-2] == len(priors)):
        raise UsageError(
            f'{offsets.shape[-2]} offsets and {logits.shape[-2]} scores per image do not fit {len(priors)} priors; '
            'make the priors for the padded size of the images'
        )
    # An image that does not count has no valid object, and so no positive; its negatives are left out below.
    rows = jnp.ones(len(boxes), bool) if mask is None else mask
    matched = match_objects(priors, boxes, valid & rows[:, None], threshold)  # [B, A]
    positive = matched >= 0
    index = jnp.maximum(matched, 0)
    assigned = jnp.take_along_axis(boxes, index[..., None], axis=1)
    # Priors without an object encode themselves: the logarithm of a padded box of zeros is infinite.
    assigned = jnp.where(positive[..., None], assigned, priors)
    targets = box_ops.encode_offsets(assigned, priors, variances)
    per_prior = smooth_l1(offsets.astype(targets.dtype) - targets).sum(-1)
    localisation = jnp.where(positive, per_prior, 0).sum()

    # Unmatched priors are of the background, so one cross entropy is both the loss and what negatives are ranked by.
    classes = jnp.where(positive, 1 + jnp.take_along_axis(labels, index, axis=1), 0)
    entropy = softmax_cross_entropy(logits, classes)
    negative = select_negatives(jax.lax.stop_gradient(entropy), positive, negative_ratio, min_negatives)
    negative &= rows[:, None]  # `min_negatives` and an infinite ratio select them in every image
    confidence = jnp.where(positive | negative, entropy, 0).sum()
    count = jnp.float32
    return MultiBoxLoss(localisation, confidence, positive.sum(dtype=count), negative.sum(dtype=count))


def match_objects(priors: jax.Array, boxes: jax.Array, valid: jax.Array, threshold: float = 0.5) -> jax.Array:
    """Matches priors [A, 4] to objects [B, M, 4]: the object of each prior, int32 [B, A], -1 for the background."""
    iou = box_ops.pairwise_iou(jnp.broadcast_to(priors, (len(boxes), *priors.shape)), boxes)
    return jax.vmap(lambda iou, valid: matching.match_priors(iou, valid, threshold))(iou, valid)


def select_negatives(
    losses: jax.Array, positive: jax.Array, negative_ratio: float = 3.0, min_negatives: int = 0
) -> jax.Array:
    """Selects the negatives [B, A] with the highest losses: `negative_ratio` per positive of the image, at least
    `min_negatives`.
    """
    # Not through mining: infinity times no positives is NaN.
    if negative_ratio == float('inf'):
        return ~positive
    mined = matching.mine_hard_negatives(losses, positive, negative_ratio)
    if not min_negatives:
        return mined
    # The smaller of the two sets is a part of the larger one, since both take negatives by the same rank.
    floor = jax.lax.top_k(jnp.where(positive, -jnp.inf, losses), min(min_negatives, losses.shape[-1]))[1]
    hardest = jnp.zeros(positive.shape, bool).at[jnp.arange(len(positive))[:, None], floor].set(True)
    return mined | (hardest & ~positive)
