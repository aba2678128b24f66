"""Decoders of connectionist temporal classification: best path, prefix beam search, and scores of given labels.

Frames are log probabilities [B, T, C] with their `lengths` [B]; the class `blank` is not a character. A path has one
class per frame; its label is the path without repetitions and then without blanks (Graves et al. 2006, section 3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.ops.chunks import map_in_chunks

_LOG_ZERO = -1e30
_LEAST = -1e29  # log probabilities below it are of impossible labels
_STATE_SIZE = 1 << 18  # characters of all labels that are scored at once


class Readings(NamedTuple):
    """Decoded labels: int32 [..., N], -1 beyond `lengths` int32 [...], and their log probabilities float32 [...]."""

    labels: jax.Array
    lengths: jax.Array
    log_probs: jax.Array


def best_path(log_probs: jax.Array, lengths: jax.Array, blank: int = 0) -> Readings:
    """Decodes the label of the most probable path: labels [B, T], lengths [B] (Graves et al. 2006, section 3.2.1).

    The log probability is that of the path alone, a lower bound of the label's. Logits give the same labels.

    Args:
      log_probs: [B, T, C].
      lengths: frames of each row, [B].
      blank: the class of no character.
    """
    frames = log_probs.shape[1]
    valid = jnp.arange(frames) < lengths[:, None]
    path = jnp.where(valid, log_probs.argmax(-1), blank).astype(jnp.int32)
    previous = jnp.pad(path, ((0, 0), (1, 0)), constant_values=blank)[:, :-1]
    keep = (path != blank) & (path != previous)
    place = jnp.where(keep, keep.cumsum(1) - 1, frames)  # places beyond the end are dropped by the scatter
    rows = jnp.arange(path.shape[0])[:, None]
    labels = jnp.full_like(path, -1).at[rows, place].set(path, mode='drop')
    total = jnp.where(valid, log_probs.max(-1), 0).sum(1)
    return Readings(labels, keep.sum(1, dtype=jnp.int32), total.astype(jnp.float32))


class _Beams(NamedTuple):
    """K prefixes with the log probabilities of their paths that end in a blank, and in the prefix's last character."""

    labels: jax.Array  # [K, N]
    lengths: jax.Array  # [K]
    blank: jax.Array  # [K]
    character: jax.Array  # [K]
    context: jax.Array  # [K], of the language model: the last characters as a number
    bonus: jax.Array  # [K], what the language model adds to the prefix's log probability

    @property
    def total(self) -> jax.Array:
        return jnp.logaddexp(self.blank, self.character)


def prefix_beam_search(
    log_probs: jax.Array,
    lengths: jax.Array,
    width: int = 10,
    blank: int = 0,
    max_length: int | None = None,
    language_model: jax.Array | None = None,
    weight: float = 1.0,
    insertion_bonus: float = 0.0,
) -> Readings:
    """Decodes the `width` most probable labels, best first: labels [B, K, N], lengths [B, K], log probabilities [B, K].

    Prefix search, frame by frame (Graves et al. 2006, section 3.2.2; Hannun et al. 2014, "First-pass large vocabulary
    continuous speech recognition", algorithm 1, with a model of characters in place of words). The probability of a
    label is that of all paths to it except those whose prefix left the beam, and exact if the beam holds every prefix.
    With a language model labels are ordered by

        log p(label | frames) + weight log p_LM(label) + insertion_bonus |label|,

    where p_LM includes the end of the label; the same sum without the end orders the prefixes of a frame.

    Args:
      log_probs: [B, T, C].
      lengths: frames of each row, [B].
      width: K, prefixes in the beam.
      blank: the class of no character.
      max_length: N, characters of the longest label; T if None.
      language_model: log p(character | the n - 1 before it), [C^(n-1), C], as `canon.data.text.character_models` fits
        it; `blank` stands for the start and the end.
      weight: of the language model.
      insertion_bonus: per character, since every factor p_LM makes longer labels less probable.

    Returns:
      K labels per row; if there are fewer, the rest has log probability -inf and length 0. With a language model the
      log probabilities are the sums above.

    Raises:
      UsageError: width or max_length is below 1, or the language model is not one of the C classes.
    """
    max_length = log_probs.shape[1] if max_length is None else max_length
    if width < 1 or max_length < 1:
        raise UsageError(f'width={width} and max_length={max_length} must be at least 1')
    classes = log_probs.shape[-1]
    if language_model is not None and not _is_character_model(language_model.shape, classes):
        raise UsageError(
            f'a language model of {classes} classes is [{classes}^(n-1), {classes}], not {language_model.shape}'
        )
    log_probs = jnp.maximum(log_probs.astype(jnp.float32), _LOG_ZERO)
    language = None if language_model is None else _Language(language_model, weight, insertion_bonus)
    return jax.vmap(lambda p, n: _search(p, n, width, blank, max_length, language))(log_probs, lengths)


class _Language(NamedTuple):
    table: jax.Array  # [C^(n-1), C]
    weight: jax.Array | float
    insertion_bonus: jax.Array | float


def _is_character_model(shape: tuple[int, ...], classes: int) -> bool:
    rows = 1
    while len(shape) == 2 and rows < shape[0]:
        rows *= classes
    return shape == (rows, classes)


def _search(
    log_probs: jax.Array, length: jax.Array, width: int, blank: int, max_length: int, language: _Language | None
) -> Readings:
    zeros = jnp.full(width, _LOG_ZERO)
    labels, lengths = jnp.full((width, max_length), -1, jnp.int32), jnp.zeros(width, jnp.int32)
    context = jnp.zeros(width, jnp.int32)
    if language is not None:  # n - 1 times the blank, in base C
        rows, classes = language.table.shape
        context += blank * (rows - 1) // (classes - 1)
    start = _Beams(labels, lengths, zeros.at[0].set(0), zeros, context, jnp.zeros(width))

    def step(beams, frame):
        log_p, valid = frame
        advanced = _advance(beams, log_p, blank, language)
        return jax.tree.map(lambda new, old: jnp.where(valid, new, old), advanced, beams), None

    beams, _ = jax.lax.scan(step, start, (log_probs, jnp.arange(log_probs.shape[0]) < length))
    total = beams.total
    if language is not None:
        ends = language.weight * language.table[beams.context, blank]
        total = jnp.where(total > _LOG_ZERO / 2, total + beams.bonus + ends, total)
    total, order = jax.lax.top_k(total, width)
    real = total > _LOG_ZERO / 2
    labels = jnp.where(real[:, None], beams.labels[order], -1)
    return Readings(labels, jnp.where(real, beams.lengths[order], 0), jnp.where(real, total, -jnp.inf))


def _advance(beams: _Beams, log_p: jax.Array, blank: int, language: _Language | None) -> _Beams:
    """Advances by one frame: a prefix stays or is extended by a character; paths to the same prefix add up."""
    width, max_length, classes = *beams.labels.shape, len(log_p)
    index = jnp.arange(width)
    last = jnp.where(beams.lengths > 0, beams.labels[index, jnp.maximum(beams.lengths - 1, 0)], blank)
    stays = beams.character + jnp.where(beams.lengths > 0, log_p[last], _LOG_ZERO)
    # Only paths that end in a blank may repeat the last character: without the blank the two would merge.
    repeats = jnp.arange(classes) == last[:, None]
    extended = jnp.where(repeats, beams.blank[:, None], beams.total[:, None]) + log_p  # [K, C]
    extended = extended.at[:, blank].set(_LOG_ZERO)
    extended = jnp.where((beams.lengths < max_length)[:, None], extended, _LOG_ZERO)
    child = _find_children(beams, last)  # [K, K]: prefix j is prefix i extended by last[j]
    stays = jnp.logaddexp(stays, jax.nn.logsumexp(jnp.where(child, extended[:, last], _LOG_ZERO), axis=0))
    merged = jnp.zeros((width, classes), bool).at[index[:, None], last[None, :]].max(child)
    extended = jnp.where(merged, _LOG_ZERO, extended)
    return _select_best(beams, beams.total + log_p[blank], stays, extended, language)


def _find_children(beams: _Beams, last: jax.Array) -> jax.Array:
    """Returns [K, K], whether prefix j is prefix i with one more character."""
    real = beams.total > _LOG_ZERO / 2
    places = jnp.arange(beams.labels.shape[1])
    parents = jnp.where(places == beams.lengths[:, None] - 1, -1, beams.labels)  # each without its last character
    same = (beams.labels[:, None, :] == parents[None, :, :]).all(-1)
    longer = beams.lengths[None, :] == beams.lengths[:, None] + 1
    return same & longer & real[:, None] & real[None, :]


def _select_best(
    beams: _Beams, blank: jax.Array, stays: jax.Array, extended: jax.Array, language: _Language | None
) -> _Beams:
    """Selects the K most probable of K prefixes that stay and K C that are extended."""
    width, classes = extended.shape
    mass = jnp.concatenate([jnp.logaddexp(blank, stays), extended.ravel()])
    if language is None:
        scores = bonus = mass
    else:
        # A prefix has one bonus however many paths lead to it, so masses add up without it.
        added = language.weight * language.table[beams.context] + language.insertion_bonus
        bonus = jnp.concatenate([beams.bonus, (beams.bonus[:, None] + added).ravel()])
        scores = jnp.where(mass > _LOG_ZERO / 2, mass + bonus, mass)  # no bonus makes a prefix of no paths real
    _, chosen = jax.lax.top_k(scores, width)
    is_extended = chosen >= width
    parent = jnp.where(is_extended, (chosen - width) // classes, chosen)
    character = (chosen - width) % classes
    lengths, labels = beams.lengths[parent], beams.labels[parent]
    new_place = is_extended[:, None] & (jnp.arange(labels.shape[1]) == lengths[:, None])
    labels = jnp.where(new_place, character[:, None], labels).astype(jnp.int32)
    blank = jnp.where(is_extended, _LOG_ZERO, blank[parent])
    character_mass = jnp.where(is_extended, mass[chosen], stays[parent])
    context = beams.context
    if language is not None:
        longer = (context[parent] * classes + character) % len(language.table)  # the oldest character is dropped
        context = jnp.where(is_extended, longer, context[parent]).astype(jnp.int32)
    bonus = beams.bonus if language is None else bonus[chosen]
    return _Beams(labels, lengths + is_extended, blank, character_mass, context, bonus)


def score_labels(
    log_probs: jax.Array, lengths: jax.Array, labels: jax.Array, label_lengths: jax.Array, blank: int = 0
) -> jax.Array:
    """Computes log p(label | frames) of many labels per row, exactly: the words of a lexicon, float32 [B, N].

    The forward recursion of Graves et al. 2006 (eq. 5 to 8), as the loss has it; blanks and characters are kept apart,
    so that only probabilities of characters are gathered. A label that needs more frames than there are has -inf.

    Args:
      log_probs: [B, T, C].
      lengths: frames of each row, [B].
      labels: integers [N, L], the same for all rows, or [B, N, L]; the padding may hold anything.
      label_lengths: [N] or [B, N].
      blank: the class of no character.
    """
    shared = labels.ndim == 2
    count, longest = labels.shape[-2:]
    log_probs = jnp.maximum(log_probs.astype(jnp.float32), _LOG_ZERO)

    def score_row(row):
        frames, length, words, sizes = row
        words = jnp.where(jnp.arange(longest) < sizes[:, None], words, blank)
        # A character may follow another one directly unless they are equal.
        differs = jnp.pad(words[:, 1:] != words[:, :-1], ((0, 0), (1, 0)))
        skip = jnp.where(differs, 0, _LOG_ZERO)

        def step(carry, frame):
            blanks, characters = carry  # after 0 to L characters, [N, L + 1], and on character 1 to L, [N, L]
            log_p, valid = frame
            before = jnp.pad(characters, ((0, 0), (1, 0)), constant_values=_LOG_ZERO)
            stay = jnp.logaddexp(characters, blanks[:, :-1])
            new = jnp.logaddexp(stay, before[:, :-1] + skip) + log_p[words]
            waiting = jnp.logaddexp(blanks, before) + log_p[blank]
            return (jnp.where(valid, waiting, blanks), jnp.where(valid, new, characters)), None

        start = jnp.full((count, longest + 1), _LOG_ZERO).at[:, 0].set(0), jnp.full((count, longest), _LOG_ZERO)
        steps = jnp.arange(frames.shape[0]) < length
        (blanks, characters), _ = jax.lax.scan(step, start, (frames, steps))
        characters = jnp.pad(characters, ((0, 0), (1, 0)), constant_values=_LOG_ZERO)
        end = jnp.take_along_axis(jnp.logaddexp(blanks, characters), sizes[:, None], axis=1)[:, 0]
        return jnp.where(end > _LEAST, end, -jnp.inf)

    if shared:
        labels = jnp.broadcast_to(labels, (len(log_probs), count, longest))
        label_lengths = jnp.broadcast_to(label_lengths, (len(log_probs), count))
    # Rows together as long as their states are small; a lexicon of 90,000 words takes one row at a time.
    size = max(1, _STATE_SIZE // max(count * longest, 1))
    return map_in_chunks(jax.vmap(score_row), (log_probs, lengths, labels, label_lengths), size)
