"""Lets one function run on numpy arrays and on JAX arrays: the trackers' host form and their compiled form."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # np.ndarray or jax.Array: a function returns the kind that it is given


def array_module(*arrays: Array) -> ModuleType:
    """Returns `jax.numpy` if any of the arrays is one of JAX (traced ones too), else `numpy`."""
    for array in arrays:  # numpy first: a look for `jax.Array` takes longer than the arithmetic on a few dozen boxes
        if not isinstance(array, np.ndarray) and isinstance(array, jax.Array):
            return jnp
    return np


def stack_parts(parts: Sequence[Array], axis: Literal[-1, -2]) -> Array:
    """Stacks arrays along a new last axis, or the one before; several times faster than `np.stack` for small ones."""
    first = parts[0]
    if array_module(first) is jnp:
        return jnp.stack(parts, axis)
    if axis == -1:
        stacked = np.empty((*first.shape, len(parts)), first.dtype)
        for i, part in enumerate(parts):
            stacked[..., i] = part
        return stacked
    # In memory the parts lie one after the other: arithmetic on a part is then twice as fast as on strided rows.
    memory = np.empty((len(parts), *first.shape), first.dtype)
    for i, part in enumerate(parts):
        memory[i] = part
    return memory.transpose(*range(1, first.ndim), 0, first.ndim)


def mix_columns(values: Array, matrix: np.ndarray) -> Array:
    """Multiplies the last axis [..., N] by a constant matrix [N, M] of few terms.

    One product for numpy, whose calls cost more than their arithmetic; sums of columns for JAX, which fuses them and
    computes them in full precision on every device.
    """
    if array_module(values) is np:
        return values.dot(matrix)
    columns = []
    for weights in matrix.T:
        terms = [values[..., i] if w == 1 else values[..., i] * float(w) for i, w in enumerate(weights) if w]
        columns.append(sum(terms[1:], terms[0]))
    return jnp.stack(columns, -1)


def replace_last(values: Array, *columns: Array) -> Array:
    """Returns `values` [..., N] with other last columns, each [...]."""
    if array_module(values) is np:
        values = values.copy()
        for i, column in enumerate(columns, values.shape[-1] - len(columns)):
            values[..., i] = column
        return values
    return jnp.concatenate([values[..., : -len(columns)], jnp.stack(columns, -1)], -1)


def take_rows(values: Array, index: Array) -> Array:
    """Returns values[index] along the first axis; `take` of numpy is twice as fast as its indexing."""
    return values.take(index, 0) if array_module(values) is np else values[index]


def select_rows(mask: Array, new: Array, old: Array) -> Array:
    """Takes the rows of `new` where `mask` [S] is True and those of `old` elsewhere, for arrays [S, ...]."""
    rows = mask.reshape(mask.shape + (1,) * (old.ndim - 1))
    if array_module(mask, new, old) is jnp:
        return jnp.where(rows, new, old)
    selected = old.copy('K')  # keeps the order in memory, which `np.where` does not
    np.copyto(selected, new, where=rows)
    return selected


def put_rows(values: Array, where: Array, new: Array) -> Array:
    """Returns `values` [S, ...] with other rows, of the same dtype.

    Args:
      values: of numpy or JAX.
      where: for numpy the indices [N] of the rows, for JAX, whose shapes are fixed, a mask [S] of them.
      new: [N, ...] or [S, ...], or a number.
    """
    if array_module(values) is np:
        values = values.copy('K')
        values[where] = new
        return values
    return select_rows(where, jnp.asarray(new, values.dtype), values)


def nth_true(mask: Array, ranks: Array) -> Array:
    """Returns the index in `mask` [D] of the True that `ranks` [S] counts from 0; D where there are fewer."""
    # Compares all pairs: for some dozens this is faster than a sort or a binary search, compiled or not.
    return (mask.cumsum()[None] <= ranks[:, None]).sum(1)
