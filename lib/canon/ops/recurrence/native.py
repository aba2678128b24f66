"""The loops over time of `rnn` with tanh, `lstm` and `gru` as kernels of `canon.native`: float32, on one CPU.

The twin is `scan`, which has the same values and gradients. Sequences keep their batch in front, [B, T, ...], since the
kernels read rows wherever they are; the products with the inputs and the gradients of all weights are XLA's.
"""

from functools import partial

import jax
import jax.numpy as jnp

from canon import native
from canon.ops import dense
from canon.ops.recurrence.cells import Cell, GRUCell, LSTMCell, RNNCell, State


def choose_kernel(cell: Cell, kernel: jax.Array, weights: tuple) -> str | None:
    """Returns the name of the kernel in C++ that computes a cell with these weights here, None if there is none."""
    recurrent, *extra = weights
    match cell:
        case RNNCell(activation='tanh'):
            name = 'rnn'
        case LSTMCell() if all(w is None for w in extra):  # no linear map of the cell
            name = 'lstm'
        case GRUCell():
            name = 'gru'
        case _:
            return None
    is_float32 = kernel.dtype == recurrent.dtype == jnp.float32
    return name if is_float32 and native.is_available() else None


def run_kernel(
    name: str,
    x: jax.Array,
    kernel: jax.Array,
    weights: tuple,
    bias: jax.Array | None,
    initial: State,
    lengths: jax.Array | None,
    reverse: bool,
) -> tuple[jax.Array, State]:
    """Returns the outputs [B, T, H], those beyond a sequence's length included, and the last state."""
    recurrent, *extra = weights
    hidden, width = recurrent.shape
    bias = jnp.zeros(width) if bias is None else bias
    if name == 'gru':  # the candidate has two: of its product with the state, and with the input
        inner = jnp.zeros(hidden) if extra[0] is None else extra[0]
        bias = jnp.concatenate([bias[: 2 * hidden], inner, bias[2 * hidden :]])
    if lengths is None:
        lengths = jnp.full(len(x), x.shape[1], jnp.int32)
    h, *cell = initial
    c = cell[0] if cell else jnp.zeros((0, 0), jnp.float32)
    z = dense.product(x, kernel)
    return _run(name, reverse, z, recurrent, bias.astype(jnp.float32), h, c, jnp.asarray(lengths, jnp.int32))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(name, reverse, z, recurrent, bias, h0, c0, lengths):
    return _forward(name, reverse, z, recurrent, bias, h0, c0, lengths)[0]


def _forward(name, reverse, z, recurrent, bias, h0, c0, lengths):
    rows, steps = z.shape[:2]
    hidden, saved = len(recurrent), {'lstm': 4, 'gru': 4, 'rnn': 0}[name]
    results = [_floats(rows, steps, n * hidden) for n in (1, int(name == 'lstm'), saved)]
    aliases = {0: 2} if name == 'lstm' else None  # the gates take the place of their arguments
    h, c, saved = native.call(
        f'{name}_forward', results, z, bias, recurrent, h0, c0, lengths, reverse=reverse, input_output_aliases=aliases
    )
    end = 0 if reverse else -1
    last = (h[:, end] if steps else h0,)
    if name == 'lstm':
        last = (*last, c[:, end] if steps else c0)
    return (h, last), (h, c, saved, recurrent, h0, c0, lengths)


def _backward(name, reverse, residuals, gradients):
    h, c, saved, recurrent, h0, c0, lengths = residuals
    dh, (dh_last, *dc_last) = gradients
    (rows, steps, hidden), width = h.shape, recurrent.shape[1]
    results = [_floats(rows, steps, width), _floats(rows, steps, width * (name == 'gru')), h0, c0]
    aliases = {3: 0} if name == 'lstm' else None
    da, dz, dh0, dc0 = native.call(
        f'{name}_backward', [jax.ShapeDtypeStruct(r.shape, r.dtype) for r in results],
        dh, dh_last, dc_last[0] if dc_last else c0, saved, h, c, h0, c0, recurrent, lengths,
        reverse=reverse, input_output_aliases=aliases,
    )  # fmt: skip
    # The states before each step: one product with the gradients of all steps is the gradient of the weights.
    before = [h[:, 1:], h0[:, None]] if reverse else [h0[:, None], h[:, :-1]]
    before = jnp.concatenate(before, 1).reshape(-1, hidden) if steps else jnp.zeros((0, hidden), h.dtype)
    drecurrent, dbias = before.T @ da.reshape(-1, width), da.sum((0, 1))
    if name == 'gru':
        return dz, drecurrent, jnp.concatenate([dbias, dz[..., 2 * hidden :].sum((0, 1))]), dh0, dc0, None
    return da, drecurrent, dbias, dh0, dc0, None


_run.defvjp(_forward, _backward)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
