"""Losses of detection by regions: Girshick 2015, "Fast R-CNN", eq. 1 to 3, and Ren et al. 2015, "Faster R-CNN", eq. 1.

    L = (L_cls + L_loc) / N

L_cls is the cross entropy of the N sampled anchors (regions), L_loc the smooth L1 of the encoded offsets of the
positive ones. Both are divided by the number of samples, as in the authors' code and in torchvision: the weight of 10
in the paper's equation belongs to another normalisation, by the number of places.

py-faster-rcnn takes a box with its last pixel x1 for x1 - x0 + 1 wide: the width between pixel edges here. Its encoded
targets are therefore those of `ops.boxes.encode_offsets`.

Samples are assigned first (`assign_anchors`, `assign_regions`), so that a head computes only the sampled regions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.losses.boxes import smooth_l1
from canon.losses.classification import softmax_cross_entropy
from canon.losses.shapes import binary_cross_entropy
from canon.ops import boxes as box_ops
from canon.ops import matching


class RegionSamples(NamedTuple):
    """The anchors or regions of B images that a loss is computed of, N per image, and what they are to become.

    Attributes:
      indices: int32 [B, N] into the anchors or regions.
      boxes: float32 [B, N, 4], the sampled anchors or regions.
      labels: int32 [B, N], 0 for background, 1 + class otherwise (1 for anchors).
      targets: float32 [B, N, 4], encoded offsets of the matched object; 0 where not positive.
      positive: bool [B, N].
      valid: bool [B, N]; False where an image has fewer candidates than N.
    """

    indices: jax.Array
    boxes: jax.Array
    labels: jax.Array
    targets: jax.Array
    positive: jax.Array
    valid: jax.Array


class RegionLoss(NamedTuple):
    """Sums over a batch, and what they are divided by. Sums of batches add, so that N counts the whole batch.

    Attributes:
      classification: cross entropy of the samples, a scalar.
      localisation: smooth L1 of the four offsets of the positives, a scalar.
      samples: N, the valid samples.
      positives: those among them that are matched to an object.
    """

    classification: jax.Array
    localisation: jax.Array
    samples: jax.Array
    positives: jax.Array


def assign_anchors(
    keys: jax.Array,
    anchors: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    mask: jax.Array | None = None,
    allowed: jax.Array | None = None,
    count: int = 256,
    positive_fraction: float = 0.5,
    foreground: float = 0.7,
    background: float = 0.3,
    variances: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
) -> RegionSamples:
    """Samples the anchors of each image that a region proposal network learns from: Ren et al. 2015, section 3.1.2.

    Args:
      keys: one key per image, [B].
      anchors: corner boxes [A, 4] in pixels, of all levels.
      boxes: of the objects [B, M, 4].
      valid: bool [B, M], false for padding and for objects that do not count.
      mask: bool [B], images that count; all if None.
      allowed: bool [A] or [B, A], anchors that may be sampled: `ops.anchors.find_inside` leaves out those that cross
        the image's border, as the paper does; None takes all (torchvision).
      count: N per image.
      positive_fraction: positives among them at most.
      foreground: least IoU of a positive.
      background: IoU below which an anchor is negative.
      variances: that the targets are divided by.
    """
    anchors, rows = jnp.asarray(anchors), _rows(boxes, mask)
    allowed = jnp.ones(len(anchors), bool) if allowed is None else jnp.asarray(allowed)
    allowed = jnp.broadcast_to(allowed, (len(boxes), len(anchors)))

    def assign(key, boxes, valid, allowed):
        matched = matching.match_boxes(anchors, boxes, valid, foreground, background, allowed=allowed)
        return _sample(key, anchors, boxes, None, matched, allowed, count, positive_fraction, variances)

    return jax.vmap(assign)(keys, boxes, valid & rows[:, None], allowed & rows[:, None])


def assign_regions(
    keys: jax.Array,
    regions: jax.Array,
    regions_valid: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    mask: jax.Array | None = None,
    add_objects: bool = True,
    count: int = 512,
    positive_fraction: float = 0.25,
    foreground: float = 0.5,
    background: float = 0.5,
    background_low: float = 0.0,
    variances: tuple[float, ...] = box_ops.VARIANCES,
) -> RegionSamples:
    """Samples the regions of each image that a head learns from: Girshick 2015, section 2.3, "Mini-batch sampling".

    Args:
      keys: one key per image, [B].
      regions: proposals [B, P, 4] in pixels.
      regions_valid: bool [B, P].
      boxes: of the objects [B, M, 4].
      labels: their classes 0, 1, ... without background, integers [B, M].
      valid: bool [B, M], false for padding and for objects that do not count.
      mask: bool [B], images that count; all if None.
      add_objects: whether the objects' own boxes are among the regions, after the proposals, as in the authors' code.
      count: N per image (Fast R-CNN: 64 of each of two images; FPN: 512).
      positive_fraction: positives among them at most.
      foreground: least IoU of a positive.
      background: IoU below which a region is of the background.
      background_low: least IoU of a region of the background (Fast R-CNN: 0.1; Faster R-CNN trained jointly: 0).
      variances: that the targets are divided by: (0.1, 0.1, 0.2, 0.2) are torchvision's weights (10, 10, 5, 5) and the
        standard deviations of py-faster-rcnn.
    """
    regions, rows = jax.lax.stop_gradient(regions), _rows(boxes, mask)
    if add_objects:
        regions = jnp.concatenate([regions, boxes.astype(regions.dtype)], 1)
        regions_valid = jnp.concatenate([regions_valid, valid], 1)

    def assign(key, regions, allowed, boxes, labels, valid):
        matched = matching.match_boxes(regions, boxes, valid, foreground, background, False, background_low)
        return _sample(key, regions, boxes, labels, matched, allowed, count, positive_fraction, variances)

    valid = valid & rows[:, None]
    return jax.vmap(assign)(keys, regions, regions_valid & rows[:, None], boxes, labels, valid)


def _rows(boxes: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.ones(len(boxes), bool) if mask is None else mask


def _sample(key, candidates, boxes, labels, matched, allowed, count, positive_fraction, variances) -> RegionSamples:
    """Samples among the candidates [A, 4] of one image and encodes their objects."""
    positive, negative = (matched >= 0) & allowed, (matched == matching.BACKGROUND) & allowed
    indices, is_positive, valid = matching.sample_fixed(key, positive, negative, count, positive_fraction)
    sampled = candidates[indices] if len(candidates) else jnp.zeros((count, 4), candidates.dtype)
    if not len(boxes) or not len(candidates):
        zeros = jnp.zeros(count, jnp.int32)
        return RegionSamples(indices, sampled, zeros, jnp.zeros((count, 4)), is_positive, valid)
    objects = jnp.maximum(matched[indices], 0)
    # Negatives encode themselves: the logarithm of a padded box of zeros is infinite. A region without area is no
    # positive, but may be a negative, and would divide 0 by 0.
    assigned = jnp.where(is_positive[:, None], boxes[objects], sampled)
    offsets = box_ops.encode_offsets(assigned, sampled, variances)
    targets = jnp.where(is_positive[:, None], offsets, 0).astype(jnp.float32)
    classes = jnp.ones(count, jnp.int32) if labels is None else 1 + labels[objects].astype(jnp.int32)
    return RegionSamples(indices, sampled, jnp.where(is_positive, classes, 0), targets, is_positive, valid)


def rpn_loss(objectness: jax.Array, offsets: jax.Array, samples: RegionSamples, beta: float = 1 / 9) -> RegionLoss:
    """Computes the two sums of a region proposal network's loss, to be divided by `samples` both.

    Args:
      objectness: logits [B, A] of all anchors. (Of two logits per anchor, as in py-faster-rcnn, pass the difference:
        their softmax is its sigmoid.)
      offsets: predicted [B, A, 4].
      samples: of `assign_anchors`.
      beta: of the smooth L1: 1 / 9 in torchvision, which is sigma = 3 in py-faster-rcnn; 0 is the plain L1 of
        detectron2.

    Raises:
      UsageError: the numbers of anchors differ.
    """
    if objectness.shape[:2] != offsets.shape[:2]:
        raise UsageError(f'objectness {objectness.shape} and offsets {offsets.shape} are not of the same anchors')
    logits = jnp.take_along_axis(objectness, samples.indices, 1).astype(jnp.float32)
    entropy = binary_cross_entropy(logits, samples.positive.astype(jnp.float32))
    moves = jnp.take_along_axis(offsets, samples.indices[..., None], 1)
    return _sum_losses(entropy, moves, samples, beta)


def region_loss(logits: jax.Array, offsets: jax.Array, samples: RegionSamples, beta: float = 1 / 9) -> RegionLoss:
    """Computes the two sums of the multi-task loss of a head, to be divided by `samples` both: Girshick 2015, eq. 1.

    Args:
      logits: of the sampled regions [B, N, 1 + classes]; class 0 is the background.
      offsets: predicted [B, N, 1 + classes, 4], of which the true class counts, or [B, N, 1, 4] for all classes.
      samples: of `assign_regions`.
      beta: of the smooth L1: 1 in Fast R-CNN, 1 / 9 in torchvision, 0 in detectron2.

    Raises:
      UsageError: the shapes do not fit the samples or each other.
    """
    expected = samples.labels.shape
    if logits.shape[:2] != expected or offsets.shape[:2] != expected:
        raise UsageError(f'logits {logits.shape} and offsets {offsets.shape} are not of the {expected} sampled regions')
    if offsets.shape[2] not in (1, logits.shape[2]):
        raise UsageError(f'offsets of {offsets.shape[2]} classes fit neither {logits.shape[2]} classes nor one for all')
    entropy = softmax_cross_entropy(logits, samples.labels)
    index = samples.labels if offsets.shape[2] > 1 else jnp.zeros_like(samples.labels)
    moves = jnp.take_along_axis(offsets, index[..., None, None], 2)[:, :, 0]
    return _sum_losses(entropy, moves, samples, beta)


def _sum_losses(entropy: jax.Array, moves: jax.Array, samples: RegionSamples, beta: float) -> RegionLoss:
    positive = samples.positive & samples.valid
    per_sample = smooth_l1(moves.astype(jnp.float32) - samples.targets, beta).sum(-1)
    return RegionLoss(
        classification=jnp.where(samples.valid, entropy, 0).sum(),
        localisation=jnp.where(positive, per_sample, 0).sum(),
        samples=samples.valid.sum(dtype=jnp.float32),
        positives=positive.sum(dtype=jnp.float32),
    )
