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


def select_rows(mask: Array, new: Array, old: Array) -> Array:
    """Takes the rows of `new` where `mask` [S] is True and those of `old` elsewhere, for arrays [S, ...]."""
    xp = array_module(mask, new, old)
    return xp.where(mask.reshape(mask.shape + (1,) * (old.ndim - 1)), new, old)


def nth_true(mask: Array, ranks: Array) -> Array:
    """Returns the index in `mask` [D] of the True that `ranks` [S] counts from 0; D where there are fewer."""
    # Compares all pairs: for some dozens this is faster than a sort or a binary search, compiled or not.
    return (mask.cumsum()[None] <= ranks[:, None]).sum(1)
