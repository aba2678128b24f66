"""Connectionist temporal classification: the likelihood of a label, summed over all its alignments with the frames.

Graves, Fernandez, Gomez, Schmidhuber, "Connectionist temporal classification: labelling unsegmented sequence data with
recurrent neural networks", ICML 2006. `ctc_of_row` is the recursion of the paper in a few lines; `ctc` computes the
same for padded batches, with a gradient of its own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_LOG_ZERO = -1e30  # finite, so that differences of it and its gradient are not NaN
_LEAST = -1e29  # log probabilities below it are of impossible labels


def ctc_of_row(logits: jax.Array, label: jax.Array, blank: int = 0) -> jax.Array:
    """Computes -log p(label | logits) of one row without padding, in nats: the forward recursion of eq. 5 to 8.

    alpha_t(s), the probability of all paths through frames 1 to t that end at place s of the label with blanks between
    its characters, is kept in log space. Logits [T, C], label [N].

    >>> logits = jnp.log(jnp.array([[0.4, 0.6], [0.4, 0.6]]))  # the label (1) has the paths 11, 01 and 10
    >>> print(f'{jnp.exp(-ctc_of_row(logits, jnp.array([1]))):.2f}')
    0.84
    """
    log_p = jax.nn.log_softmax(logits)
    places = jnp.full(2 * len(label) + 1, blank).at[1::2].set(label)  # l' of the paper
    skip = (
        jnp.full(len(places), _LOG_ZERO)
        .at[2:]
        .set(  # a blank may be skipped between characters that differ
            jnp.where((places[2:] != blank) & (places[2:] != places[:-2]), 0, _LOG_ZERO)
        )
    )

    def step(alpha, frame):
        one, two = (jnp.pad(alpha, (n, 0), constant_values=_LOG_ZERO)[: len(places)] for n in (1, 2))
        alpha = jax.nn.logsumexp(jnp.stack([alpha, one, two + skip]), axis=0) + frame[places]
        return alpha, None

    # Before the first frame all paths are at the first blank.
    start = jnp.full(len(places), _LOG_ZERO).at[0].set(0)
    alpha, _ = jax.lax.scan(step, start, log_p)
    return -jax.nn.logsumexp(alpha[-2:])  # paths end at the last character or at the blank after it


def ctc(
    logits: jax.Array,
    logit_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    blank: int = 0,
    zero_infinity: bool = False,
) -> jax.Array:
    """Computes -log p(label | logits) per row, in nats [B]: eq. 3 and 8 of Graves et al. 2006, in log space.

    A label needs one frame per character and one more between two equal ones. With fewer frames the loss is infinite
    and the gradient of the row is 0. Without frames and characters the loss is 0. The gradient by the logits is the
    softmax minus the posterior of the characters (eq. 16), computed by a backward recursion.

    Args:
      logits: [B, T, C], not normalised, of any floating-point type; the loss is float32 at least.
      logit_lengths: frames of each row [B]; more than T count as T.
      labels: integers [B, N] without blanks; the padding may hold anything.
      label_lengths: characters of each row [B]; more than N count as N.
      blank: the class of no character.
      zero_infinity: replaces infinite losses by 0.

    Raises:
      UsageError: shapes do not fit, or the blank is not a class.
    """
    _check(logits, logit_lengths, labels, label_lengths, blank)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logit_lengths = jnp.clip(logit_lengths, 0, logits.shape[1])
    label_lengths = jnp.clip(label_lengths, 0, labels.shape[1])
    labels = jnp.where(jnp.arange(labels.shape[1]) < label_lengths[:, None], labels, blank)
    loss = _ctc(logits, logit_lengths, labels, label_lengths, blank)
    return jnp.where(jnp.isinf(loss), 0, loss) if zero_infinity else loss


class _Lattice(NamedTuple):
    """The label with blanks between, before and after its characters, l' of the paper: S = 2 N + 1 places."""

    symbols: jax.Array  # [B, S]
    skip: jax.Array  # [B, S], log 1 where a path may come from two places before, else log 0
    final: jax.Array  # [B, S], log 1 where a path may end, else log 0


def _build_lattice(labels: jax.Array, lengths: jax.Array, blank: int) -> _Lattice:
    rows, n = labels.shape
    symbols = jnp.full((rows, 2 * n + 1), blank, labels.dtype).at[:, 1::2].set(labels)
    # A blank may be skipped between two characters that differ (section 4.1); between equal ones it separates them.
    differs = jnp.pad(symbols[:, 2:] != symbols[:, :-2], ((0, 0), (2, 0)))[:, : 2 * n + 1]
    place, end = jnp.arange(2 * n + 1), 2 * lengths[:, None]
    final = (place == end) | (place == end - 1)
    return _Lattice(symbols, _log_indicator(differs & (symbols != blank)), _log_indicator(final))


def _log_indicator(allowed: jax.Array) -> jax.Array:
    """log 1 where `allowed`, else log 0."""
    return jnp.where(allowed, 0.0, _LOG_ZERO)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _ctc(logits, logit_lengths, labels, label_lengths, blank):
    return _forward(logits, logit_lengths, labels, label_lengths, blank)[0]


def _forward(logits, logit_lengths, labels, label_lengths, blank):
    """Returns the loss, and the residuals of the gradient: alpha of eq. 6 for every frame, among others."""
    lattice = _build_lattice(labels, label_lengths, blank)
    top = logits.max(-1)
    # Kept for the gradient in place of the logits: the softmax of many classes costs more than all of the recursion.
    exps = jnp.exp(logits - top[:, :, None])
    total = exps.sum(-1)
    emissions = _gather_emissions(logits, top, jnp.log(total), lattice.symbols)
    # Before the first frame all paths are at place 0: they may stay (blank) or go on to the first character.
    start = jnp.full(lattice.symbols.shape, _LOG_ZERO, logits.dtype).at[:, 0].set(0)

    def step(alpha, frame):
        log_y, valid = frame
        new = _log_sum(alpha, _shift_right(alpha, 1), _shift_right(alpha, 2) + lattice.skip) + log_y
        alpha = jnp.where(valid[:, None], new, alpha)
        return alpha, alpha

    end, alphas = jax.lax.scan(step, start, (emissions, _valid_frames(logits, logit_lengths)))
    log_p = jax.nn.logsumexp(end + lattice.final, axis=-1)
    loss = jnp.where(log_p < _LEAST, jnp.inf, jnp.maximum(-log_p, 0))
    return loss, (exps, total, logit_lengths, labels, label_lengths, emissions, alphas, log_p)


def _backward(blank, saved, g):
    """Returns the softmax minus the posterior of each class, frame by frame: eq. 16.

    The posterior of a place is alpha beta / p, with beta of eq. 10 without the emission of its own frame; that of the
    blank is the sum over its N + 1 places, that of another class the sum over its characters.
    """
    exps, total, logit_lengths, labels, label_lengths, emissions, alphas, log_p = saved
    lattice, valid = _build_lattice(labels, label_lengths, blank), _valid_frames(exps, logit_lengths)
    skip = _shift_left(lattice.skip, 2)

    # The carry includes the emission of its frame: XLA:CPU takes five times as long if the emission is added first.
    def step(beta, frame):
        log_y, valid = frame
        without_emission = _log_sum(beta, _shift_left(beta, 1), _shift_left(beta, 2) + skip)
        return jnp.where(valid[:, None], without_emission + log_y, beta), without_emission

    # After the last frame all paths are at the last blank, which the last character reaches too.
    place = jnp.arange(lattice.symbols.shape[1])
    end = _log_indicator(place == 2 * label_lengths[:, None]).astype(exps.dtype)
    betas = jax.lax.scan(step, end, (emissions, valid), reverse=True)[1]
    has_gradient = valid & (log_p >= _LEAST)
    posterior = jnp.exp(alphas + betas - log_p[:, None]) * g[:, None]
    posterior = jnp.where(has_gradient[:, :, None], posterior, 0).transpose(1, 0, 2)  # [B, T, S]
    softmax = jnp.where(has_gradient.T[:, :, None], exps * (g[:, None] / total)[:, :, None], 0)
    # The blank and the few characters are subtracted a column [T] at a time: XLA:CPU scatters in a loop, of B (N + 1)
    # turns then and not of B T N.
    classes = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=blank)
    expected = jnp.concatenate([posterior[:, :, ::2].sum(-1, keepdims=True), posterior[:, :, 1::2]], -1)
    grad = softmax.at[jnp.arange(len(labels))[:, None], :, classes].add(-expected.swapaxes(1, 2))
    return grad, None, None, None


_ctc.defvjp(_forward, _backward)


def _gather_emissions(logits: jax.Array, top: jax.Array, log_total: jax.Array, symbols: jax.Array) -> jax.Array:
    """Returns log p of each place's symbol in each frame, [T, B, S], without the log softmax of all classes.

    Args:
      logits: [B, T, C].
      top: the largest logit of each frame, [B, T].
      log_total: log sum exp(logit - top) of each frame, [B, T].
      symbols: [B, S].
    """
    chosen = logits[jnp.arange(len(symbols))[:, None], :, symbols].transpose(2, 0, 1)
    # One after the other: their sum would lose digits of large logits.
    return jnp.maximum(chosen - top.T[:, :, None] - log_total.T[:, :, None], _LOG_ZERO)


def _valid_frames(logits: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns which frames are within each row's length, [T, B]."""
    return jnp.arange(logits.shape[1])[:, None] < lengths


def _shift_right(x: jax.Array, places: int) -> jax.Array:
    """Shifts log probabilities [B, S] by `places`, filled up with log 0."""
    return jnp.pad(x, ((0, 0), (places, 0)), constant_values=_LOG_ZERO)[:, : x.shape[1]]


def _shift_left(x: jax.Array, places: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, places)), constant_values=_LOG_ZERO)[:, places:]


def _log_sum(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """log(e^a + e^b + e^c)."""
    top = jnp.maximum(jnp.maximum(a, b), c)
    return top + jnp.log(jnp.exp(a - top) + jnp.exp(b - top) + jnp.exp(c - top))


def _check(logits, logit_lengths, labels, label_lengths, blank) -> None:
    rows = logits.shape[:1]
    fits = (
        logits.ndim == 3
        and labels.ndim == 2
        and labels.shape[:1] == rows == tuple(logit_lengths.shape) == tuple(label_lengths.shape)
    )
    if not fits:
        raise UsageError(
            'ctc takes logits [B, T, C], logit_lengths [B], labels [B, N] and label_lengths [B], not '
            f'{logits.shape}, {logit_lengths.shape}, {labels.shape} and {label_lengths.shape}'
        )
    if not 0 <= blank < logits.shape[-1]:
        raise UsageError(f'blank={blank} must be one of the {logits.shape[-1]} classes, 0 to {logits.shape[-1] - 1}')
