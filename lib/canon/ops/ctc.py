"""Reading labels off frames: best path and prefix beam search for connectionist temporal classification.

A label is [N] integers of which `length` count; the rest is -1. Frames hold log probabilities [B, T, C], of which
`lengths` [B] count, with the class `blank` for no character (Graves et al. 2006, section 3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_NEVER = -1e30  # log 0


class Readings(NamedTuple):
    """labels: int32 [..., N], -1 beyond lengths int32 [...]; log_probs float32 [...]."""

    labels: jax.Array
    lengths: jax.Array
    log_probs: jax.Array


def best_path(log_probs: jax.Array, lengths: jax.Array, blank: int = 0) -> Readings:
    """The label of the likeliest path, [B, T] with lengths [B]: Graves et al. 2006, section 3.2.1.

    Repetitions are merged, then blanks removed. `log_probs` of the reading is that of the path alone, a lower bound of
    the label's. Scores that are not normalised give the same labels.
    """
    frames = log_probs.shape[1]
    shown = jnp.arange(frames) < lengths[:, None]
    path = jnp.where(shown, log_probs.argmax(-1), blank).astype(jnp.int32)
    before = jnp.pad(path, ((0, 0), (1, 0)), constant_values=blank)[:, :-1]
    kept = (path != blank) & (path != before)
    place = jnp.where(kept, kept.cumsum(1) - 1, frames)  # beyond the end: dropped
    rows = jnp.arange(path.shape[0])[:, None]
    labels = jnp.full_like(path, -1).at[rows, place].set(path, mode='drop')
    total = jnp.where(shown, log_probs.max(-1), 0).sum(1)
    return Readings(labels, kept.sum(1, dtype=jnp.int32), total.astype(jnp.float32))


class _Beams(NamedTuple):
    """K prefixes with the log probabilities of the paths that end in a blank, or in the prefix's last character."""

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
    """The `width` likeliest labels, best first: [B, K, N], lengths [B, K], log probabilities [B, K].

    Prefix search with all prefixes in step (Graves et al. 2006, section 3.2.2; Hannun et al. 2014, "First-pass large
    vocabulary continuous speech recognition", algorithm 1, without a language model). A label's probability is that of
    all paths to it but those that left the beam on the way: exact where `width` holds every prefix.
    max_length: N, T without; longer labels are not read. Where there are fewer than K labels, the rest has log
    probability -inf and length 0. Raises UsageError for a width or a max_length below 1.
    """
    most = log_probs.shape[1] if max_length is None else max_length
    if width < 1 or most < 1:
        raise UsageError(f'width={width} and max_length={most} must be at least 1')
    log_probs = jnp.maximum(log_probs.astype(jnp.float32), _NEVER)
    return jax.vmap(lambda p, n: _search(p, n, width, blank, most))(log_probs, lengths)


def _search(log_probs: jax.Array, length: jax.Array, width: int, blank: int, most: int) -> Readings:
    never = jnp.full(width, _NEVER)
    start = _Beams(jnp.full((width, most), -1, jnp.int32), jnp.zeros(width, jnp.int32), never.at[0].set(0), never)

    def step(beams, frame):
        log_p, shown = frame
        return jax.tree.map(lambda new, old: jnp.where(shown, new, old), _advance(beams, log_p, blank), beams), None

    beams, _ = jax.lax.scan(step, start, (log_probs, jnp.arange(log_probs.shape[0]) < length))
    total, order = jax.lax.top_k(beams.total, width)
    real = total > _NEVER / 2
    labels = jnp.where(real[:, None], beams.labels[order], -1)
    return Readings(labels, jnp.where(real, beams.lengths[order], 0), jnp.where(real, total, -jnp.inf))


def _advance(beams: _Beams, log_p: jax.Array, blank: int) -> _Beams:
    """One frame: each prefix stays, or goes on by a character; what leads to the same prefix adds up."""
    width, most, classes = *beams.labels.shape, len(log_p)
    index = jnp.arange(width)
    last = jnp.where(beams.lengths > 0, beams.labels[index, jnp.maximum(beams.lengths - 1, 0)], blank)
    stays = beams.character + jnp.where(beams.lengths > 0, log_p[last], _NEVER)
    # Only a path that ended in a blank goes on by the character that the prefix ends with already.
    repeats = jnp.arange(classes) == last[:, None]
    goes = jnp.where(repeats, beams.blank[:, None], beams.total[:, None]) + log_p  # [K, C]
    goes = goes.at[:, blank].set(_NEVER)
    goes = jnp.where((beams.lengths < most)[:, None], goes, _NEVER)
    child = _children(beams, last)  # [K, K]: prefix j is prefix i with last[j] behind it
    stays = jnp.logaddexp(stays, jax.nn.logsumexp(jnp.where(child, goes[:, last], _NEVER), axis=0))
    merged = jnp.zeros((width, classes), bool).at[index[:, None], last[None, :]].max(child)
    goes = jnp.where(merged, _NEVER, goes)
    return _best(beams, beams.total + log_p[blank], stays, goes)


def _children(beams: _Beams, last: jax.Array) -> jax.Array:
    real = beams.total > _NEVER / 2
    places = jnp.arange(beams.labels.shape[1])
    parents = jnp.where(places == beams.lengths[:, None] - 1, -1, beams.labels)  # each without its last character
    same = (beams.labels[:, None, :] == parents[None, :, :]).all(-1)
    longer = beams.lengths[None, :] == beams.lengths[:, None] + 1
    return same & longer & real[:, None] & real[None, :]


def _best(beams: _Beams, blank: jax.Array, stays: jax.Array, goes: jax.Array) -> _Beams:
    """The K likeliest of K that stay and K * C that go on."""
    width, classes = goes.shape
    scores = jnp.concatenate([jnp.logaddexp(blank, stays), goes.ravel()])
    _, chosen = jax.lax.top_k(scores, width)
    went = chosen >= width
    parent = jnp.where(went, (chosen - width) // classes, chosen)
    character = (chosen - width) % classes
    lengths, labels = beams.lengths[parent], beams.labels[parent]
    here = went[:, None] & (jnp.arange(labels.shape[1]) == lengths[:, None])
    labels = jnp.where(here, character[:, None], labels).astype(jnp.int32)
    blank = jnp.where(went, _NEVER, blank[parent])
    return _Beams(labels, lengths + went, blank, jnp.where(went, scores[chosen], stays[parent]))
