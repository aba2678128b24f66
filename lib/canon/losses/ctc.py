"""Connectionist temporal classification: the likelihood of a label sequence, whatever frames its characters fall on.

Graves, Fernandez, Gomez, Schmidhuber, "Connectionist temporal classification: labelling unsegmented sequence data with
recurrent neural networks", ICML 2006.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_NEVER = -1e30  # log 0 that can be subtracted from itself
_LEAST = -1e29  # below it a log probability is that of the impossible


def ctc(
    logits: jax.Array,
    logit_lengths: jax.Array,
    labels: jax.Array,
    label_lengths: jax.Array,
    blank: int = 0,
    zero_infinity: bool = False,
) -> jax.Array:
    """-log p(label | logits), one value a row, in nats [B]: Graves et al. 2006, eq. 3 and 8, in log space.

    logits: [B, T, C], not normalised; frames from logit_lengths [B] on do not count. labels: integers [B, N], of which
    the first label_lengths [B] count; padding may hold anything. blank: the class that is no character, which a label
    must not hold. Lengths beyond T and N count as T and N. Computed in float32 at least, whatever the logits' type.

    A label needs a frame a character and one more between two equal ones; where there are fewer the loss is infinite,
    or 0 with `zero_infinity`; the gradient of such a row is 0 either way. No frames and no characters: loss 0.
    The gradient by the logits is softmax minus the characters' posterior (eq. 16), by a backward pass of its own.
    Raises UsageError for shapes that do not fit and for a blank that is no class.
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
    skip: jax.Array  # [B, S], the price of coming from two places before: 0, or never
    last: jax.Array  # [B, S], the price of ending there


def _lattice(labels: jax.Array, lengths: jax.Array, blank: int) -> _Lattice:
    rows, n = labels.shape
    symbols = jnp.full((rows, 2 * n + 1), blank, labels.dtype).at[:, 1::2].set(labels)
    # A blank may be left out between two characters that differ (section 4.1); between equal ones it tells them apart.
    differs = jnp.pad(symbols[:, 2:] != symbols[:, :-2], ((0, 0), (2, 0)))[:, : 2 * n + 1]
    place, end = jnp.arange(2 * n + 1), 2 * lengths[:, None]
    final = (place == end) | (place == end - 1)
    return _Lattice(symbols, _price(differs & (symbols != blank)), _price(final))


def _price(allowed: jax.Array) -> jax.Array:
    return jnp.where(allowed, 0.0, _NEVER)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _ctc(logits, logit_lengths, labels, label_lengths, blank):
    return _forward(logits, logit_lengths, labels, label_lengths, blank)[0]


def _forward(logits, logit_lengths, labels, label_lengths, blank):
    """The loss, and what the gradient is made of: alpha of eq. 6, by frame."""
    lattice = _lattice(labels, label_lengths, blank)
    emitted = _emitted(logits, lattice.symbols)
    # Before the first frame all is at place 0: from there a path may stay (blank) or go on to the first character.
    start = jnp.full(lattice.symbols.shape, _NEVER, logits.dtype).at[:, 0].set(0)

    def step(alpha, frame):
        log_y, shown = frame
        reached = _log_sum(alpha, _later(alpha, 1), _later(alpha, 2) + lattice.skip) + log_y
        alpha = jnp.where(shown[:, None], reached, alpha)
        return alpha, alpha

    end, alphas = jax.lax.scan(step, start, (emitted, _shown(logits, logit_lengths)))
    log_p = jax.nn.logsumexp(end + lattice.last, axis=-1)
    loss = jnp.where(log_p < _LEAST, jnp.inf, jnp.maximum(-log_p, 0))
    return loss, (logits, logit_lengths, labels, label_lengths, emitted, alphas, log_p)


def _backward(blank, saved, g):
    """softmax minus the posterior of each class, frame by frame: eq. 16.

    The posterior of a place is alpha beta / p, with beta of eq. 10 before its own frame is counted; that of the blank
    is the sum over its N + 1 places, that of another class the sum over its characters.
    """
    logits, logit_lengths, labels, label_lengths, emitted, alphas, log_p = saved
    lattice, shown = _lattice(labels, label_lengths, blank), _shown(logits, logit_lengths)
    skip = _sooner(lattice.skip, 2)

    # The carry holds the frame's emission already: XLA:CPU takes five times as long where it is added at first.
    def step(beta, frame):
        log_y, shown = frame
        before = _log_sum(beta, _sooner(beta, 1), _sooner(beta, 2) + skip)
        return jnp.where(shown[:, None], before + log_y, beta), before

    # Behind the last frame all is at the last blank, which the last character reaches too.
    place = jnp.arange(lattice.symbols.shape[1])
    end = _price(place == 2 * label_lengths[:, None]).astype(logits.dtype)
    betas = jax.lax.scan(step, end, (emitted, shown), reverse=True)[1]
    posterior = jnp.exp(alphas + betas - log_p[:, None]).swapaxes(0, 1)  # [B, T, S]
    possible = log_p >= _LEAST
    rows, steps = jnp.arange(logits.shape[0])[:, None, None], jnp.arange(logits.shape[1])[None, :, None]
    grad = jax.nn.softmax(logits)
    grad = grad.at[:, :, blank].add(-posterior[:, :, ::2].sum(-1))
    grad = grad.at[rows, steps, labels[:, None, :]].add(-posterior[:, :, 1::2])
    counts = shown.swapaxes(0, 1) & possible[:, None]
    return jnp.where(counts[:, :, None], grad * g[:, None, None], 0), None, None, None


_ctc.defvjp(_forward, _backward)


def _emitted(logits: jax.Array, symbols: jax.Array) -> jax.Array:
    """log p of each place's symbol in each frame, [T, B, S]."""
    log_p = jnp.maximum(jax.nn.log_softmax(logits), _NEVER)
    return jnp.take_along_axis(log_p, symbols[:, None, :], axis=-1).swapaxes(0, 1)


def _shown(logits: jax.Array, lengths: jax.Array) -> jax.Array:
    """Which frames count, [T, B]."""
    return jnp.arange(logits.shape[1])[:, None] < lengths


def _later(x: jax.Array, places: int) -> jax.Array:
    """x [B, S] moved on by `places`; nothing comes in."""
    return jnp.pad(x, ((0, 0), (places, 0)), constant_values=_NEVER)[:, : x.shape[1]]


def _sooner(x: jax.Array, places: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, places)), constant_values=_NEVER)[:, places:]


def _log_sum(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
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
        raise UsageError(f'blank={blank} is none of the {logits.shape[-1]} classes')
