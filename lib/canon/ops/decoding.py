"""From a model to sequences: the likeliest token by token (greedy), drawn by chance, or searched for with a beam.

A model is a function `step(state, tokens) -> (logits, state)`: tokens [R] are each row's last, logits [R, V] are of its
next. A state's leaves have rows first, [R, ..]; scalars, such as a position, are all rows' own. What does not change
(a memory of the source) stands outside of the state, in the function. Call these inside `jax.jit`: shapes are static,
and the loop ends as soon as every row has.

Tokens after the end of a row are `end`; a row without an end within `length` is cut there. With `limits` [B] each row
has a bound of its own, at least 1 and at most `length`: what a row becomes does not depend on the rest of its batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from canon.errors import UsageError

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]

_NEVER = -1e30  # log 0 that can be added to
_LEAST = -1e29  # below it a score is that of nothing


class Decoded(NamedTuple):
    """tokens [B, length]; lengths [B], the end token included; scores [B], the sum of the tokens' log p, in nats.

    Of a beam search [B, K, length], [B, K] and [B, K], the best first, scores divided by the length penalty.
    """

    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array


# --- one hypothesis a row -----------------------------------------------------------------------------------------


def greedy(
    step: Step,
    state: Any,
    first: jax.Array,
    length: int,
    end: int | None = None,
    limits: jax.Array | None = None,
) -> Decoded:
    """Takes the likeliest token each time, the lowest of equals.

    Args:
      step: the model.
      state: the model's, of B rows.
      first: [B], the token before each sequence.
      length: the most tokens of a sequence.
      end: the token that ends a row; if None all are `length` tokens long.
      limits: [B], the most tokens of each row; `length` if None.

    Raises UsageError for a length below 1 and limits that are not [B] integers.
    """
    return _walk(step, state, first, length, end, limits, lambda logits, i: logits.argmax(-1))


def sample(
    step: Step,
    state: Any,
    first: jax.Array,
    length: int,
    key: jax.Array,
    end: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Decoded:
    """Tokens drawn from softmax(logits / temperature), of the likeliest as `likeliest` chooses; scores are unchanged.

    Step i draws with fold_in(key, i). Raises UsageError for what `likeliest` refuses.
    """

    def choose(logits: jax.Array, i: jax.Array) -> jax.Array:
        kept, tokens = likeliest(logits, temperature, top_k, top_p)
        drawn = jax.random.categorical(jax.random.fold_in(key, i), kept)
        return jnp.take_along_axis(tokens, drawn[..., None], -1)[..., 0]

    return _walk(step, state, first, length, end, None, choose)


def likeliest(
    logits: jax.Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """(logits / temperature, -inf where left out; the tokens they are of), [R, V], or [R, top_k] with the best first.

    top_k: that many of the largest, the lowest token of equals. top_p: of what top_k leaves, the fewest whose
    probability is at least p together, and always the first (Holtzman et al. 2020, section 3.1).
    Raises UsageError for a temperature that is not positive (0 is `greedy`), top_k below 1 and top_p not in (0, 1].
    """
    if not temperature > 0:
        raise UsageError(f'temperature={temperature} must be positive; greedy decoding is its limit at 0')
    if top_k is not None and top_k < 1:
        raise UsageError(f'top_k={top_k} leaves no token')
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f'top_p={top_p} is no share in (0, 1]')
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    if top_k is None and top_p is None:
        return logits, jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape)
    width = logits.shape[-1]
    kept, tokens = lax.top_k(logits, width if top_k is None else min(top_k, width))
    if top_p is not None:
        p = jax.nn.softmax(kept)
        before = jnp.cumsum(p, -1) - p
        kept = jnp.where((before < top_p) | (jnp.arange(kept.shape[-1]) == 0), kept, -jnp.inf)
    return kept, tokens


def _walk(
    step: Step, state: Any, first: jax.Array, length: int, end: int | None, limits: jax.Array | None, choose: Callable
) -> Decoded:
    _check(first, length, limits)
    filler = 0 if end is None else end
    rows = len(first)
    tokens = jnp.full((rows, length), filler, jnp.int32)
    done, lengths = jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32)

    def more(carry):
        i, _, _, _, done, _, _ = carry
        return (i < length) & ~done.all()

    def go_on(carry):
        i, state, last, tokens, done, lengths, scores = carry
        logits, state = step(state, last)
        chosen = choose(logits, i).astype(jnp.int32)
        scores = scores + jnp.where(done, 0, _log_p(logits, chosen[:, None])[:, 0])
        chosen = jnp.where(done, filler, chosen)
        tokens = lax.dynamic_update_index_in_dim(tokens, chosen, i, 1)
        lengths = lengths + ~done
        done = done if end is None else done | (chosen == end)
        done = done if limits is None else done | (i + 1 >= limits)
        return i + 1, state, chosen, tokens, done, lengths, scores

    scores = jnp.zeros(rows, _kind(step, state, first))
    carry = (jnp.zeros((), jnp.int32), state, first.astype(jnp.int32), tokens, done, lengths, scores)
    _, _, _, tokens, _, lengths, scores = lax.while_loop(more, go_on, carry)
    return Decoded(tokens, lengths, scores)


# --- beams --------------------------------------------------------------------------------------------------------


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """((5 + |y|) / 6)^alpha: Wu et al. 2016, eq. 14. |y| counts the end token. (fairseq divides by |y|^alpha.)"""
    return ((5 + jnp.asarray(length)) / 6) ** alpha


class _Beam(NamedTuple):
    """Hypotheses that go on, and the best that have ended; `scores` of what is not there are _NEVER."""

    i: jax.Array
    state: Any  # [B K, ..]
    last: jax.Array  # [B K]
    tokens: jax.Array  # [B, K, length]
    scores: jax.Array  # [B, K], sums of log p
    lengths: jax.Array  # [B], tokens of the hypotheses that go on; of a row that is done, when it was
    ended: Decoded  # [B, K, ..], scores with the penalty
    done: jax.Array  # [B]


def beam_search(
    step: Step,
    state: Any,
    first: jax.Array,
    length: int,
    end: int,
    beams: int = 4,
    alpha: float = 0.6,
    limits: jax.Array | None = None,
) -> Decoded:
    """The K hypotheses of highest log p / `length_penalty` that a beam of K finds: Sutskever et al. 2014, section 3.2.

    At each step the K likeliest of all continuations are looked at: those that end are kept as ended, and the K
    likeliest that do not end go on. A row is done with K ended ones, as fairseq's search is, or at its limit; the ended
    come first, and those cut at the limit fill the places that are left, by the same score. A place that nothing fills
    has length 0 and score -1e30. A beam of 1 is `greedy`; one of all sequences finds the best of all.
    limits: [B], the most tokens of each row's hypotheses; `length` if None.
    `step` is called with B K rows, the K of a row together. Raises UsageError for beams or length below 1 and an alpha
    below 0.
    """
    _check(first, length, limits)
    if beams < 1:
        raise UsageError(f'beams={beams} must be at least 1')
    if not alpha >= 0:
        raise UsageError(f'alpha={alpha} must not be negative')
    rows, kind = len(first), _kind(step, state, first)
    none = Decoded(
        jnp.full((rows, beams, length), end, jnp.int32),
        jnp.zeros((rows, beams), jnp.int32),
        jnp.full((rows, beams), _NEVER, kind),
    )
    start = _Beam(
        jnp.zeros((), jnp.int32),
        _each_row(lambda x: jnp.repeat(x, beams, 0), state),
        jnp.repeat(first.astype(jnp.int32), beams),
        none.tokens,
        none.scores.at[:, 0].set(0),
        jnp.zeros(rows, jnp.int32),
        none,
        jnp.zeros(rows, bool),
    )
    beam = lax.while_loop(
        lambda beam: (beam.i < length) & ~beam.done.all(), lambda beam: _advance(step, beam, end, alpha, limits), start
    )
    return _finish(beam, end, alpha)


def _advance(step: Step, beam: _Beam, end: int, alpha: float, limits: jax.Array | None) -> _Beam:
    rows, beams = beam.scores.shape
    logits, state = step(beam.state, beam.last)
    scores, parents, tokens = _continuations(logits, beam.scores)
    ends, real = tokens == end, scores > _LEAST

    # Of the K likeliest, those that end.
    top = ends & real & (jnp.arange(scores.shape[1]) < beams)
    penalised = jnp.where(top, scores / length_penalty(beam.i + 1, alpha), _NEVER).astype(scores.dtype)
    best, which = lax.top_k(penalised, beams)
    ending = Decoded(  # what follows the parent's tokens is `end` already
        _pick(beam.tokens, _pick(parents, which)), jnp.where(best > _LEAST, beam.i + 1, 0), best
    )
    ended = _best(beam.ended, ending, beams)
    ended = Decoded(*(jnp.where(_over(beam.done, a), a, b) for a, b in zip(beam.ended, ended, strict=True)))

    # The K likeliest that do not end.
    live, which = lax.top_k(jnp.maximum(jnp.where(ends, _NEVER, scores), _NEVER), beams)
    parents, tokens = _pick(parents, which), _pick(tokens, which)
    history = lax.dynamic_update_index_in_dim(_pick(beam.tokens, parents), tokens, beam.i, 2)
    places = (jnp.arange(rows)[:, None] * beams + parents).reshape(-1)
    state = _each_row(lambda x: jnp.take(x, places, 0), state)

    # A row that is done keeps what it had, whatever the others still need.
    history = jnp.where(_over(beam.done, history), beam.tokens, history)
    live = jnp.where(_over(beam.done, live), beam.scores, live)
    lengths = jnp.where(beam.done, beam.lengths, beam.i + 1)
    full = (ended.scores > _LEAST).all(1)
    none = (live < _LEAST).all(1)
    done = beam.done | full | none
    done = done if limits is None else done | (lengths >= limits)
    return _Beam(beam.i + 1, state, tokens.reshape(-1), history, live, lengths, ended, done)


def _continuations(logits: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(scores, parents, tokens), the best first: of all continuations at least the K best, and the K best without end.

    No hypothesis gives more than K + 1 of these, nor do all together more than 2 K.
    """
    rows, beams = scores.shape
    width = min(beams + 1, logits.shape[-1])
    logits = logits.astype(scores.dtype)
    best, tokens = lax.top_k(logits, width)
    best = best - jax.nn.logsumexp(logits, -1, keepdims=True)
    total = (scores[..., None] + best.reshape(rows, beams, width)).reshape(rows, -1)
    total, places = lax.top_k(total, min(2 * beams, total.shape[1]))
    return total, places // width, _pick(tokens.reshape(rows, -1), places)


def _finish(beam: _Beam, end: int, alpha: float) -> Decoded:
    """Those that ended, then those that were cut: of both the best first."""
    beams, cut, lengths = beam.scores.shape[1], beam.scores > _LEAST, beam.lengths[:, None]
    scores = jnp.where(cut, beam.scores / length_penalty(lengths, alpha), _NEVER).astype(beam.scores.dtype)
    scores, order = lax.top_k(scores, beams)
    there = scores > _LEAST
    tokens = jnp.where(there[..., None], _pick(beam.tokens, order), end)
    left = Decoded(tokens, jnp.where(there, lengths, 0), scores)
    place = jnp.arange(beams) - (beam.ended.scores > _LEAST).sum(1, keepdims=True)  # among those that are left
    left = Decoded(*(_pick(x, jnp.maximum(place, 0)) for x in left))
    return Decoded(*(jnp.where(_over(place >= 0, a), b, a) for a, b in zip(beam.ended, left, strict=True)))


def _best(a: Decoded, b: Decoded, count: int) -> Decoded:
    both = Decoded(*(jnp.concatenate(pair, 1) for pair in zip(a, b, strict=True)))
    _, which = lax.top_k(both.scores, count)
    return Decoded(*(_pick(x, which) for x in both))


# --- small things -------------------------------------------------------------------------------------------------


def _pick(x: jax.Array, which: jax.Array) -> jax.Array:
    """x [B, N, ..] at which [B, K]: [B, K, ..]."""
    return jnp.take_along_axis(x, _over(which, x), 1)


def _over(x: jax.Array, like: jax.Array) -> jax.Array:
    """x with as many axes as `like`, so that it broadcasts over the last ones."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _each_row(f: Callable[[jax.Array], jax.Array], state: Any) -> Any:
    return jax.tree.map(lambda x: f(x) if jnp.ndim(x) else x, state)


def _log_p(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.take_along_axis(logits, tokens, -1) - jax.nn.logsumexp(logits, -1, keepdims=True)


def _kind(step: Step, state: Any, first: jax.Array):
    """The type of scores: that of the logits, float32 at least."""
    logits, _ = jax.eval_shape(step, state, first.astype(jnp.int32))
    return jnp.promote_types(logits.dtype, jnp.float32)


def _check(first: jax.Array, length: int, limits: jax.Array | None = None) -> None:
    if first.ndim != 1:
        raise UsageError(f'first is one token per row, [B], not {first.shape}')
    if limits is not None and (limits.shape != first.shape or not jnp.issubdtype(limits.dtype, jnp.integer)):
        raise UsageError(f'limits {limits.dtype}{list(limits.shape)} should be integers, one for each of {len(first)}')
    if length < 1:
        raise UsageError(f'length={length} must be at least 1')
