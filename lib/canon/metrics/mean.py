"""`Mean`: a sum and its weight, so that means of batches add exactly, whatever the batches' sizes."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from canon.errors import UsageError
from canon.metrics.rows import Rows


class Mean(NamedTuple):
    """Holds a weighted mean as the sum of w v and the sum of w; `a + b` is the mean over both sets, exactly.

        >>> (Mean.of(jnp.array([1.0, 2.0])) + Mean.of(jnp.array([6.0]))).value
        Array(3., dtype=float32)

    Attributes:
      total: the sum of w v.
      weight: the sum of w.
      value: the mean, total / weight; NaN if the weight is zero.
    """

    total: Any
    weight: Any

    def __add__(self, other: Mean) -> Mean:  # ty: ignore[incompatible-method-override]
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> jax.Array:
        """total / weight; NaN if the weight is zero."""
        return self.total / self.weight

    def __float__(self) -> float:
        return float(self.value)

    @classmethod
    def of(cls, values: ArrayLike, mask: ArrayLike | None = None) -> Mean:
        """Averages `values` [...] where `mask` is true, over all of them if None.

        The mask has the leading axes of `values`: for values [B, H, W] a mask [B] selects rows, [B, H, W] elements. A
        mask of floats weights its elements: sum w v / sum w. Masked values may be NaN, as padding often is.

        Raises UsageError for a mask of any other shape.
        """
        values = jnp.asarray(values)
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))  # sums of bfloat16 stop growing early
        if mask is None:
            return cls(values.sum(), jnp.full((), values.size, values.dtype))
        weights = broadcast_mask(mask, values.shape).astype(values.dtype)
        # `where` and not the product alone: 0 times NaN is NaN.
        return cls(jnp.where(weights != 0, weights * values, 0).sum(), weights.sum())


def broadcast_mask(mask: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Repeats `mask` [B] (or any leading axes of `shape`) along the trailing axes, to `shape` [B, ...].

    NumPy's own rule aligns trailing axes: a mask [B] of label maps [B, H, B] would silently mask columns.

    Raises UsageError for a mask that has not the leading axes of `shape`.
    """
    mask = jnp.asarray(mask)
    if mask.shape != tuple(shape[: mask.ndim]):
        raise UsageError(f'mask {list(mask.shape)} must have the leading axes of the array it masks, {list(shape)}')
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def add(a: Any, b: Any) -> Any:
    """Adds two trees of accumulators (`Mean`s, counts, histograms, `Rows`), leaf by leaf."""
    # `Rows` grow by concatenation: their leaves must not be added.
    return jax.tree.map(operator.add, a, b, is_leaf=lambda x: isinstance(x, Rows))
