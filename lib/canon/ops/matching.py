"""Assigns objects to priors, and selects the negatives that a detector learns from: SSD, section 2.2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

BACKGROUND = -1


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
