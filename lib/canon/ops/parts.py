"""A function of many rows, worked through part by part, so that what it holds on the way stays small."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def by_parts(function: Callable[[Any], Any], rows: Any, size: int, axis: int = 0) -> Any:
    """function(rows), asked for `size` rows at a time. What it gives for a row must depend on that row alone.

    rows, and what the function gives: trees of arrays that all have rows along `axis`. The last part is filled up with
    the first rows. Where there are no more than `size`, the function is asked as it is.
    """
    count = jax.tree.leaves(rows)[0].shape[axis]
    size = min(size, count)
    if size == count:
        return function(rows)
    whole = -(-count // size) * size

    def cut(x):
        x = jnp.moveaxis(x, axis, 0)
        filled = jnp.concatenate((x, x[: whole - count]))
        return jnp.moveaxis(filled.reshape(-1, size, *x.shape[1:]), 1, axis + 1)

    def joined(x):
        x = jnp.moveaxis(x, axis + 1, 1)
        return jnp.moveaxis(x.reshape(whole, *x.shape[2:])[:count], 0, axis)

    return jax.tree.map(joined, jax.lax.map(function, jax.tree.map(cut, rows)))
