"""Decoding of sequences from a model: greedy, by sampling, or by beam search.

A model is a function `step(state, tokens) -> (logits, state)`, where tokens [R] are the last of each row and logits
[R, V] those of the next one. The leaves of a state have rows first, [R, ...]; a scalar leaf, such as a position, is
shared by all rows. What does not change from step to step (the encoded source) belongs to the function, not to the
state. Call these functions inside `jax.jit`: shapes are static, and the loop stops as soon as every row has ended.

Tokens after the end of a row are `end`; a row without an end within `length` tokens is truncated. With `limits` [B]
each row has its own bound, at least 1 and at most `length`, so that its result does not depend on the other rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from canon.errors import UsageError

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]

_NEVER = -1e30  # stands for log 0: finite, so that sums and differences of it are not NaN
_LEAST = -1e29  # a score below it belongs to no hypothesis


class Decoded(NamedTuple):
    """Decoded sequences; those of a beam search have one more axis, K hypotheses per row, the best first."""

    tokens: jax.Array  # [B, length], or [B, K, length]
    lengths: jax.Array  # [B], or [B, K], the end token included
    scores: jax.Array  # [B], the sum of log p in nats, or [B, K], that sum divided by the length penalty


# --- one hypothesis per row ---------------------------------------------------------------------------------------


def greedy(
    step: Step,
    state: Any,
    first: jax.Array,
    length: int,
    end: int | None = None,
    limits: jax.Array | None = None,
) -> Decoded:
    """Takes the most likely token at each step, the lowest id if several are equally likely.

    Args:
      step: the model.
      state: its state, of B rows.
      first: [B], the token before each sequence.
      length: the maximum number of tokens.
      end: the token that ends a row; if None, all rows have `length` tokens.
      limits: integers [B], the maximum number of tokens of each row; `length` if None.

    Raises:
      UsageError: length is below 1, or limits are not integers [B].
    """
    return _decode(step, state, first, length, end, limits, lambda logits, i: logits.argmax(-1))


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
    """Samples each token from softmax(logits / temperature), restricted by `top_k` and `top_p`.

    Scores are log p under the model itself, before temperature and restriction.

    Args:
      step: the model.
      state: its state, of B rows.
      first: [B], the token before each sequence.
      length: the maximum number of tokens.
      key: step i samples with fold_in(key, i).
      end: the token that ends a row; if None, all rows have `length` tokens.
      temperature: positive; see `restrict_logits`, as for the next two.
      top_k: samples from this many of the most likely tokens.
      top_p: samples from the fewest tokens with this probability in total.

    Raises:
      UsageError: an argument is out of range.
    """

    def choose(logits: jax.Array, i: jax.Array) -> jax.Array:
        restricted, tokens = restrict_logits(logits, temperature, top_k, top_p)
        sampled = jax.random.categorical(jax.random.fold_in(key, i), restricted)
        return jnp.take_along_axis(tokens, sampled[..., None], -1)[..., 0]

    return _decode(step, state, first, length, end, None, choose)


def restrict_logits(
    logits: jax.Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Restricts the distribution of a token to the most likely ones.

    Args:
      logits: [R, V].
      temperature: divides the logits.
      top_k: keeps this many of the largest, lower ids first among equals.
      top_p: of those, keeps the fewest whose probabilities sum to at least top_p, and at least one (nucleus sampling:
        Holtzman et al. 2020, section 3.1).

    Returns:
      Logits, -inf for tokens that are left out, and the tokens they belong to: both [R, V], or [R, top_k] and sorted.

    Raises:
      UsageError: the temperature is not positive (its limit 0 is `greedy`), top_k is below 1, or top_p not in (0, 1].
    """
    if not temperature > 0:
        raise UsageError(f'temperature={temperature} must be positive; greedy decoding is its limit at 0')
    if top_k is not None and top_k < 1:
        raise UsageError(f'top_k={top_k} leaves no token')
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f'top_p={top_p} must be above 0 and at most 1')
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    if top_k is None and top_p is None:
        return logits, jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape)
    width = logits.shape[-1]
    restricted, tokens = lax.top_k(logits, width if top_k is None else min(top_k, width))
    if top_p is not None:
        p = jax.nn.softmax(restricted)
        preceding = jnp.cumsum(p, -1) - p  # of all more likely tokens; rounding may make the first one negative
        is_first = jnp.arange(restricted.shape[-1]) == 0
        restricted = jnp.where((preceding < top_p) | is_first, restricted, -jnp.inf)
    return restricted, tokens


def _decode(
    step: Step, state: Any, first: jax.Array, length: int, end: int | None, limits: jax.Array | None, choose: Callable
) -> Decoded:
    _check(first, length, limits)
    filler = 0 if end is None else end
    rows = len(first)
    tokens = jnp.full((rows, length), filler, jnp.int32)
    done, lengths = jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32)

    def unfinished(carry):
        i, _, _, _, done, _, _ = carry
        return (i < length) & ~done.all()

    def append_token(carry):
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

    scores = jnp.zeros(rows, _score_dtype(step, state, first))
    carry = (jnp.zeros((), jnp.int32), state, first.astype(jnp.int32), tokens, done, lengths, scores)
    _, _, _, tokens, _, lengths, scores = lax.while_loop(unfinished, append_token, carry)
    return Decoded(tokens, lengths, scores)


# --- beam search --------------------------------------------------------------------------------------------------


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """Returns ((5 + |y|) / 6)^alpha (Wu et al. 2016, eq. 14), where |y| counts the end token.

    tensor2tensor has the same; fairseq divides scores by |y|^alpha instead.
    """
    return ((5 + jnp.asarray(length)) / 6) ** alpha


class _Beam(NamedTuple):
    """The live hypotheses and the best finished ones; an empty slot has the score _NEVER."""

    i: jax.Array  # the step
    state: Any  # [B K, ...]
    last: jax.Array  # [B K], the last token of each live hypothesis
    tokens: jax.Array  # [B, K, length], of the live hypotheses
    scores: jax.Array  # [B, K], their sums of log p
    lengths: jax.Array  # [B], their tokens; of a row that is done, those it had then
    finished: Decoded  # [B, K, ...], scores with the penalty
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
    """Searches for the K hypotheses of highest log p / `length_penalty` (Sutskever et al. 2014, section 3.2).

    At each step, those of the K best continuations that end are finished, and the K best that do not end stay live. A
    row is done once K hypotheses are finished, as in fairseq, or at its limit. Finished hypotheses come first; those
    truncated at the limit fill the remaining slots, by the same score. An empty slot has length 0 and score -1e30. With
    one beam the result is that of `greedy`; with as many as there are sequences it is exact.

    Args:
      step: the model; called with B K rows, the K hypotheses of a row next to each other.
      state: its state, of B rows.
      first: [B], the token before each sequence.
      length: the maximum number of tokens.
      end: the token that ends a hypothesis.
      beams: K.
      alpha: exponent of the length penalty; 0 compares sums of log p, which favours short hypotheses.
      limits: integers [B], the maximum number of tokens of each row; `length` if None.

    Raises:
      UsageError: beams or length are below 1, alpha is negative, or limits are not integers [B].
    """
    _check(first, length, limits)
    if beams < 1:
        raise UsageError(f'beams={beams} must be at least 1')
    if not alpha >= 0:
        raise UsageError(f'alpha={alpha} must not be negative')
    rows = len(first)
    empty = Decoded(
        jnp.full((rows, beams, length), end, jnp.int32),
        jnp.zeros((rows, beams), jnp.int32),
        jnp.full((rows, beams), _NEVER, _score_dtype(step, state, first)),
    )
    start = _Beam(
        jnp.zeros((), jnp.int32),
        _map_rows(lambda x: jnp.repeat(x, beams, 0), state),
        jnp.repeat(first.astype(jnp.int32), beams),
        empty.tokens,
        empty.scores.at[:, 0].set(0),  # one live hypothesis per row: K equal ones would never diverge
        jnp.zeros(rows, jnp.int32),
        empty,
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

    # Those of the K best continuations that end. What follows the tokens of their parents is `end` already.
    ending = ends & real & (jnp.arange(scores.shape[1]) < beams)
    penalised = jnp.where(ending, scores / length_penalty(beam.i + 1, alpha), _NEVER).astype(scores.dtype)
    best, index = lax.top_k(penalised, beams)
    newly = Decoded(_gather(beam.tokens, _gather(parents, index)), jnp.where(best > _LEAST, beam.i + 1, 0), best)
    finished = _select_best(beam.finished, newly, beams)
    finished = Decoded(*(jnp.where(_expand(beam.done, a), a, b) for a, b in zip(beam.finished, finished, strict=True)))

    # The K best continuations that do not end.
    live, index = lax.top_k(jnp.maximum(jnp.where(ends, _NEVER, scores), _NEVER), beams)
    parents, tokens = _gather(parents, index), _gather(tokens, index)
    history = lax.dynamic_update_index_in_dim(_gather(beam.tokens, parents), tokens, beam.i, 2)
    state_rows = (jnp.arange(rows)[:, None] * beams + parents).reshape(-1)
    state = _map_rows(lambda x: jnp.take(x, state_rows, 0), state)

    # A row that is done keeps its hypotheses, however long the loop runs for the others.
    history = jnp.where(_expand(beam.done, history), beam.tokens, history)
    live = jnp.where(_expand(beam.done, live), beam.scores, live)
    lengths = jnp.where(beam.done, beam.lengths, beam.i + 1)
    all_finished = (finished.scores > _LEAST).all(1)
    none_live = (live < _LEAST).all(1)
    done = beam.done | all_finished | none_live
    done = done if limits is None else done | (lengths >= limits)
    return _Beam(beam.i + 1, state, tokens.reshape(-1), history, live, lengths, finished, done)


def _continuations(logits: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (scores, parents, tokens) of continuations, the best first.

    They include the K best and the K best that do not end. K + 1 of each hypothesis and 2 K in total suffice, since at
    most one continuation of a hypothesis ends; sorting those is cheaper than sorting K V.
    """
    rows, beams = scores.shape
    width = min(beams + 1, logits.shape[-1])
    logits = logits.astype(scores.dtype)
    best, tokens = lax.top_k(logits, width)
    best = best - jax.nn.logsumexp(logits, -1, keepdims=True)
    total = (scores[..., None] + best.reshape(rows, beams, width)).reshape(rows, -1)
    total, index = lax.top_k(total, min(2 * beams, total.shape[1]))
    return total, index // width, _gather(tokens.reshape(rows, -1), index)


def _finish(beam: _Beam, end: int, alpha: float) -> Decoded:
    """Returns the finished hypotheses followed by the truncated ones, each group with the best first."""
    beams, live, lengths = beam.scores.shape[1], beam.scores > _LEAST, beam.lengths[:, None]
    scores = jnp.where(live, beam.scores / length_penalty(lengths, alpha), _NEVER).astype(beam.scores.dtype)
    scores, order = lax.top_k(scores, beams)
    exists = scores > _LEAST
    tokens = jnp.where(exists[..., None], _gather(beam.tokens, order), end)
    truncated = Decoded(tokens, jnp.where(exists, lengths, 0), scores)
    rank = jnp.arange(beams) - (beam.finished.scores > _LEAST).sum(1, keepdims=True)  # among the truncated ones
    truncated = Decoded(*(_gather(x, jnp.maximum(rank, 0)) for x in truncated))
    return Decoded(*(jnp.where(_expand(rank >= 0, a), b, a) for a, b in zip(beam.finished, truncated, strict=True)))


def _select_best(a: Decoded, b: Decoded, count: int) -> Decoded:
    candidates = Decoded(*(jnp.concatenate(pair, 1) for pair in zip(a, b, strict=True)))
    _, index = lax.top_k(candidates.scores, count)
    return Decoded(*(_gather(x, index) for x in candidates))


# --- helpers ------------------------------------------------------------------------------------------------------


def _gather(x: jax.Array, index: jax.Array) -> jax.Array:
    """Returns x [B, N, ...] at index [B, K], [B, K, ...]."""
    return jnp.take_along_axis(x, _expand(index, x), 1)


def _expand(x: jax.Array, like: jax.Array) -> jax.Array:
    """Appends axes to x until it broadcasts to `like`."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _map_rows(f: Callable[[jax.Array], jax.Array], state: Any) -> Any:
    return jax.tree.map(lambda x: f(x) if jnp.ndim(x) else x, state)


def _log_p(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.take_along_axis(logits, tokens, -1) - jax.nn.logsumexp(logits, -1, keepdims=True)


def _score_dtype(step: Step, state: Any, first: jax.Array):
    """Returns the type of scores: that of the logits, float32 or wider."""
    logits, _ = jax.eval_shape(step, state, first.astype(jnp.int32))
    return jnp.promote_types(logits.dtype, jnp.float32)


def _check(first: jax.Array, length: int, limits: jax.Array | None = None) -> None:
    if first.ndim != 1:
        raise UsageError(f'first must be one token per row, [B], not {first.shape}')
    if limits is not None and (limits.shape != first.shape or not jnp.issubdtype(limits.dtype, jnp.integer)):
        raise UsageError(
            f'limits {limits.dtype}{list(limits.shape)} must be integers, one for each of {len(first)} rows'
        )
    if length < 1:
        raise UsageError(f'length={length} must be at least 1')
