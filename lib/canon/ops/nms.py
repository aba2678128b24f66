"""Non-maximum suppression of static size: exact greedy, class-aware, and SSD's per class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

_TILE = 256


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    iou_threshold: float,
    max_outputs: int,
    valid: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Selects boxes greedily: the one with the highest score, then the highest that overlaps none of the selected.

    A box is suppressed if its IoU with a selected one is strictly larger than the threshold. Of equal scores the lower
    index comes first; boxes with a score of NaN are never selected. Not differentiable. Works under `vmap`.

    Args:
      boxes: float [N, 4], corner boxes.
      scores: float [N].
      iou_threshold: of suppression.
      max_outputs: D, the number of boxes to select at most.
      valid: bool [N]; False excludes a box.
      labels: integers [N]; boxes of different labels do not suppress each other. None: all do.

    Returns:
      (indices int32 [D], valid bool [D]), by descending score; indices are 0 where not valid.
    """
    n = len(boxes)
    if not n or not max_outputs:
        return jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, bool)
    boxes, scores = lax.stop_gradient(boxes), lax.stop_gradient(scores)
    alive = ~jnp.isnan(scores) if valid is None else valid & ~jnp.isnan(scores)
    # Boxes that cannot be selected come last. The sort is stable: of equal scores the lower index comes first.
    order = jnp.argsort(jnp.where(alive, -scores, jnp.inf), stable=True).astype(jnp.int32)
    selected = select_greedily(
        boxes[order], alive[order], iou_threshold, max_outputs, None if labels is None else labels[order]
    )
    rank = jnp.cumsum(selected, dtype=jnp.int32) - 1
    indices = jnp.zeros(max_outputs, jnp.int32).at[jnp.where(selected, rank, max_outputs)].set(order, mode='drop')
    return indices, jnp.arange(max_outputs) <= rank[-1]


def select_greedily(
    boxes: jax.Array,
    valid: jax.Array,
    iou_threshold: float,
    max_outputs: int | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """Selects among boxes [N, 4] that are sorted already, each unless a selected one before it overlaps it too much.

    Args:
      boxes: float [N, 4], by descending score.
      valid: bool [N].
      iou_threshold: a box is suppressed if its IoU is strictly larger.
      max_outputs: the number of boxes to select at most; None for no limit.
      labels: integers [N]; boxes of different labels do not suppress each other. None: all do.

    Returns:
      bool [N].
    """
    n = len(boxes)
    limit = n if max_outputs is None else max_outputs
    tile = min(_TILE, n)
    padded = -(-n // tile) * tile
    corners = jnp.pad(boxes.T, ((0, 0), (0, padded - n)))  # [4, N]: every coordinate is contiguous
    labels = None if labels is None else jnp.pad(labels, (0, padded - n))
    places = jnp.arange(tile, dtype=jnp.int32)

    def find_overlaps(start, others, other_labels):
        """Whether each box of the tile overlaps each of the others [4, M] too much: bool [T, M]."""
        overlaps = _iou(lax.dynamic_slice_in_dim(corners, start, tile, 1), others) > iou_threshold
        if labels is None:
            return overlaps
        return overlaps & (lax.dynamic_slice_in_dim(labels, start, tile)[:, None] == other_labels)

    def select_in_tile(state):
        """Selects in the tile exactly, then suppresses all boxes that follow it."""
        start, alive, count = state
        here = lax.dynamic_slice_in_dim(corners, start, tile, 1)
        candidates = lax.dynamic_slice_in_dim(alive, start, tile)
        labels_here = None if labels is None else lax.dynamic_slice_in_dim(labels, start, tile)
        pairs = find_overlaps(start, here, labels_here) & (places[:, None] < places)

        def refine(state):
            """Removes what the current selection suppresses; at the fixed point the selection is the greedy one."""
            selected, _ = state
            again = candidates & ~(pairs & selected[:, None]).any(0)
            return again, (again != selected).any()

        selected, _ = lax.while_loop(lambda state: state[1], refine, (candidates, jnp.array(True)))
        selected &= count + jnp.cumsum(selected, dtype=jnp.int32) <= limit
        suppressed = (find_overlaps(start, corners, labels) & selected[:, None]).any(0)
        alive = jnp.where(jnp.arange(padded) < start + tile, alive, alive & ~suppressed)
        alive = lax.dynamic_update_slice_in_dim(alive, selected, start, 0)
        return start + tile, alive, count + selected.sum(dtype=jnp.int32)

    def unfinished(state):
        start, _, count = state
        return (start < padded) & (count < limit)

    start, alive, _ = lax.while_loop(
        unfinished, select_in_tile, (jnp.int32(0), jnp.pad(valid, (0, padded - n)), jnp.int32(0))
    )
    return (alive & (jnp.arange(padded) < start))[:n]  # what lies beyond the last tile was not reached


def multiclass_nms(
    boxes: jax.Array,
    scores: jax.Array,
    score_threshold: float,
    iou_threshold: float,
    per_class: int,
    max_outputs: int,
) -> dict[str, jax.Array]:
    """Turns the scores of all classes into detections, as SSD does (Liu et al. 2016, section 3.1).

    Of every class the `per_class` boxes with the highest scores pass NMS, then the best `max_outputs` of all classes
    remain. A box may be detected as several classes. Works under `vmap`.

    Args:
      boxes: float [N, 4], or [N, C, 4] if every class has a box of its own.
      scores: float [N, C], without the background.
      score_threshold: scores must be strictly larger.
      iou_threshold: of the suppression within a class.
      per_class: candidates per class (SSD: 400).
      max_outputs: D, detections per image (SSD: 200).

    Returns:
      {'boxes': float [D, 4], 'scores': float [D], 'labels': int32 [D] in 0..C-1, 'valid': bool [D]}, by descending
      score, zeros where not valid.
    """
    n, classes = scores.shape
    per_class = min(per_class, n)
    boxes, scores = lax.stop_gradient(boxes), lax.stop_gradient(scores)
    top, candidates = lax.top_k(scores.T, per_class)  # [C, K], sorted; of equal scores the lower index comes first
    if boxes.ndim == 2:
        boxes = boxes[candidates]  # [C, K, 4]
    else:
        boxes = jnp.take_along_axis(boxes.swapaxes(0, 1), candidates[..., None], 1)

    selected = jax.vmap(lambda b, valid: select_greedily(b, valid, iou_threshold))(boxes, top > score_threshold).ravel()
    count = min(max_outputs, classes * per_class)
    best, place = lax.top_k(jnp.where(selected, top.ravel(), -jnp.inf), count)
    valid = selected[place]
    found = {
        'boxes': jnp.where(valid[:, None], boxes.reshape(-1, 4)[place], 0),
        'scores': jnp.where(valid, best, 0),
        'labels': jnp.where(valid, (place // max(per_class, 1)).astype(jnp.int32), 0),
        'valid': valid,
    }
    return {k: jnp.pad(v, ((0, max_outputs - count), *((0, 0),) * (v.ndim - 1))) for k, v in found.items()}


def _iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the IoU of a [4, S] and b [4, T], [S, T]; NaN for two boxes without area, which no comparison passes."""
    ax0, ay0, ax1, ay1 = a[:, :, None]
    bx0, by0, bx1, by1 = b[:, None]
    width = jnp.maximum(jnp.minimum(ax1, bx1) - jnp.maximum(ax0, bx0), 0)
    height = jnp.maximum(jnp.minimum(ay1, by1) - jnp.maximum(ay0, by0), 0)
    intersection = width * height
    return intersection / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection)
