"""Non-maximum suppression of static size: exact greedy, class-aware, and SSD's per class."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import backend

# Boxes of a tile, and selected ones that it is compared with at once. Tiles of 128 and 256 take XLA:CPU up to twice as
# long for 2,000 boxes: their matrices of comparisons leave the first-level cache, and more work is in vain.
_TILE, _CHUNK = 64, 64


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
    order = _rank(jnp.where(alive, -scores, jnp.inf))  # boxes that cannot be selected come last
    sorted_labels = None if labels is None else labels[order]
    places, count = select_greedily(boxes[order], alive[order], iou_threshold, max_outputs, sorted_labels)
    valid = jnp.arange(max_outputs) < count
    return jnp.where(valid, order[places], 0), valid


def _rank(keys: jax.Array) -> jax.Array:
    """Sorts float [N] without NaN in ascending order: indices int32 [N], of equal keys the lower one first."""
    n = len(keys)
    if not backend.cpu_form() or keys.dtype == jnp.float64 or n > 1 << 16:
        return jnp.argsort(keys, stable=True).astype(jnp.int32)
    # XLA:CPU sorts single integers four times as fast as pairs: two passes over 16 bits of the key and 16 of the index,
    # lower half first. Floats compare as unsigned integers once negative ones are inverted; 0 and -0 are equal.
    bits = lax.bitcast_convert_type(jnp.where(keys == 0, 0, keys).astype(jnp.float32), jnp.uint32)
    bits = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
    places = jnp.arange(n, dtype=jnp.uint32)
    order = lax.sort(bits << 16 | places, is_stable=False) & 0xFFFF
    order = order[lax.sort(bits[order] & jnp.uint32(0xFFFF0000) | places, is_stable=False) & 0xFFFF]
    return order.astype(jnp.int32)


def select_greedily(
    boxes: jax.Array,
    valid: jax.Array,
    iou_threshold: float,
    max_outputs: int,
    labels: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Selects among boxes [N, 4] that are sorted already, each unless a selected one before it overlaps it too much.

    Tiles of boxes are compared with all that are selected so far, then among themselves: the work grows with the number
    of selected boxes times N, in arrays that fit a cache, and no matrix [N, N] is made.

    Args:
      boxes: float [N, 4], by descending score.
      valid: bool [N].
      iou_threshold: a box is suppressed if its IoU is strictly larger.
      max_outputs: D, the number of boxes to select at most.
      labels: integers [N]; boxes of different labels do not suppress each other. None: all do.

    Returns:
      (places int32 [D] in 0..N-1, ascending up to the count, their number).
    """
    n = len(boxes)
    tile = min(_TILE, n)
    padded = -(-n // tile) * tile
    # [4, N] and [N]: every coordinate is contiguous. None in place of labels is no array to XLA.
    columns = boxes.T, None if labels is None else labels.astype(jnp.int32)
    rows, valid = jax.tree.map(lambda x: _pad_last(x, padded), (columns, valid))
    ranks = jnp.arange(tile, dtype=jnp.int32)
    room = -(-(min(max_outputs, n) + tile) // _CHUNK) * _CHUNK  # for one tile more than can be selected

    def take(rows, start, length):
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length, -1), rows)

    def put(rows, update, start):
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, -1), rows, update)

    def find_overlaps(a, b):
        """Returns whether each of the S rows a overlaps each of the T rows b too much: bool [S, T]."""
        overlaps = _iou(a[0], b[0]) > iou_threshold
        return overlaps if labels is None else overlaps & (a[1][:, None] == b[1])

    def visit_tile(state):
        start, *kept = state
        here, candidates = take((rows, valid), start, tile)

        def suppress_by_chunk(state):
            first, alive = state
            return first + _CHUNK, alive & ~find_overlaps(take(kept[0], first, _CHUNK), here).any(0)

        _, candidates = lax.while_loop(lambda state: state[0] < kept[2], suppress_by_chunk, (jnp.int32(0), candidates))
        # Where boxes are clustered most tiles have nothing left.
        return start + tile, *lax.cond(candidates.any(), select_in_tile, keep_state, start, here, candidates, *kept)

    def keep_state(start, here, candidates, *kept):
        return kept

    def select_in_tile(start, here, candidates, kept, places, count):
        pairs = find_overlaps(here, here) & (ranks[:, None] < ranks)

        def refine(state):
            """Removes what the current selection suppresses; at the fixed point the selection is the greedy one."""
            selected, _ = state
            again = candidates & ~(pairs & selected[:, None]).any(0)
            return again, (again != selected).any()

        selected, _ = lax.while_loop(lambda state: state[1], refine, (candidates, jnp.array(True)))
        total = jnp.cumsum(selected, dtype=jnp.int32)
        # The k-th selected box stands where k totals are smaller: a scatter would be a loop on XLA:CPU.
        packed = jnp.minimum((total[:, None] <= ranks).sum(0, dtype=jnp.int32), tile - 1)
        found = jax.tree.map(lambda x: x[..., packed], here)
        # What follows them is NaN, with which no IoU exceeds the threshold.
        kept = put(kept, (jnp.where(ranks < total[-1], found[0], jnp.nan), found[1]), count)
        return kept, put(places, start + packed, count), jnp.minimum(count + total[-1], max_outputs)

    def has_more(state):
        # If all boxes may be selected there is nothing to stop early for, and a batch runs in step.
        return (state[0] < padded) & (state[3] < max_outputs) if max_outputs < n else state[0] < padded

    nothing = jnp.full((4, room), jnp.nan, boxes.dtype), None if labels is None else jnp.zeros(room, jnp.int32)
    empty = jnp.int32(0), nothing, jnp.zeros(room, jnp.int32), jnp.int32(0)
    _, _, places, count = lax.while_loop(has_more, visit_tile, empty)
    return jnp.pad(places, (0, max(max_outputs - room, 0)))[:max_outputs], count


def _pad_last(x: jax.Array, length: int) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, length - x.shape[-1])])


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

    select = partial(select_greedily, iou_threshold=iou_threshold, max_outputs=per_class)
    places, counts = jax.vmap(select)(boxes, top > score_threshold)  # [C, K], [C]
    passed = jnp.arange(per_class) < counts[:, None]
    count = min(max_outputs, classes * per_class)
    kept_scores = jnp.where(passed, jnp.take_along_axis(top, places, 1), -jnp.inf)
    best, place = lax.top_k(kept_scores.ravel(), count)
    valid, label = passed.ravel()[place], place // max(per_class, 1)
    found = {
        'boxes': jnp.where(valid[:, None], boxes[label, places.ravel()[place]], 0),
        'scores': jnp.where(valid, best, 0),
        'labels': jnp.where(valid, label.astype(jnp.int32), 0),
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
