"""Metrics of text recognition: edit distance, character and word error rates, and word accuracy.

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


def word_error_rate(
    readings: jax.Array,
    reading_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    space: int,
    mask: jax.Array | None = None,
) -> Mean:
    """Computes edits of words per word of the labels, where words are what spaces separate; it may exceed 1.

    Args:
      readings: decoded texts [B, N].
      reading_lengths: [B].
      labels: true texts [B, M].
      label_lengths: [B].
      space: the class of the space; several in a row separate like one.
      mask: rows that count, [B]; all if None.
    """
    width = max(readings.shape[1], labels.shape[1])
    words, counts = _split_words(readings, reading_lengths, space, width)
    true_words, true_counts = _split_words(labels, label_lengths, space, width)
    # A word becomes the number of the first word of the label that equals it, so that the distance compares numbers.
    numbers, true_numbers = (_find_first(x, true_words) for x in (words, true_words))
    edits = edit_distance(numbers, counts, true_numbers, true_counts)
    valid = jnp.ones(edits.shape, bool) if mask is None else mask
    total, weight = (jnp.where(valid, x, 0).sum().astype(jnp.float32) for x in (edits, true_counts))
    return Mean(total, weight)


def _split_words(texts: jax.Array, lengths: jax.Array, space: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Splits texts [B, N] at spaces: words [B, (N + 1) // 2, width], zero where they end, and their numbers [B]."""
    places = jnp.arange(texts.shape[1])
    inside = (texts != space) & (places < lengths[:, None])
    begins = inside & ~jnp.pad(inside, ((0, 0), (1, 0)))[:, :-1]
    word = jnp.cumsum(begins, axis=1) - 1
    offset = places - jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    rows, most = jnp.arange(len(texts))[:, None], (texts.shape[1] + 1) // 2
    # What is not in a word is scattered beyond the last one, hence dropped.
    empty = jnp.zeros((len(texts), most, width), texts.dtype)
    words = empty.at[rows, jnp.where(inside, word, most), offset].set(texts, mode='drop')
    return words, begins.sum(1)


def _find_first(words: jax.Array, among: jax.Array) -> jax.Array:
    """Returns the number of the first word of `among` [B, V, L] that equals each of `words` [B, W, L], -1 if none."""
    equal = (words[:, :, None] == among[:, None]).all(-1)
    return jnp.where(equal.any(-1), equal.argmax(-1), -1)


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
