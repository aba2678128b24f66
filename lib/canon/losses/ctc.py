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


class _Places(NamedTuple):
    """Log probabilities of the places of l' of the paper, a label with blanks before, between and after its characters.

    Blanks and characters are kept apart: a blank has two predecessors only, and all blanks of a frame one probability.
    Rows come last, since that is the axis along which neighbours are computed alike.
    """

    blanks: jax.Array  # [..., N + 1, B], after 0 to N characters
    characters: jax.Array  # [..., N, B]

    def flip(self, frames: bool = False) -> '_Places':
        """Reverses the order of the places, and of the frames that come first."""
        return _Places(*(jnp.flip(x, (0, -2) if frames else -2) for x in self))


def _log_indicator(allowed: jax.Array) -> jax.Array:
    """log 1 where `allowed`, else log 0."""
    return jnp.where(allowed, 0.0, _LOG_ZERO)


def _find_skips(labels: jax.Array, blank: int) -> jax.Array:
    """Returns log 1 where a character may directly follow the one before it, else log 0, [N, B].

    A blank may be skipped between two characters that differ (section 4.1); between equal ones it separates them.
    """
    differs = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 0)))[:, : labels.shape[1]]
    return _log_indicator(differs & (labels != blank)).T


def _start(rows: int, characters: int, after: jax.Array | int, dtype) -> _Places:
    """All paths are at the blank after so many characters."""
    blanks = _log_indicator(jnp.arange(characters + 1)[:, None] == jnp.broadcast_to(after, rows))
    return _Places(blanks.astype(dtype), jnp.full((characters, rows), _LOG_ZERO, dtype))


def _advance(skip, state: _Places, frame):
    """One frame of the recursion of eq. 6, for a `jax.lax.scan`; frames beyond a row's length leave it as it is."""
    (log_y_blank, log_y), valid = frame
    before = jnp.pad(state.characters, ((1, 0), (0, 0)), constant_values=_LOG_ZERO)
    blanks = _log_sum(state.blanks, before) + log_y_blank
    characters = _log_sum(state.characters, state.blanks[:-1], before[:-1] + skip) + log_y
    new = _Places(blanks, characters)
    state = jax.tree.map(lambda new, old: jnp.where(valid, new, old), new, state)
    return state, state


def _end(state: _Places, lengths: jax.Array) -> jax.Array:
    """Returns log p(label): paths end at the last character or at the blank after it, [B]."""
    characters = jnp.pad(state.characters, ((1, 0), (0, 0)), constant_values=_LOG_ZERO)
    last = [jnp.take_along_axis(x, lengths[None], 0)[0] for x in (state.blanks, characters)]
    return jnp.logaddexp(*last)


def _loss(log_p: jax.Array) -> jax.Array:
    return jnp.where(log_p < _LEAST, jnp.inf, jnp.maximum(-log_p, 0))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _ctc(logits, logit_lengths, labels, label_lengths, blank):
    emissions = _prepare(logits, labels, blank)[0]
    start = _start(*labels.shape, 0, logits.dtype)
    frames = emissions, _valid_frames(logits, logit_lengths)
    return _loss(_end(jax.lax.scan(partial(_advance, _find_skips(labels, blank)), start, frames)[0], label_lengths))


def _forward(logits, logit_lengths, labels, label_lengths, blank):
    """Returns the loss, and the residuals of the gradient: log (alpha beta / y) of eq. 6 and 10 among others.

    Alpha and beta are one recursion, that of beta from the last frame and the last place on. They run side by side as
    2 B rows, since a frame of a small batch takes little longer for twice the rows.
    """
    emissions, exps, total = _prepare(logits, labels, blank)
    valid, skip = _valid_frames(logits, logit_lengths), _find_skips(labels, blank)
    n = labels.shape[1]
    start = _start(*labels.shape, 0, logits.dtype), _start(*labels.shape, n - label_lengths, logits.dtype)
    skip_back = jnp.pad(skip, ((0, 1), (0, 0)), constant_values=_LOG_ZERO)[1:][::-1]
    frames = (emissions, valid), (emissions.flip(frames=True), valid[::-1])
    _, states = jax.lax.scan(
        partial(_advance, jnp.concatenate([skip, skip_back], -1)),
        *(jax.tree.map(lambda *x: jnp.concatenate(x, -1), *pair) for pair in (start, frames)),
    )
    alphas = jax.tree.map(lambda x: x[..., : len(labels)], states)
    betas = jax.tree.map(lambda x: x[..., len(labels) :], states).flip(frames=True)
    log_p = _end(jax.tree.map(lambda x: x[-1], alphas) if len(valid) else start[0], label_lengths)
    # Both contain the emission of their frame.
    paths = jax.tree.map(lambda alpha, beta, log_y: alpha + beta - log_y, alphas, betas, emissions)
    return _loss(log_p), (exps, total, labels, paths, valid, log_p)


def _backward(blank, saved, g):
    """Returns the softmax minus the posterior of each class, frame by frame: eq. 16.

    The posterior of a place is alpha beta / (y p); that of the blank is the sum over its N + 1 places, that of another
    class the sum over its characters.
    """
    exps, total, labels, paths, valid, log_p = saved
    has_gradient = valid & (log_p >= _LEAST)
    blanks, characters = (
        jnp.where(has_gradient[:, None], jnp.exp(x - log_p) * g, 0).transpose(2, 1, 0)  # [B, places, T]
        for x in paths
    )
    softmax = jnp.where(has_gradient.T[:, :, None], exps * (g[:, None] / total)[:, :, None], 0)
    # The blank and the few characters are subtracted a column [T] at a time: XLA:CPU scatters in a loop, of B (N + 1)
    # turns then and not of B T N.
    classes = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=blank)
    expected = jnp.concatenate([blanks.sum(1, keepdims=True), characters], 1)
    grad = softmax.at[jnp.arange(len(labels))[:, None], :, classes].add(-expected)
    return grad, None, None, None


_ctc.defvjp(_forward, _backward)


def _prepare(logits: jax.Array, labels: jax.Array, blank: int) -> tuple[_Places, jax.Array, jax.Array]:
    """Returns log p of each place in each frame without the log softmax of all classes, and what a softmax is made of.

    Returns:
      emissions: blanks [T, 1, B], characters [T, N, B].
      exps: exp(logit - largest logit of its frame), [B, T, C]. Kept for the gradient in place of the logits: the
        softmax of many classes costs more than all of the recursion.
      total: their sum, [B, T].
    """
    top = logits.max(-1)
    exps = jnp.exp(logits - top[:, :, None])
    total = exps.sum(-1)
    log_total = jnp.log(total)

    def normalise(chosen):
        # One after the other: their sum would lose digits of large logits.
        return jnp.maximum(chosen - top[:, None] - log_total[:, None], _LOG_ZERO).transpose(2, 1, 0)

    chosen = logits[jnp.arange(len(labels))[:, None], :, labels]  # [B, N, T]
    return _Places(normalise(logits[:, None, :, blank]), normalise(chosen)), exps, total


def _valid_frames(logits: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns which frames are within each row's length, [T, B]."""
    return jnp.arange(logits.shape[1])[:, None] < lengths


def _log_sum(a: jax.Array, b: jax.Array, c: jax.Array | None = None) -> jax.Array:
    """log(e^a + e^b + e^c), without the exponential of the largest, which is 1."""
    low, top = jnp.minimum(a, b), jnp.maximum(a, b)
    if c is None:
        return top + jnp.log(1 + jnp.exp(low - top))
    middle, top = jnp.minimum(top, c), jnp.maximum(top, c)
    return top + jnp.log(1 + jnp.exp(low - top) + jnp.exp(middle - top))


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
