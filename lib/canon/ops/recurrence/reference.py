"""Recurrent cells as textbooks write them, and a plain scan that JAX differentiates.

This is the definition of what `canon.ops.recurrence` computes: its functions are tested against these, values and
gradients. Parameters are a dict, inputs of a step [B, I], states tuples of [B, H].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

State = tuple[jax.Array, ...]


def step_rnn(w: Mapping[str, jax.Array], x: jax.Array, state: State, activation: Callable = jnp.tanh) -> State:
    """Computes s' = f(x U + s W + b) (Elman 1990)."""
    (s,) = state
    return (activation(x @ w['kernel'] + s @ w['recurrent'] + w['bias']),)


def step_lstm(w: Mapping[str, jax.Array], x: jax.Array, state: State) -> State:
    """Computes a step of the LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000."""
    h, c = state
    i, f, g, o = jnp.split(x @ w['kernel'] + h @ w['recurrent'] + w['bias'], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    m = c @ w['cell_kernel'] + w.get('cell_bias', 0) if 'cell_kernel' in w else c  # `cell_map` of canon.nn.LSTM
    return sigmoid(o) * jnp.tanh(m), c


def step_gru(w: Mapping[str, jax.Array], x: jax.Array, state: State) -> State:
    """Computes a step of the GRU of Cho et al. 2014 with the reset gate after the product, as in cuDNN and torch."""
    (h,) = state
    xr, xz, xn = jnp.split(x @ w['kernel'] + w['bias'], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ w['recurrent'], 3, axis=-1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = jnp.tanh(xn + r * (hn + w['candidate_bias']))
    return ((1 - z) * n + z * h,)


def step_gru_reset_before(w: Mapping[str, jax.Array], x: jax.Array, state: State) -> State:
    """Computes a step of the GRU of the paper (Cho et al. 2014, eq. 5 to 8): the reset gate before the product."""
    (h,) = state
    xr, xz, xn = jnp.split(x @ w['kernel'] + w['bias'], 3, axis=-1)
    wr, wz, wn = jnp.split(w['recurrent'], 3, axis=-1)
    r, z = sigmoid(xr + h @ wr), sigmoid(xz + h @ wz)
    n = jnp.tanh(xn + (r * h) @ wn)
    return ((1 - z) * n + z * h,)


def scan_cell(
    step: Callable[[Mapping[str, jax.Array], jax.Array, State], State],
    w: Mapping[str, jax.Array],
    x: jax.Array,
    initial: State,
    lengths: jax.Array,
    reverse: bool = False,
) -> tuple[jax.Array, State]:
    """Runs a cell over sequences.

    Args:
      step: one of the cells above.
      w: its parameters.
      x: sequences [B, T, I].
      initial: the state before the first step.
      lengths: steps of each sequence, [B].
      reverse: runs from the end of each sequence to its start.

    Returns:
      the outputs [B, T, H], zero beyond a sequence's length, and the state after its last step.
    """

    def body(state, now):
        x, t = now
        valid = (t < lengths)[:, None]
        # Padding keeps the state, so that the last one is the state after each sequence's own last step.
        state = tuple(jnp.where(valid, new, old) for new, old in zip(step(w, x, state), state, strict=True))
        return state, jnp.where(valid, state[0], 0)

    # In reverse the scan starts at T - 1 and keeps the initial state until a sequence's own end.
    state, outputs = jax.lax.scan(body, initial, (x.swapaxes(0, 1), jnp.arange(x.shape[1])), reverse=reverse)
    return outputs.swapaxes(0, 1), state
