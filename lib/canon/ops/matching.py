"""Assigns objects to priors, anchors and regions, and selects those that a detector learns from."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from canon.ops import boxes as box_ops

BACKGROUND, IGNORED = -1, -2


def match_priors(iou: jax.Array, valid: jax.Array, threshold: float = 0.5) -> jax.Array:
    """Matches priors to objects: bipartite, then by threshold (Liu et al. 2016, section 2.2, "Matching strategy").

    First every object receives a prior of its own: of all pairs that overlap, the one with the largest IoU is matched,
    then the largest of the remaining objects and priors, and so on. Then each remaining prior is matched to the object
    that it overlaps most, if their IoU is at least `threshold` (the paper: above it). Of equal overlaps the prior, then
    the object with the lower index wins. An object that overlaps no prior, or finds all of them taken, remains
    unmatched. torchvision gives a prior that is the best one of several objects to the last of them, without a second
    choice for the others.

    Args:
      iou: float [A, M], of `boxes.pairwise_iou(priors, objects)`.
      valid: bool [M], False for padding.
      threshold: of the second step.

    Returns:
      int32 [A], the index of the matched object, or -1 for background. Not differentiable. Works under `vmap`.
    """
    iou = jnp.where(valid, lax.stop_gradient(iou), -1.0)  # before any maximum: padding never wins
    num_priors, num_objects = iou.shape
    if not num_objects or not num_priors:
        return jnp.full(num_priors, BACKGROUND, jnp.int32)
    rows, columns = jnp.arange(num_priors, dtype=jnp.int32), jnp.arange(num_objects, dtype=jnp.int32)

    def match_dominant_pairs(state):
        """Matches all pairs that are the largest of both their row and their column.

        Greedy matching would take each of these too, whatever else it takes first, so that some rounds over the matrix
        replace one pass per object.
        """
        remaining, matched, _ = state
        best = remaining.max(0)
        prior = jnp.where(remaining == best, rows[:, None], num_priors).min(0)  # [M], the first of equal ones
        prior = jnp.where(best > 0, prior, num_priors)
        rivals = remaining[jnp.minimum(prior, num_priors - 1)]  # [M, M]: what every object has on this prior
        winner = jnp.where(rivals == best[:, None], columns, num_objects).min(1)
        dominant = (winner == columns) & (best > 0) & (rivals.max(1) <= best)
        target = jnp.where(dominant, prior, num_priors)  # out of bounds: dropped
        matched = matched.at[target].set(columns, mode='drop')
        taken = matched != BACKGROUND
        remaining = jnp.where(dominant | taken[:, None], -1.0, remaining)
        return remaining, matched, dominant.any()

    start = iou, jnp.full(num_priors, BACKGROUND, jnp.int32), jnp.array(True)
    _, matched, _ = lax.while_loop(lambda state: state[2], match_dominant_pairs, start)
    largest = iou.max(1)
    closest = jnp.where(iou == largest[:, None], columns, num_objects).min(1)
    return jnp.where((matched == BACKGROUND) & (largest >= threshold) & (largest > 0), closest, matched)


def mine_hard_negatives(loss: jax.Array, positive: jax.Array, ratio: float = 3) -> jax.Array:
    """Selects the negatives with the largest loss, at most `ratio` per positive (section 2.2, "Hard negative mining").

    Args:
      loss: float [..., A], of each prior if its class is background.
      positive: bool [..., A].
      ratio: negatives per positive; an image without positives has no negatives.

    Returns:
      bool [..., A]; of equal losses those with the lower index are selected. Not differentiable.
    """
    # The number to select turns into a threshold by one sort of values; ranks by index would take two of pairs.
    loss = jnp.where(positive, -jnp.inf, lax.stop_gradient(loss))
    negatives = (~positive).sum(-1, keepdims=True)
    count = jnp.minimum(jnp.floor(ratio * positive.sum(-1, keepdims=True)).astype(jnp.int32), negatives)
    ascending = jnp.sort(loss, -1)
    place = jnp.clip(loss.shape[-1] - count, 0, max(loss.shape[-1] - 1, 0))
    smallest = jnp.take_along_axis(ascending, place, -1) if loss.shape[-1] else loss
    larger = (loss > smallest) & ~positive
    equal = (loss == smallest) & ~positive
    spare = count - larger.sum(-1, keepdims=True)
    return (larger | (equal & (jnp.cumsum(equal, -1) <= spare))) & (count > 0)


def match_anchors(
    iou: jax.Array,
    valid: jax.Array,
    foreground: float = 0.7,
    background: float = 0.3,
    force_best: bool = True,
    background_low: float = 0.0,
) -> jax.Array:
    """Matches anchors or proposals to objects by two thresholds: Ren et al. 2015, section 3.1.2.

    An anchor is matched to the object that it overlaps most if their IoU is at least `foreground`. It is of the
    background below `background`, and ignored between both. With `force_best` the anchors with the largest IoU with an
    object (all of them if several are equal) are matched as well, to the object that they themselves overlap most, as
    in py-faster-rcnn and torchvision. An object that no anchor overlaps forces none; in those libraries it forces every
    anchor that does not overlap it.

    Args:
      iou: float [A, M], of `boxes.pairwise_iou(anchors, objects)`.
      valid: bool [M], False for padding.
      foreground: least IoU of a match (RPN: 0.7; heads: 0.5).
      background: IoU below which an anchor is of the background (RPN: 0.3; heads: 0.5).
      force_best: whether every object matches its best anchors.
      background_low: anchors with a largest IoU below it are ignored: 0.1 in Fast R-CNN, a heuristic for hard examples.

    Returns:
      int32 [A], the index of the object, -1 for background, -2 for ignored. Of equal overlaps the object with the lower
      index is matched. Not differentiable. Works under `vmap`.
    """
    iou = lax.stop_gradient(jnp.asarray(iou)).T
    settings = foreground, background, force_best, background_low
    return _match_rows(lambda row: iou[row], iou.shape[1], valid, settings)


def match_boxes(
    anchors: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    foreground: float = 0.7,
    background: float = 0.3,
    force_best: bool = True,
    background_low: float = 0.0,
    allowed: jax.Array | None = None,
) -> jax.Array:
    """Matches anchors to objects as `match_anchors` does, without a matrix of their IoU.

    Args:
      anchors: [A, 4].
      boxes: of the objects, [M, 4].
      valid: bool [M], False for padding.
      foreground: see `match_anchors`.
      background: see `match_anchors`.
      force_best: see `match_anchors`.
      background_low: see `match_anchors`.
      allowed: bool [A]; the others overlap no object, so that they are not an object's best. None: all.

    Returns:
      int32 [A].
    """
    anchors, boxes = (lax.stop_gradient(jnp.asarray(x)) for x in (anchors, boxes))

    def overlap(row):
        iou = box_ops.pairwise_iou(boxes[row, None], anchors)[0]
        return iou if allowed is None else jnp.where(allowed, iou, 0)

    return _match_rows(overlap, len(anchors), valid, (foreground, background, force_best, background_low))


def _match_rows(
    overlap: Callable[[jax.Array], jax.Array], num_anchors: int, valid: jax.Array, settings: tuple
) -> jax.Array:
    """Matches anchors given the IoU [A] of the object of an index with all of them, see `match_anchors`."""
    foreground, background, force_best, background_low = settings
    valid = jnp.asarray(valid)

    # Object by object, up to the last valid one: XLA:CPU does not vectorise maxima over the objects of a matrix, which
    # takes ten times as long for 160,000 anchors, and most of 100 objects are padding.
    def compare(row, state):
        largest, closest, forced = state
        iou = jnp.where(valid[row], overlap(row), -1.0)
        best = iou.max()
        forced |= (iou == best) & (best > 0)
        return jnp.maximum(iou, largest), jnp.where(iou > largest, row, closest), forced

    # A largest overlap with no object at all is 0, too.
    start = jnp.zeros(num_anchors), jnp.zeros(num_anchors, jnp.int32), jnp.zeros(num_anchors, bool)
    if num_anchors and len(valid):
        count = jnp.where(valid, jnp.arange(1, len(valid) + 1, dtype=jnp.int32), 0).max()
        start = lax.fori_loop(jnp.int32(0), count, compare, start)
    largest, closest, forced = start
    matched = (largest >= foreground) & (largest > 0)
    if force_best:
        matched |= forced
    negative = (largest < background) & (largest >= background_low)
    return jnp.where(matched, closest, jnp.where(negative, BACKGROUND, IGNORED))


def sample_fixed(
    key: jax.Array, positive: jax.Array, negative: jax.Array, count: int, positive_fraction: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples a fixed number of positives and negatives without replacement: Ren et al. 2015, section 3.1.3.

    At most floor(count positive_fraction) positives are drawn, uniformly; negatives fill up the rest. Where there are
    too few of them the last samples are not valid.

    Args:
      key: of the draw.
      positive: bool [A].
      negative: bool [A], disjoint from `positive`.
      count: N, the number of samples.
      positive_fraction: of the samples at most (RPN: 0.5 of 256; Fast R-CNN: 0.25 of 128).

    Returns:
      (indices int32 [N], whether positive bool [N], valid bool [N]); positives come first. Indices are 0 where not
      valid. Works under `vmap` over all arguments but the numbers.
    """
    total = positive.shape[-1]
    most = min(int(count * positive_fraction), total)
    # Positive floats order as their bits do: random bits from the least normal number to infinity make 2^31 different
    # priorities, where `uniform` has 2^23 and ties among 200,000 anchors. `top_k` of integers would sort them all.
    bits = jax.random.bits(key, (total,), jnp.uint32) % jnp.uint32(0x7F000000) + jnp.uint32(0x00800000)
    priority = lax.bitcast_convert_type(bits, jnp.float32)
    drawn_positives = lax.top_k(jnp.where(positive, priority, -1.0), most)[1]
    drawn_negatives = lax.top_k(jnp.where(negative, priority, -1.0), min(count, total))[1]
    num_positives = jnp.minimum(positive.sum(dtype=jnp.int32), most)
    num_negatives = jnp.minimum(negative.sum(dtype=jnp.int32), count - num_positives)
    slots = jnp.arange(count, dtype=jnp.int32)
    is_positive, valid = slots < num_positives, slots < num_positives + num_negatives
    if not total:
        return jnp.zeros(count, jnp.int32), is_positive, valid
    # Padded so that a fraction of 0 has something to read.
    from_positives = jnp.pad(drawn_positives, (0, 1))[jnp.minimum(slots, most)]
    from_negatives = drawn_negatives[jnp.clip(slots - num_positives, 0, len(drawn_negatives) - 1)]
    indices = jnp.where(is_positive, from_positives, from_negatives)
    return jnp.where(valid, indices, 0).astype(jnp.int32), is_positive, valid
