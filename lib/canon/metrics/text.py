"""Metrics of text recognition: edit distance, character error rate and word accuracy.

Texts are padded: integers [B, N] with lengths [B]. The padding may hold anything.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.metrics.mean import Mean


def edit_distance(a: jax.Array, a_lengths: jax.Array, b: jax.Array, b_lengths: jax.Array) -> jax.Array:
    """Computes the Levenshtein distance, int32 [B]: the fewest insertions, deletions and substitutions from a to b.

    The table of Wagner & Fischer (1974), one row at a time: d[i, j] is the distance from a[:i] to b[:j]. The insertions
    within a row are a running minimum, d[j] = min over k <= j of d'[k] + j - k, so that only the rows are sequential.

    Args:
      a: [B, N].
      a_lengths: [B].
      b: [B, M].
      b_lengths: [B].
    """
    columns = jnp.arange(b.shape[1] + 1)

    def step(row, now):
        character, valid, i = now
        substituted = row[:, :-1] + (character[:, None] != b)
        new = jnp.minimum(row[:, 1:] + 1, substituted)
        new = jnp.concatenate([jnp.broadcast_to(i + 1, (len(b), 1)), new], axis=1)
        new = jax.lax.cummin(new - columns, axis=1) + columns  # insertions, without a loop over columns
        return jnp.where(valid[:, None], new, row), None  # rows beyond a's length keep the last distances

    steps = jnp.arange(a.shape[1])
    start = jnp.broadcast_to(columns, (len(b), len(columns)))
    row, _ = jax.lax.scan(step, start, (a.T, steps[:, None] < a_lengths, steps))
    return jnp.take_along_axis(row, b_lengths[:, None], axis=1)[:, 0]


def character_error_rate(
    readings: jax.Array,
    reading_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    mask: jax.Array | None = None,
) -> Mean:
    """Computes edits per character of the labels: the sum of distances over the sum of lengths, which may exceed 1.

    Args:
      readings: decoded texts [B, N].
      reading_lengths: [B].
      labels: true texts [B, M].
      label_lengths: [B].
      mask: rows that count, [B]; all if None.
    """
    edits = edit_distance(readings, reading_lengths, labels, label_lengths)
    valid = jnp.ones(edits.shape, bool) if mask is None else mask
    total, weight = (jnp.where(valid, x, 0).sum().astype(jnp.float32) for x in (edits, label_lengths))
    return Mean(total, weight)


def word_accuracy(
    readings: jax.Array,
    reading_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    mask: jax.Array | None = None,
) -> Mean:
    """Computes the share of texts that are read without an error. Arguments as in `character_error_rate`."""
    width = min(readings.shape[1], labels.shape[1])
    # Texts of other lengths are unequal anyway, so comparing the columns that both have suffices.
    padding = jnp.arange(width) >= label_lengths[:, None]
    equal = ((readings[:, :width] == labels[:, :width]) | padding).all(1)
    return Mean.of(equal & (reading_lengths == label_lengths), mask)
