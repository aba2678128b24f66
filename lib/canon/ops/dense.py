"""Products of arrays that have several leading axes with a matrix of weights."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
from jax import lax

from canon.backend import cpu_form

Numbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]


def dot_general(x: jax.Array, kernel: jax.Array, numbers: Numbers, *args: Any, **keywords: Any) -> jax.Array:
    """Computes `jax.lax.dot_general`, for linen's Dense and DenseGeneral; on a CPU with the free axes of x merged.

    The gradient of the kernel sums over the free axes. If there are several, XLA:CPU transposes both operands in memory
    first; with one it calls a matrix product directly.

    Args:
      x: [..., C...].
      kernel: [C..., D...].
      numbers: contracted and batch axes of both, as of `jax.lax.dot_general`. Other contractions than that of the last
        axes of x with the first of the kernel are passed on.
      *args: of `jax.lax.dot_general`.
      **keywords: of `jax.lax.dot_general`.
    """
    (x_axes, kernel_axes), batch = numbers
    k = len(x_axes)
    plain = tuple(x_axes) == tuple(range(x.ndim - k, x.ndim)) and tuple(kernel_axes) == tuple(range(k))
    # With fewer than two free axes there is nothing to merge.
    if not cpu_form() or not plain or any(map(len, batch)) or x.ndim - k < 2:
        return lax.dot_general(x, kernel, numbers, *args, **keywords)
    size = prod(kernel.shape[:k])
    # Neighbouring axes are merged, so the reshapes move nothing in memory.
    rows, matrix = x.reshape(-1, size), kernel.reshape(size, -1)
    y = lax.dot_general(rows, matrix, (((1,), (0,)), ((), ())), *args, **keywords)
    return y.reshape(*x.shape[: x.ndim - k], *kernel.shape[k:])


def product(x: jax.Array, kernel: jax.Array, kind: Any = None) -> jax.Array:
    """Returns x [..., C] times a kernel [C, D], [..., D], in the type `kind`; in that of the inputs if None.

    The gradient is rounded to the type of the inputs before its products, as in any layer of bfloat16: a product of
    float32 with bfloat16 would take the time of float32, and the output layer of a large vocabulary is the largest.
    With a `kind` of another type only reverse mode is defined.
    """
    if kind is None or kind == x.dtype:
        return _multiply(x, kernel, None)
    return _multiply_wide(x, kernel, kind)


def _multiply(x, kernel, kind):
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=kind)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply_wide(x, kernel, kind):
    return _multiply(x, kernel, kind)


def _forward(x, kernel, kind):
    return _multiply(x, kernel, kind), (x, kernel)


def _backward(kind, residuals, dy):
    x, kernel = residuals
    return jax.vjp(lambda x, kernel: _multiply(x, kernel, None), x, kernel)[1](dy.astype(x.dtype))


_multiply_wide.defvjp(_forward, _backward)
