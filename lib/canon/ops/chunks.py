"""Maps a function over many rows in chunks, so that its intermediate arrays stay small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_in_chunks(function: Callable[[Any], Any], rows: Any, size: int, axis: int = 0) -> Any:
    """Returns `function(rows)`, evaluated on `size` rows at a time.

    Args:
      function: maps a tree of arrays to a tree of arrays, each row independently of the others.
      rows: a tree of arrays that share the length of `axis`.
      size: rows per call. With as many rows or fewer the function is called once.
      axis: the axis of the rows, in the arguments and in the results.
    """
    count = jax.tree.leaves(rows)[0].shape[axis]
    size = min(size, count)
    if size == count:
        return function(rows)
    total = -(-count // size) * size

    # `lax.map` has a `batch_size`, but compiles the function once more for the remainder; padding compiles it once.
    def split(x):
        x = jnp.moveaxis(x, axis, 0)
        # Padded with the first rows and not with zeros: what is computed of them is dropped, but it may not be NaN
        # either.
        padded = jnp.concatenate((x, x[: total - count]))
        return jnp.moveaxis(padded.reshape(-1, size, *x.shape[1:]), 1, axis + 1)

    def join(x):
        x = jnp.moveaxis(x, axis + 1, 1)
        return jnp.moveaxis(x.reshape(total, *x.shape[2:])[:count], 0, axis)

    return jax.tree.map(join, jax.lax.map(function, jax.tree.map(split, rows)))
