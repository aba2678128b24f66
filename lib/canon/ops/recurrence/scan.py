"""The loop over time: a scan with a backward pass of its own, masks and checks of shapes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from canon.errors import UsageError
from canon.ops.recurrence.cells import Cell, State
from canon.ops.recurrence.layouts import Layout, accumulator_type, choose_layout
from canon.ops.recurrence.native import choose_kernel, run_kernel


def run_cell(
    cell: Cell,
    x: jax.Array,
    kernel: jax.Array,
    weights: tuple,
    bias: jax.Array | None,
    initial: State | None,
    lengths: jax.Array | None,
    reverse: bool,
) -> tuple[jax.Array, State]:
    """Runs a cell over sequences x [B, T, I]; the arguments are those of `lstm`.

    weights: the recurrent kernel [H, n H] and what else the cell has. Returns the outputs [B, T, H] in the kernel's
    type, and the last state.
    """
    hidden = _check_shapes(cell.gates, x, kernel, weights[0], bias)
    rows, steps = x.shape[:2]
    layout, dtype = choose_layout(hidden), accumulator_type(kernel.dtype)
    if initial is None:
        initial = (jnp.zeros((rows, hidden), dtype),) * cell.states
    if len(initial) != cell.states or any(s.shape != (rows, hidden) for s in initial):
        raise UsageError(f'initial {[s.shape for s in initial]} should be {cell.states} of {(rows, hidden)}')
    valid = _valid_steps(lengths, rows, steps)
    if valid is not None:
        x = jnp.where(valid, x, 0)  # what is not a number in the padding would pass through the product's gradient
    x, initial = x.astype(kernel.dtype), tuple(s.astype(dtype) for s in initial)
    if name := choose_kernel(cell, kernel, weights):
        outputs, state = run_kernel(name, x, kernel, weights, bias, initial, lengths, reverse)
    else:
        outputs, state = _run_scan(cell, layout, x, kernel, weights, bias, initial, valid, reverse)
    if valid is not None:
        outputs = jnp.where(valid, outputs, 0)
    return outputs.astype(kernel.dtype), state


def _run_scan(cell, layout, x, kernel, weights, bias, initial, valid, reverse):
    mask = None if valid is None else layout.transpose(valid.swapaxes(0, 1))
    # The products of all steps at once, outside the loop.
    z = layout.project(x.swapaxes(0, 1), kernel, bias, cell.gates)
    state = tuple(layout.transpose(s) for s in initial)
    outputs, state = _scan(cell, layout, reverse, z, weights, state, mask)
    return layout.transpose(outputs).swapaxes(0, 1), tuple(layout.transpose(s) for s in state)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(cell: Cell, layout: Layout, reverse: bool, z: Any, weights: tuple, state: State, mask: jax.Array | None):
    """Returns the first array of the state at all steps, and the last state."""
    (outputs, state), _ = _scan_forward(cell, layout, reverse, z, weights, state, mask, save=False)
    return outputs, state


def _scan_forward(cell, layout, reverse, z, weights, state, mask, save=True):
    w = cell.arrange(layout, weights, transposed=False)

    def step(state, now):
        z, mask = now
        z = tuple(x.astype(state[0].dtype) for x in layout.split(z, cell.gates))
        new, saved = cell.forward(layout, w, z, state)
        new = _select(mask, new, state)
        # Without a gradient only the outputs are stacked: no step's activations stay in memory.
        return new, (new[0], (saved, state) if save else None)

    last, (outputs, residuals) = lax.scan(step, state, (z, mask), reverse=reverse)
    dtypes = jax.tree.map(lambda x: jnp.zeros((), x.dtype), z)  # of the gradient; z itself is not needed
    return (outputs, last), (residuals, weights, mask, dtypes)


def _scan_backward(cell, layout, reverse, residuals, gradients):
    (saved, old), weights, mask, dtypes = residuals
    doutputs, dstate = gradients
    w = cell.arrange(layout, weights, transposed=True)
    dtype = jax.tree.leaves(dtypes)[0].dtype

    def step(dstate, now):
        doutput, saved, old, mask = now
        dstate = (dstate[0] + doutput, *dstate[1:])
        dold, dz, extra = cell.backward(layout, w, saved, old, dstate)
        # The weights' gradient sums over all steps, to which padding must contribute zeros.
        dz, extra = _select(mask, (dz, extra), jax.tree.map(jnp.zeros_like, (dz, extra)))
        # Stacked in the type of z, which halves what bfloat16 has to store.
        return _select(mask, dold, dstate), jax.tree.map(lambda d: d.astype(dtype), (dz, extra))

    dstate, (dz, extra) = lax.scan(step, dstate, (doutputs, saved, old, mask), reverse=not reverse)
    dweights, dz = cell.weight_gradients(layout, saved, old, dz, extra, weights)
    return dz, jax.tree.map(lambda d, w: d.astype(w.dtype), dweights, weights), dstate, None


_scan.defvjp(_scan_forward, _scan_backward)


def _select(mask: jax.Array | None, new: Any, old: Any) -> Any:
    return new if mask is None else jax.tree.map(lambda n, o: jnp.where(mask, n, o), new, old)


def _valid_steps(lengths: jax.Array | None, rows: int, steps: int) -> jax.Array | None:
    """Returns which steps are within each sequence, [B, T, 1]; None if all are."""
    if lengths is None:
        return None
    lengths = check_lengths(lengths, rows, steps)
    return (jnp.arange(steps) < lengths[:, None])[..., None]


def check_lengths(lengths: Any, rows: int, steps: int) -> jax.Array:
    """Returns lengths [B] as an array.

    Raises UsageError unless they are integers, and within 0 and T if they are known when the program is traced; those
    that are not known then count as T beyond it.
    """
    is_concrete = not isinstance(lengths, Tracer)
    lengths = np.asarray(lengths) if is_concrete else lengths
    if lengths.shape != (rows,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise UsageError(f'lengths {lengths.dtype}{list(lengths.shape)} should be integers, one for each of {rows}')
    if is_concrete and rows and (lengths.min() < 0 or lengths.max() > steps):
        raise UsageError(f'lengths from {lengths.min()} to {lengths.max()} should be within the {steps} steps given')
    return jnp.asarray(lengths)


def _check_shapes(gates: int, x: jax.Array, kernel: jax.Array, recurrent: jax.Array, bias: jax.Array | None) -> int:
    """Returns H. Raises UsageError for shapes that do not fit."""
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
