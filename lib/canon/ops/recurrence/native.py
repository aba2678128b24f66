"""The loops over time of `rnn` with tanh, `lstm` and `gru` as kernels of `canon.native`: float32, on one CPU.

`scan` has the same values and gradients. Sequences keep their batch in front, [B, T, ...], since the
kernels read rows wherever they are; the products with the inputs and the gradients of all weights are XLA's.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import native
from canon.ops import dense
from canon.ops.recurrence.cells import Cell, GRUCell, LSTMCell, RNNCell, State
from canon.ops.recurrence.layouts import JointGates


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
    return _run(name, bool(reverse), z, recurrent, bias.astype(jnp.float32), h, c, jnp.asarray(lengths, jnp.int32))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(name, reverse, z, recurrent, bias, h0, c0, lengths):
    return _forward(name, reverse, z, recurrent, bias, h0, c0, lengths)[0]


def _forward(name, reverse, z, recurrent, bias, h0, c0, lengths):
    rows, steps = z.shape[:2]
    hidden, saved = len(recurrent), {'lstm': 4, 'gru': 4, 'rnn': 0}[name]
    results = tuple(_floats(rows, steps, n * hidden) for n in (1, int(name == 'lstm'), saved))
    aliases = {0: 2} if name == 'lstm' else None  # the gates take the place of their arguments
    h, c, saved = native.call(
        f'{name}_forward', partial(_forward_in_jax, name, reverse), results, z, bias, recurrent, h0, c0, lengths,
        reverse=reverse, input_output_aliases=aliases,
    )  # fmt: skip
    end = 0 if reverse else -1
    last = (h[:, end] if steps else h0,)
    if name == 'lstm':
        last = (*last, c[:, end] if steps else c0)
    return (h, last), (h, c, saved, recurrent, h0, c0, lengths)


def _backward(name, reverse, residuals, gradients):
    h, c, saved, recurrent, h0, c0, lengths = residuals
    dh, (dh_last, *dc_last) = gradients
    (rows, steps, hidden), width = h.shape, recurrent.shape[1]
    dz_result = _floats(rows, steps, width * (name == 'gru'))
    results = _floats(rows, steps, width), dz_result, _floats(*h0.shape), _floats(*c0.shape)
    da, dz, dh0, dc0 = native.call(
        f'{name}_backward', partial(_backward_in_jax, name, reverse), results,
        dh, dh_last, dc_last[0] if dc_last else c0, saved, h, c, h0, c0, recurrent, lengths,
        reverse=reverse, input_output_aliases={3: 0} if name == 'lstm' else None,
    )  # fmt: skip
    # The states before each step: one product with the gradients of all steps is the gradient of the weights.
    before = _states_before(h, h0, reverse).reshape(-1, hidden)
    drecurrent, dbias = before.T @ da.reshape(-1, width), da.sum((0, 1))
    if name == 'gru':
        return dz, drecurrent, jnp.concatenate([dbias, dz[..., 2 * hidden :].sum((0, 1))]), dh0, dc0, None
    return da, drecurrent, dbias, dh0, dc0, None


_run.defvjp(_forward, _backward)


# --- the same in JAX, which is differentiated for gradients of gradients --------------------------------------------

CELLS = {'lstm': LSTMCell(), 'gru': GRUCell(), 'rnn': RNNCell('tanh')}


def _arrange(name: str, recurrent: jax.Array, inner: jax.Array | None, transposed: bool) -> tuple:
    weights = {'lstm': (recurrent, None, None), 'gru': (recurrent, inner), 'rnn': (recurrent,)}[name]
    return CELLS[name].arrange(JointGates(), weights, transposed)


def _forward_in_jax(name, reverse, z, bias, recurrent, h0, c0, lengths):
    cell, layout, hidden = CELLS[name], JointGates(), len(recurrent)
    inner = None
    if name == 'gru':
        bias, inner = jnp.concatenate([bias[: 2 * hidden], bias[3 * hidden :]]), bias[2 * hidden : 3 * hidden]
    w = _arrange(name, recurrent, inner, transposed=False)

    def step(state, now):
        z, valid = now
        new, saved = cell.forward(layout, w, tuple(layout.split(z, cell.gates)), state)
        new = tuple(jnp.where(valid, n, o) for n, o in zip(new, state, strict=True))
        return new, (new, saved[:4] if name != 'rnn' else ())

    state = (h0, c0)[: cell.states]
    _, (states, saved) = lax.scan(step, state, (z.swapaxes(0, 1) + bias, _valid(z, lengths)), reverse=reverse)
    h, *c = (s.swapaxes(0, 1) for s in states)
    saved = jnp.concatenate(saved, -1).swapaxes(0, 1) if saved else h[..., :0]
    return h, c[0] if c else h[..., :0], saved


def _backward_in_jax(name, reverse, dh, dh_last, dc_last, saved, h, c, h0, c0, recurrent, lengths):
    cell, layout = CELLS[name], JointGates()
    w = _arrange(name, recurrent, None, transposed=True)

    def step(dstate, now):
        dh, saved, new, old, valid = now
        dstate = (dstate[0] + dh, *dstate[1:])
        values = new if name == 'rnn' else tuple(jnp.split(saved, 4, -1))
        values += (jnp.tanh(new[1]),) if name == 'lstm' else ()
        dold, da, extra = cell.backward(layout, w, values, old, dstate)
        dold = tuple(jnp.where(valid, d, s) for d, s in zip(dold, dstate, strict=True))
        dz = jnp.concatenate([da[..., : 2 * len(recurrent)], extra[0]], -1) if name == 'gru' else da[..., :0]
        return dold, (jnp.where(valid, da, 0), jnp.where(valid, dz, 0))

    states, first = (h, c)[: cell.states], (h0, c0)[: cell.states]
    old = tuple(_states_before(s, f, reverse) for s, f in zip(states, first, strict=True))
    inputs = jax.tree.map(lambda x: x.swapaxes(0, 1), (dh, saved, states, old))
    dstate = (dh_last, dc_last)[: cell.states]
    dstate, (da, dz) = lax.scan(step, dstate, (*inputs, _valid(dh, lengths)), reverse=not reverse)
    return da.swapaxes(0, 1), dz.swapaxes(0, 1), dstate[0], dstate[1] if cell.states == 2 else c0


def _states_before(states: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
    """Returns the state before each step, [B, T, H], of the states after each and the first one [B, H]."""
    parts = [states[:, 1:], first[:, None]] if reverse else [first[:, None], states[:, :-1]]
    return jnp.concatenate(parts, 1)[:, : states.shape[1]]


def _valid(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns which steps of x [B, T, ...] are within each sequence, [T, B, 1]."""
    return (jnp.arange(x.shape[1])[:, None] < lengths)[..., None]


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
