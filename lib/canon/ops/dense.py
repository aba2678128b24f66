"""Products with a matrix of weights, of arrays with many leading axes."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
from jax import lax

from canon.backend import cpu_form

Numbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]


def dot_general(x: jax.Array, kernel: jax.Array, numbers: Numbers, *args: Any, **keywords: Any) -> jax.Array:
    """`jax.lax.dot_general`, for linen's Dense and DenseGeneral: on a CPU with x's free axes as one.

    XLA:CPU's gradient of the kernel turns the operands about in memory where it sums over more than one axis.
    """
    (ours, theirs), batch = numbers
    k = len(ours)
    last = tuple(ours) == tuple(range(x.ndim - k, x.ndim)) and tuple(theirs) == tuple(range(k))
    if not cpu_form() or not last or any(map(len, batch)) or x.ndim - k < 2:
        return lax.dot_general(x, kernel, numbers, *args, **keywords)
    size = prod(kernel.shape[:k])
    rows, matrix = x.reshape(-1, size), kernel.reshape(size, -1)
    y = lax.dot_general(rows, matrix, (((1,), (0,)), ((), ())), *args, **keywords)
    return y.reshape(*x.shape[: x.ndim - k], *kernel.shape[k:])


def product(x: jax.Array, kernel: jax.Array, kind: Any = None) -> jax.Array:
    """x [.., C], kernel [C, D] -> [.., D], of the type `kind`: theirs without."""
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=kind)
