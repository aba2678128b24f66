"""Decoders of connectionist temporal classification: the best path and prefix beam search.

Frames are log probabilities [B, T, C] with their `lengths` [B]; the class `blank` is not a character. A path has one
class per frame; its label is the path without repetitions and then without blanks (Graves et al. 2006, section 3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_LOG_ZERO = -1e30


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

    @property
    def total(self) -> jax.Array:
        return jnp.logaddexp(self.blank, self.character)


def prefix_beam_search(
    log_probs: jax.Array, lengths: jax.Array, width: int = 10, blank: int = 0, max_length: int | None = None
) -> Readings:
    """Decodes the `width` most probable labels, best first: labels [B, K, N], lengths [B, K], log probabilities [B, K].

    Prefix search, frame by frame (Graves et al. 2006, section 3.2.2; Hannun et al. 2014, "First-pass large vocabulary
    continuous speech recognition", algorithm 1, without a language model). The probability of a label is that of all
    paths to it except those whose prefix left the beam, and exact if the beam holds every prefix.

    Args:
      log_probs: [B, T, C].
      lengths: frames of each row, [B].
      width: K, prefixes in the beam.
      blank: the class of no character.
      max_length: N, characters of the longest label; T if None.

    Returns:
      K labels per row; if there are fewer, the rest has log probability -inf and length 0.

    Raises:
      UsageError: width or max_length is below 1.
    """
    max_length = log_probs.shape[1] if max_length is None else max_length
    if width < 1 or max_length < 1:
        raise UsageError(f'width={width} and max_length={max_length} must be at least 1')
    log_probs = jnp.maximum(log_probs.astype(jnp.float32), _LOG_ZERO)
    return jax.vmap(lambda p, n: _search(p, n, width, blank, max_length))(log_probs, lengths)


def _search(log_probs: jax.Array, length: jax.Array, width: int, blank: int, max_length: int) -> Readings:
    zeros = jnp.full(width, _LOG_ZERO)
    start = _Beams(jnp.full((width, max_length), -1, jnp.int32), jnp.zeros(width, jnp.int32), zeros.at[0].set(0), zeros)

    def step(beams, frame):
        log_p, valid = frame
        return jax.tree.map(lambda new, old: jnp.where(valid, new, old), _advance(beams, log_p, blank), beams), None

    beams, _ = jax.lax.scan(step, start, (log_probs, jnp.arange(log_probs.shape[0]) < length))
    total, order = jax.lax.top_k(beams.total, width)
    real = total > _LOG_ZERO / 2
    labels = jnp.where(real[:, None], beams.labels[order], -1)
    return Readings(labels, jnp.where(real, beams.lengths[order], 0), jnp.where(real, total, -jnp.inf))


def _advance(beams: _Beams, log_p: jax.Array, blank: int) -> _Beams:
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
    return _select_best(beams, beams.total + log_p[blank], stays, extended)


def _find_children(beams: _Beams, last: jax.Array) -> jax.Array:
    """Returns [K, K], whether prefix j is prefix i with one more character."""
    real = beams.total > _LOG_ZERO / 2
    places = jnp.arange(beams.labels.shape[1])
    parents = jnp.where(places == beams.lengths[:, None] - 1, -1, beams.labels)  # each without its last character
    same = (beams.labels[:, None, :] == parents[None, :, :]).all(-1)
    longer = beams.lengths[None, :] == beams.lengths[:, None] + 1
    return same & longer & real[:, None] & real[None, :]


def _select_best(beams: _Beams, blank: jax.Array, stays: jax.Array, extended: jax.Array) -> _Beams:
    """Selects the K most probable of K prefixes that stay and K C that are extended."""
    width, classes = extended.shape
    scores = jnp.concatenate([jnp.logaddexp(blank, stays), extended.ravel()])
    _, chosen = jax.lax.top_k(scores, width)
    is_extended = chosen >= width
    parent = jnp.where(is_extended, (chosen - width) // classes, chosen)
    character = (chosen - width) % classes
    lengths, labels = beams.lengths[parent], beams.labels[parent]
    new_place = is_extended[:, None] & (jnp.arange(labels.shape[1]) == lengths[:, None])
    labels = jnp.where(new_place, character[:, None], labels).astype(jnp.int32)
    blank = jnp.where(is_extended, _LOG_ZERO, blank[parent])
    return _Beams(labels, lengths + is_extended, blank, jnp.where(is_extended, scores[chosen], stays[parent]))
