"""Metrics of readings: how many characters, and how many words, are right.

Texts are padded: integers [B, N] of which lengths [B] count; padding may hold anything.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.metrics.mean import Mean


def edit_distance(a: jax.Array, a_lengths: jax.Array, b: jax.Array, b_lengths: jax.Array) -> jax.Array:
    """Levenshtein's distance, int32 [B]: the fewest insertions, deletions and substitutions from `a` to `b`.

    a: [B, N], b: [B, M]. A row of the table of Wagner and Fischer (1974) at a time; within a row the insertions,
    d[j] = min over k <= j of d'[k] + j - k, are a running minimum.
    """
    across = jnp.arange(b.shape[1] + 1)

    def step(row, column):  # from the distances of a[:i] to those of a[:i + 1]
        character, shown, i = column
        replaced = row[:, :-1] + (character[:, None] != b)
        new = jnp.minimum(row[:, 1:] + 1, replaced)
        new = jnp.concatenate([jnp.broadcast_to(i + 1, (len(b), 1)), new], axis=1)
        new = jax.lax.cummin(new - across, axis=1) + across
        return jnp.where(shown[:, None], new, row), None

    steps = jnp.arange(a.shape[1])
    start = jnp.broadcast_to(across, (len(b), len(across)))
    row, _ = jax.lax.scan(step, start, (a.T, steps[:, None] < a_lengths, steps))
    return jnp.take_along_axis(row, b_lengths[:, None], axis=1)[:, 0]


def character_error_rate(
    readings: jax.Array,
    reading_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    mask: jax.Array | None = None,
) -> Mean:
    """Edits a character of the labels: the sum of distances by the sum of lengths. More than 1 is possible."""
    edits = edit_distance(readings, reading_lengths, labels, label_lengths)
    shown = jnp.ones(edits.shape, bool) if mask is None else mask
    total, weight = (jnp.where(shown, x, 0).sum().astype(jnp.float32) for x in (edits, label_lengths))
    return Mean(total, weight)


def word_accuracy(
    readings: jax.Array,
    reading_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    mask: jax.Array | None = None,
) -> Mean:
    """The share of rows that are read without any mistake."""
    width = min(readings.shape[1], labels.shape[1])
    beyond = jnp.arange(width) >= label_lengths[:, None]
    same = ((readings[:, :width] == labels[:, :width]) | beyond).all(1)
    return Mean.of(same & (reading_lengths == label_lengths), mask)
