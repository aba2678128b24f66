"""Recurrences over time: the vanilla RNN, LSTM and GRU as functions of whole sequences, with their own gradients.

Sequences are [B, T, ..], kernels [.., n H] with the n gates side by side. The inputs' product with `kernel` stands
outside the loop. So does the weights' gradient: the loop backwards carries the gradient of the state alone and leaves
behind that of each gate's argument, and one product of these with all states is the gradient of the weights.

With `lengths` [B] a sequence ends: beyond it the state is kept, the outputs are zero, and nothing that stands there
reaches an output, a state or a gradient. `reverse` reads each sequence from its own end. Lengths beyond T are refused
where they are known when the program is traced, and mean T where they are not.

The state is held in float32 at least, whatever the kernels are. Reverse mode only, as every `jax.custom_vjp`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from canon.backend import cpu_form
from canon.errors import UsageError
from canon.named import suggest
from canon.ops import dense
from canon.ops.activations import ACTIVATIONS, sigmoid

State = tuple[jax.Array, ...]


def rnn(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    initial: jax.Array | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    activation: str = 'tanh',
) -> tuple[jax.Array, jax.Array]:
    """s_t = f(x_t U + s_{t-1} W + b): Elman 1990. x [B, T, I], kernel U [I, H], recurrent W [H, H], bias [H].

    Returns the states [B, T, H] and the last one [B, H]. activation: 'tanh', 'relu', 'sigmoid' or 'linear'.
    initial: [B, H], zeros without. Raises UsageError for shapes that do not fit and lengths beyond T.
    """
    if activation not in _SLOPES:
        raise UsageError(f'no recurrence has the activation {activation!r}{suggest(activation, _SLOPES)}')
    before = None if initial is None else (initial,)
    outputs, (state,) = _run(_RNN(activation), x, kernel, (recurrent,), bias, before, lengths, reverse)
    return outputs, state


def lstm(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    initial: tuple[jax.Array, jax.Array] | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    cell_kernel: jax.Array | None = None,
    cell_bias: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Hochreiter & Schmidhuber 1997 with Gers et al. 2000's forget gate, and no peepholes.

    i, f, g, o = x_t kernel + h_{t-1} recurrent + bias; c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g);
    h_t = sigmoid(o) tanh(c_t). kernel [I, 4 H], recurrent [H, 4 H], bias [4 H], gates in torch's order i, f, g, o.
    cell_kernel [H, H], cell_bias [H]: h_t = sigmoid(o) tanh(c_t cell_kernel + cell_bias), as the project's notes have
    it (section 5.2), which is nobody's usual LSTM; either may be left out.
    initial: (h, c), each [B, H], zeros without. Returns the outputs h [B, T, H] and the last (h, c).
    Raises UsageError for shapes that do not fit and lengths beyond T.
    """
    _check_extra(recurrent, cell_kernel=cell_kernel, cell_bias=cell_bias)
    weights = (recurrent, cell_kernel, cell_bias)
    outputs, (h, c) = _run(_LSTM(), x, kernel, weights, bias, initial, lengths, reverse)
    return outputs, (h, c)


def gru(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    candidate_bias: jax.Array | None = None,
    initial: jax.Array | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    reset_after: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder": gates r and z, candidate n.

    r = sigmoid(x_r + h W_r), z = sigmoid(x_z + h W_z), h' = (1 - z) n + z h (Bahdanau et al. 2015 swap z and 1 - z),
    where x_. = x kernel + bias; kernel [I, 3 H], recurrent [H, 3 H], bias [3 H], in torch's order r, z, n.
    reset_after: n = tanh(x_n + r (h W_n + candidate_bias)), as torch and cuDNN have it; False is the paper's
    n = tanh(x_n + (r h) W_n), which has no candidate_bias [H].
    initial: [B, H], zeros without. Returns the outputs h [B, T, H] and the last one.
    Raises UsageError for shapes that do not fit and lengths beyond T.
    """
    if candidate_bias is not None and not reset_after:
        raise UsageError('reset_after=False has no candidate_bias; leave it out')
    _check_extra(recurrent, candidate_bias=candidate_bias)
    before = None if initial is None else (initial,)
    weights = (recurrent, candidate_bias) if reset_after else (recurrent,)
    cell = _GRU() if reset_after else _ChoGRU()
    outputs, (state,) = _run(cell, x, kernel, weights, bias, before, lengths, reverse)
    return outputs, state


# --- the cells: one step there and back ---------------------------------------------------------------------------


class _Cell(Protocol):
    gates: int

    def weights(self, form: '_Form', weights: tuple, back: bool) -> tuple:
        """The weights as steps forward, or back, meet them."""

    def step(self, form: '_Form', w: tuple, z: tuple, state: State) -> tuple[State, tuple]:
        """The state after z = x kernel + bias of each gate, and what `back` wants to see again."""

    def back(self, form: '_Form', w: tuple, saved: tuple, before: State, dstate: State) -> tuple[State, Any, tuple]:
        """The gradients of the state before and, joined, of z; and what else `gradients` wants."""

    def gradients(self, form: '_Form', saved: tuple, before: State, dz: Any, more: tuple, weights: tuple) -> tuple:
        """The gradients of the weights and, joined, of z, from everything at all steps."""


class _RNN(NamedTuple):
    activation: str
    gates: int = 1

    def weights(self, form, weights, back):
        return (form.weights(weights[0], back),)

    def step(self, form, w, z, state):
        (a,) = form.times(state[0], w[0])
        s = ACTIVATIONS[self.activation](z[0] + a)
        return (s,), (s,)

    def back(self, form, w, saved, before, dstate):
        dz = form.join((dstate[0] * _SLOPES[self.activation](saved[0]),))
        return (form.times_back(dz, w[0]),), dz, ()

    def gradients(self, form, saved, before, dz, more, weights):
        return (form.outer(before[0], dz),), dz


_SLOPES = {  # of an activation, by its value
    'tanh': lambda s: 1 - s * s,
    'relu': lambda s: (s > 0).astype(s.dtype),
    'sigmoid': lambda s: s * (1 - s),
    'linear': jnp.ones_like,
}


class _LSTM(NamedTuple):
    gates: int = 4

    def weights(self, form, weights, back):
        recurrent, kernel, bias = weights
        kernel = None if kernel is None else form.weights(kernel, back)
        return form.weights(recurrent, back), kernel, None if bias is None else form.row(bias)

    def step(self, form, w, z, state):
        h, c = state
        i, f, g, o = (x + a for x, a in zip(z, form.times(h, w[0]), strict=True))
        i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
        c = f * c + i * g
        m = c if w[1] is None else form.times(c, w[1])[0]
        m = jnp.tanh(m if w[2] is None else m + w[2])
        return (o * m, c), (i, f, g, o, m)

    def back(self, form, w, saved, before, dstate):
        (i, f, g, o, m), (dh, dc), c = saved, dstate, before[1]
        do = dh * m * o * (1 - o)
        dm = dh * o * (1 - m * m)
        dc = dc + (dm if w[1] is None else form.times_back(form.join((dm,)), w[1]))
        dz = form.join((dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), do))
        more = () if w[1] is None and w[2] is None else (form.join((dm,)),)
        return (form.times_back(dz, w[0]), dc * f), dz, more

    def gradients(self, form, saved, before, dz, more, weights):
        i, f, g, *_ = saved
        kernel = None if weights[1] is None else form.outer(f * before[1] + i * g, more[0])
        bias = None if weights[2] is None else form.total(more[0])
        return (form.outer(before[0], dz), kernel, bias), dz


class _GRU(NamedTuple):
    """The reset after the product."""

    gates: int = 3

    def weights(self, form, weights, back):
        recurrent, bias = weights
        return form.weights(recurrent, back), None if bias is None else form.row(bias)

    def step(self, form, w, z, state):
        h = state[0]
        r, u, q = form.times(h, w[0])
        q = q if w[1] is None else q + w[1]
        r, u = sigmoid(z[0] + r), sigmoid(z[1] + u)
        n = jnp.tanh(z[2] + r * q)
        return (n + u * (h - n),), (r, u, n, q)

    def back(self, form, w, saved, before, dstate):
        (r, u, n, q), h, dh = saved, before[0], dstate[0]
        dn = dh * (1 - u) * (1 - n * n)
        dr, du = dn * q * r * (1 - r), dh * (h - n) * u * (1 - u)
        da = form.join((dr, du, dn * r))
        return (dh * u + form.times_back(da, w[0]),), da, (dn,)

    def gradients(self, form, saved, before, dz, more, weights):
        dr, du, dq = form.split(dz, 3)
        bias = None if weights[1] is None else form.total(form.join((dq,)))
        return (form.outer(before[0], dz), bias), form.join((dr, du, more[0]))


class _ChoGRU(NamedTuple):
    """The reset before the product."""

    gates: int = 3

    def weights(self, form, weights, back):
        gates, candidate = jnp.split(weights[0], [2 * weights[0].shape[0]], 1)
        return form.weights(gates, back), form.weights(candidate, back)

    def step(self, form, w, z, state):
        h = state[0]
        r, u = (sigmoid(x + a) for x, a in zip(z[:2], form.times(h, w[0]), strict=True))
        n = jnp.tanh(z[2] + form.times(r * h, w[1])[0])
        return (n + u * (h - n),), (r, u, n)

    def back(self, form, w, saved, before, dstate):
        (r, u, n), h, dh = saved, before[0], dstate[0]
        dn = dh * (1 - u) * (1 - n * n)
        d = form.times_back(form.join((dn,)), w[1])  # of r h
        dr, du = d * h * r * (1 - r), dh * (h - n) * u * (1 - u)
        return (dh * u + d * r + form.times_back(form.join((dr, du)), w[0]),), form.join((dr, du, dn)), ()

    def gradients(self, form, saved, before, dz, more, weights):
        dr, du, dn = form.split(dz, 3)
        gates = form.outer(before[0], form.join((dr, du)))
        candidate = form.outer(saved[0] * before[0], form.join((dn,)))
        return (jnp.concatenate([gates, candidate], 1),), dz


# --- the forms: how a step's arrays lie, and how they meet the weights ---------------------------------------------


class _Form(Protocol):
    """`joined` is what n gates are in one piece, in the form's own way."""

    def turned(self, rows: jax.Array) -> jax.Array:
        """[.., B, H] to the form's order of axes, and back."""

    def row(self, bias: jax.Array) -> jax.Array:
        """[H] to what adds to a state."""

    def project(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None, gates: int) -> Any:
        """x [T, B, I], kernel [I, n H] -> joined, [T, ..]"""

    def weights(self, w: jax.Array, back: bool) -> Any:
        """[H, n H] for `times`, or for `times_back`."""

    def times(self, h: jax.Array, w: Any) -> Sequence[jax.Array]:
        """h w, by gates."""

    def times_back(self, joined: Any, w: Any) -> jax.Array:
        """joined w^T."""

    def split(self, joined: Any, gates: int) -> Sequence[jax.Array]: ...

    def join(self, z: Sequence[jax.Array]) -> Any: ...

    def outer(self, h: jax.Array, joined: Any) -> jax.Array:
        """The sum of h_t^T joined_t over all steps: [H, n H]."""

    def total(self, joined: Any) -> jax.Array:
        """The sum of joined over steps and sequences: [n H]."""


class _Whole(NamedTuple):
    """States [B, H], all gates in one product: what TPU and GPU want."""

    def turned(self, rows):
        return rows

    def row(self, bias):
        return bias

    def project(self, x, kernel, bias, gates):
        y = dense.product(x, kernel)
        return y if bias is None else y + bias

    def weights(self, w, back):
        return w.T if back else w

    def times(self, h, w):
        return self.split(_product(h, w), w.shape[1] // w.shape[0])

    def times_back(self, joined, w):
        return _product(joined, w)

    def split(self, joined, gates):
        return jnp.split(joined, gates, -1)

    def join(self, z):
        return jnp.concatenate(z, -1)

    def outer(self, h, joined):
        return _product(h.reshape(-1, h.shape[-1]).T, joined.reshape(-1, joined.shape[-1]))

    def total(self, joined):
        return joined.sum((0, 1))


class _Gates(NamedTuple):
    """States [B, H], a product for each gate: XLA:CPU's loop then has no slices of a product to read again."""

    def turned(self, rows):
        return rows

    def row(self, bias):
        return bias

    def project(self, x, kernel, bias, gates):
        kernels = jnp.split(kernel, gates, 1)
        biases = [None] * gates if bias is None else jnp.split(bias, gates)
        return tuple(_Whole().project(x, k, b, 1) for k, b in zip(kernels, biases, strict=True))

    def weights(self, w, back):
        parts = jnp.split(w, w.shape[1] // w.shape[0], 1)
        return tuple(p.T for p in parts) if back else tuple(parts)

    def times(self, h, w):
        return [_product(h, each) for each in w]

    def times_back(self, joined, w):
        return sum(_product(z, each) for z, each in zip(joined, w, strict=True))

    def split(self, joined, gates):
        return joined

    def join(self, z):
        return tuple(z)

    def outer(self, h, joined):
        return jnp.concatenate([_Whole().outer(h, z) for z in joined], 1)

    def total(self, joined):
        return jnp.concatenate([z.sum((0, 1)) for z in joined])


class _Columns(NamedTuple):
    """States [H, B], all gates in one product with the weights on the left: XLA:CPU's fastest for large weights."""

    def turned(self, rows):
        return rows.swapaxes(-1, -2)

    def row(self, bias):
        return bias[:, None]

    def project(self, x, kernel, bias, gates):
        return _Whole().project(x, kernel, bias, gates).swapaxes(1, 2)

    def weights(self, w, back):
        return w if back else w.T

    def times(self, h, w):
        return self.split(_product(w, h), w.shape[0] // w.shape[1])

    def times_back(self, joined, w):
        return _product(w, joined)

    def split(self, joined, gates):
        return jnp.split(joined, gates, -2)

    def join(self, z):
        return jnp.concatenate(z, -2)

    def outer(self, h, joined):
        return _Whole().outer(self.turned(h), self.turned(joined))

    def total(self, joined):
        return joined.sum((0, 2))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b in the narrower of their types, summed in float32 at least."""
    kind = a.dtype if a.dtype.itemsize < b.dtype.itemsize else b.dtype
    return jnp.matmul(a.astype(kind), b.astype(kind), preferred_element_type=_wide(kind))


def _wide(kind: Any) -> Any:
    return jnp.promote_types(kind, jnp.float32)


def _form(hidden: int) -> _Form:
    """By measurement (benchmarks/recurrence.py)."""
    if not cpu_form():
        return _Whole()
    return _Gates() if hidden < 400 else _Columns()


# --- the loop -----------------------------------------------------------------------------------------------------


def _run(cell, x, kernel, weights, bias, initial, lengths, reverse) -> tuple[jax.Array, State]:
    hidden = _check(cell.gates, x, kernel, weights[0], bias)
    rows, steps = x.shape[:2]
    form, kind = _form(hidden), _wide(kernel.dtype)
    count = 2 if isinstance(cell, _LSTM) else 1
    if initial is None:
        initial = (jnp.zeros((rows, hidden), kind),) * count
    if len(initial) != count or any(s.shape != (rows, hidden) for s in initial):
        raise UsageError(f'initial {[s.shape for s in initial]} should be {count} of {(rows, hidden)}')
    x, mask = x.swapaxes(0, 1), _mask(lengths, rows, steps)
    if mask is not None:
        x = jnp.where(mask, x, 0)
    state = tuple(form.turned(s.astype(kind)) for s in initial)
    turned = None if mask is None else form.turned(mask)
    z = form.project(x.astype(kernel.dtype), kernel, bias, cell.gates)
    outputs, state = _scan(cell, form, reverse, z, weights, state, turned)
    outputs = form.turned(outputs)
    if mask is not None:
        outputs = jnp.where(mask, outputs, 0)
    return outputs.astype(kernel.dtype).swapaxes(0, 1), tuple(form.turned(s) for s in state)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(cell: _Cell, form: _Form, reverse: bool, z: Any, weights: tuple, state: State, mask: jax.Array | None):
    """The states h at all steps, and the last state."""
    (outputs, state), _ = _there(cell, form, reverse, z, weights, state, mask, False)
    return outputs, state


def _there(cell, form, reverse, z, weights, state, mask, keep=True):
    w = cell.weights(form, weights, back=False)

    def step(state, now):
        z, mask = now
        z = tuple(x.astype(state[0].dtype) for x in form.split(z, cell.gates))
        new, saved = cell.step(form, w, z, state)
        new = _where(mask, new, state)
        return new, (new[0], (saved, state) if keep else None)

    last, (outputs, seen) = lax.scan(step, state, (z, mask), reverse=reverse)
    like = jax.tree.map(lambda x: jnp.zeros((), x.dtype), z)
    return (outputs, last), (seen, weights, mask, like)


def _back(cell, form, reverse, residuals, gradients):
    (saved, before), weights, mask, like = residuals
    doutputs, dstate = gradients
    w = cell.weights(form, weights, back=True)
    kind = jax.tree.leaves(like)[0].dtype

    def step(dstate, now):
        dh, saved, before, mask = now
        dstate = (dstate[0] + dh, *dstate[1:])
        new, dz, more = cell.back(form, w, saved, before, dstate)
        dz, more = _where(mask, (dz, more), jax.tree.map(jnp.zeros_like, (dz, more)))
        return _where(mask, new, dstate), jax.tree.map(lambda d: d.astype(kind), (dz, more))

    dstate, (dz, more) = lax.scan(step, dstate, (doutputs, saved, before, mask), reverse=not reverse)
    dweights, dz = cell.gradients(form, saved, before, dz, more, weights)
    return dz, jax.tree.map(lambda d, w: d.astype(w.dtype), dweights, weights), dstate, None


_scan.defvjp(_there, _back)


def _where(mask: jax.Array | None, new: Any, old: Any) -> Any:
    return new if mask is None else jax.tree.map(lambda n, o: jnp.where(mask, n, o), new, old)


def _mask(lengths: jax.Array | None, rows: int, steps: int) -> jax.Array | None:
    """[T, B, 1]: does the sequence reach this step?"""
    if lengths is None:
        return None
    lengths = check_lengths(lengths, rows, steps)
    return (jnp.arange(steps)[:, None] < lengths)[..., None]


def check_lengths(lengths: Any, rows: int, steps: int) -> jax.Array:
    """Raises UsageError unless lengths are [B] integers, and within 0 and T where they are no tracers."""
    known = not isinstance(lengths, Tracer)
    lengths = np.asarray(lengths) if known else lengths
    if lengths.shape != (rows,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise UsageError(f'lengths {lengths.dtype}{list(lengths.shape)} should be integers, one for each of {rows}')
    if known and rows and (lengths.min() < 0 or lengths.max() > steps):
        raise UsageError(f'lengths from {lengths.min()} to {lengths.max()} should be within the {steps} steps given')
    return jnp.asarray(lengths)


def _check(gates: int, x: jax.Array, kernel: jax.Array, recurrent: jax.Array, bias: jax.Array | None) -> int:
    """H. Raises UsageError for shapes that do not fit."""
    if x.ndim != 3:
        raise UsageError(f'a recurrence takes sequences [B, T, I], not {x.shape}')
    if recurrent.ndim != 2 or not recurrent.shape[0] or recurrent.shape[1] != gates * recurrent.shape[0]:
        raise UsageError(f'recurrent {recurrent.shape} should be [H, {gates} H]')
    hidden, width = recurrent.shape
    if kernel.shape != (x.shape[-1], width):
        raise UsageError(f'kernel {kernel.shape} should be {(x.shape[-1], width)}: [I, {gates} H]')
    if bias is not None and bias.shape != (width,):
        raise UsageError(f'bias {bias.shape} should be {(width,)}: [{gates} H]')
    return hidden


def _check_extra(recurrent: jax.Array, **extra: jax.Array | None) -> None:
    """Raises UsageError unless kernels are [H, H] and biases [H]."""
    for name, value in extra.items():
        shape = recurrent.shape[:1] * (2 if name.endswith('kernel') else 1)
        if value is not None and value.shape != shape:
            raise UsageError(f'{name} {value.shape} should be {shape}, as recurrent {recurrent.shape} has it')
