"""`Mean`: a sum and its weight, so that means add without error whatever the batches' sizes."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.metrics.rows import Rows


class Mean(NamedTuple):
    """A weighted mean in parts. `a + b` is the mean of both sets, exactly."""

    total: Any
    weight: Any

    def __add__(self, other: Mean) -> Mean:  # ty: ignore[incompatible-method-override]
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> Any:
        """total / weight; NaN where nothing was weighed."""
        return self.total / self.weight

    @classmethod
    def of(cls, values: jax.Array, mask: jax.Array | None = None) -> Mean:
        """The mean of `values` [B, ...] over the rows where `mask` [B] is true (all rows without one).

        A mask of floats weighs the rows: sum w v / sum w. Masked values do not count even where they are NaN: padding
        rows may hold anything.
        """
        values = jnp.asarray(values)
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        if mask is None:
            return cls(values.sum(), jnp.full((), values.size, values.dtype))
        weights = broadcast_mask(jnp.asarray(mask), values.shape).astype(values.dtype)
        return cls(jnp.where(weights != 0, weights * values, 0).sum(), weights.sum())


def broadcast_mask(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`mask` [B] (any leading axes) as `shape` [B, ...]: NumPy's own rule would align B with the *last* axis."""
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def add(a: Any, b: Any) -> Any:
    """The sum of two trees of accumulators (`Mean`s, counts, histograms, `Rows`), leaf by leaf."""
    return jax.tree.map(operator.add, a, b, is_leaf=lambda x: isinstance(x, Rows))
