"""Proposals of a region proposal network: Ren et al. 2015, sections 3.1 and 3.3; on the levels of a feature pyramid as
in Lin et al. 2017, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon.errors import UsageError
from canon.ops import boxes as box_ops
from canon.ops.nms import select_greedily


def propose(
    objectness: Sequence[jax.Array],
    offsets: Sequence[jax.Array],
    anchors: Sequence[jax.Array],
    image_size: Sequence[int | jax.Array],
    pre_nms: int,
    post_nms: int,
    iou_threshold: float = 0.7,
    min_size: float = 1e-3,
    variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    extents: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Turns the outputs of a region proposal network into a fixed number of proposals.

    Per level: the anchors with the highest objectness are decoded, clipped to the image, dropped if they are too small,
    and suppressed by NMS. Then the best proposals of all levels remain. No gradient flows through it: training is the
    "approximate joint training" of section 3.2.

    Args:
      objectness: logits per level, float [B, A_l].
      offsets: per level, float [B, A_l, 4].
      anchors: per level, float [A_l, 4].
      image_size: (height, width), numbers, or arrays [B] for images of different sizes in one padded batch.
      pre_nms: anchors per level that enter NMS (py-faster-rcnn: 12000 in training, 6000 in tests, of its one level;
        torchvision: 2000 and 1000 per level).
      post_nms: P, proposals per image (2000 and 300; 2000 and 1000).
      iou_threshold: of the NMS within a level.
      min_size: least width and height in pixels (py-faster-rcnn: 16 times the scale of the image).
      variances: that the decoded offsets are multiplied by.
      extents: boxes [B, 4] in place of `image_size`, of images that do not begin in the corner of their canvas.

    Returns:
      (boxes float32 [B, P, 4], scores float32 [B, P], valid bool [B, P]), by descending score; scores are
      sigmoid(objectness). Zeros where not valid.

    Raises:
      UsageError: the levels differ in number or in anchors.
    """
    _check_levels(objectness, offsets, anchors)
    batch = objectness[0].shape[0]
    if extents is None:
        height, width = (jnp.broadcast_to(jnp.asarray(n, jnp.float32), (batch,)) for n in image_size)
        extents = jnp.stack([jnp.zeros_like(width), jnp.zeros_like(height), width, height], -1)

    def propose_one(objectness, offsets, extents):
        levels = [
            _select_candidates(*level, extents, pre_nms, min_size, variances)
            for level in zip(objectness, offsets, anchors, strict=True)
        ]
        # All levels get the length of the longest, so that one NMS serves them all.
        room = max(len(logits) for _, logits, _ in levels)
        boxes, logits, alive = (
            jnp.stack([jnp.pad(x, [(0, room - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in parts])
            for parts in zip(*levels, strict=True)
        )
        limit = min(room, post_nms)
        select = partial(select_greedily, iou_threshold=iou_threshold, max_outputs=limit)
        places, counts = jax.vmap(select)(boxes, alive)
        boxes = jnp.take_along_axis(boxes, places[..., None], 1).reshape(-1, 4)
        kept = jnp.arange(limit) < counts[:, None]
        logits = jnp.where(kept, jnp.take_along_axis(logits, places, 1), -jnp.inf).ravel()
        count = min(post_nms, len(logits))
        best, index = lax.top_k(logits, count)
        valid = kept.ravel()[index]
        found = jnp.where(valid[:, None], boxes[index], 0), jnp.where(valid, jax.nn.sigmoid(best), 0), valid
        return tuple(jnp.pad(x, [(0, post_nms - count)] + [(0, 0)] * (x.ndim - 1)) for x in found)

    detached = jax.tree.map(lambda x: lax.stop_gradient(x).astype(jnp.float32), (tuple(objectness), tuple(offsets)))
    return jax.vmap(propose_one)(*detached, extents)


def _check_levels(objectness, offsets, anchors) -> None:
    if not len(objectness) == len(offsets) == len(anchors) or not objectness:
        raise UsageError(
            f'{len(objectness)} levels of objectness, {len(offsets)} of offsets and {len(anchors)} of anchors: '
            'expected as many of each'
        )
    for level, (scores, moves, boxes) in enumerate(zip(objectness, offsets, anchors, strict=True)):
        if not scores.shape[1] == moves.shape[1] == len(boxes):
            raise UsageError(
                f'level {level} has {scores.shape[1]} scores, {moves.shape[1]} offsets and {len(boxes)} anchors; '
                'make the anchors for the padded size of the images'
            )


def _select_candidates(logits, offsets, anchors, extents, pre_nms, min_size, variances):
    """Returns (boxes [K, 4], logits [K], valid [K]) of the K anchors with the highest objectness, sorted by it."""
    # A NaN would come first; it is the last instead, and not valid.
    logits, index = lax.top_k(jnp.where(jnp.isnan(logits), -jnp.inf, logits), min(pre_nms, len(logits)))
    # Decoded only now: of 160,000 anchors 4,500 are left.
    boxes = box_ops.decode_offsets(offsets[index], jnp.asarray(anchors)[index], variances)
    boxes = box_ops.clip_to_extents(boxes, extents)
    large = (boxes[:, 2] - boxes[:, 0] >= min_size) & (boxes[:, 3] - boxes[:, 1] >= min_size)  # False for NaN
    return jnp.where(large[:, None], boxes, 0), logits, large & (logits > -jnp.inf)
