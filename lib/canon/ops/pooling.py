"""Pooling of images [B, H, W, C]: maximum and average over windows under every padding convention, adaptive average."""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon import backend
from canon.errors import UsageError
from canon.ops.padding import Padding, Pair, pads, pair, sides
from canon.ops.shifts import MOST_TAPS, Windows, back, padded, shifted


def max_pool(
    images: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> jax.Array:
    """Maximum over windows, [B, H, W, C] -> [B, H', W', C]; padding never wins. stride: the window's without.

    A window larger than its stride overlaps (AlexNet). The gradient goes to the first maximum of a window, row by row.
    """
    window, stride = _windows(images, window, stride)
    rows = pads(padding, images.shape[1:3], window, stride, ceil_mode=ceil_mode)
    at = Windows(images.shape[1:3], window, stride, rows)
    if backend.cpu_form() and len(at.taps) <= MOST_TAPS:
        return _max_of_shifts(images, at)
    return _reduced(images, at, _least(images.dtype), lax.max)


def _windows(images: jax.Array, window: int | Sequence[int], stride: int | Sequence[int] | None) -> tuple[Pair, Pair]:
    if images.ndim != 4:
        raise UsageError(f'pooling takes images [B, H, W, C], not {images.shape}')
    return pair(window, 'window'), pair(window if stride is None else stride, 'stride')


def _least(dtype) -> np.ndarray:
    return np.array(-np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_shifts(images: jax.Array, at: Windows) -> jax.Array:
    """The form for XLA:CPU, whose select-and-scatter, the plain form's gradient, runs pixel by pixel on one core."""
    return reduce(jnp.maximum, shifted(padded(images, at.rows, _least(images.dtype)), at))


def _max_forward(images, at):
    first, *rest = shifted(padded(images, at.rows, _least(images.dtype)), at)
    most, which = first, jnp.zeros(first.shape, jnp.int8)
    for tap, x in enumerate(rest, 1):
        wins = (x > most) | jnp.isnan(x)
        most, which = jnp.where(wins, x, most), jnp.where(wins, jnp.int8(tap), which)
    return most, which


def _max_backward(at, which, dy):
    return (back([(dy, 0), (which, -1)], at, lambda tap, dy, which: jnp.where(which == tap, dy, 0)),)


_max_of_shifts.defvjp(_max_forward, _max_backward)


def avg_pool(
    images: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """Average over windows, [B, H, W, C] -> [B, H', W', C]. stride: the window's without.

    count_include_pad: divide by the pixels of a window with the padding that was asked for, as Caffe and torch do (what
    ceil_mode adds beyond it does not count), or by those of the image alone, as TensorFlow does.
    """
    window, stride = _windows(images, window, stride)
    size = images.shape[1:3]
    rows = pads(padding, size, window, stride, ceil_mode=ceil_mode)
    at = Windows(size, window, stride, rows)
    total = _sum(images.astype(jnp.promote_types(images.dtype, jnp.float32)), at)
    asked = sides(padding, size, window, stride) if count_include_pad else ((0, 0), (0, 0))
    valid = [(-low, n + high) for n, (low, high) in zip(size, asked, strict=True)]
    counts = [_counts(*a) for a in zip(window, stride, rows, at.out, valid, strict=True)]
    return (total / np.outer(*counts)[:, :, None].astype(total.dtype)).astype(images.dtype)


def _sum(images: jax.Array, at: Windows) -> jax.Array:
    if backend.cpu_form() and len(at.taps) <= MOST_TAPS:
        return _sum_of_shifts(images, at)
    return _reduced(images, at, np.zeros((), images.dtype), lax.add)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_of_shifts(images: jax.Array, at: Windows) -> jax.Array:
    return reduce(jnp.add, shifted(padded(images, at.rows), at))


_sum_of_shifts.defvjp(
    lambda images, at: (_sum_of_shifts(images, at), None),
    lambda at, _, dy: (back([(dy, 0)], at, lambda tap, dy: dy),),
)


def adaptive_avg_pool(images: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """To [B, *size, C]: cell i of o is the mean of rows floor(i n / o) .. ceil((i + 1) n / o), as torch cuts them."""
    size = pair(size)
    if images.ndim != 4:
        raise UsageError(f'pooling takes images [B, H, W, C], not {images.shape}')
    if size == (1, 1):
        return images.mean((1, 2), keepdims=True)
    if images.shape[1:3] == size:
        return images
    down, across = (jnp.asarray(_cells(n, o), images.dtype) for n, o in zip(images.shape[1:3], size, strict=True))
    return jnp.einsum('oh,bhwc,pw->bopc', down, images, across)


def _reduced(images: jax.Array, at: Windows, init: np.ndarray, op: Callable) -> jax.Array:
    """Rows that no window reaches are cut off first: the gradient of reduce_window knows no negative padding."""
    cut = [(min(low, 0), min(high, 0), 0) for low, high in at.rows]
    images = lax.pad(images, init, ((0, 0, 0), *cut, (0, 0, 0)))
    rows = [(max(low, 0), max(high, 0)) for low, high in at.rows]
    return lax.reduce_window(images, init, op, (1, *at.window, 1), (1, *at.stride, 1), ((0, 0), *rows, (0, 0)))


def _counts(k: int, s: int, rows: tuple[int, int], count: int, valid: tuple[int, int]) -> np.ndarray:
    """How many of each window's rows lie within `valid`; 1 where none does, whose sum is zero."""
    first = np.arange(count) * s - rows[0]
    return np.maximum(np.minimum(first + k, valid[1]) - np.maximum(first, valid[0]), 1)


def _cells(n: int, o: int) -> np.ndarray:
    first, last = np.arange(o) * n // o, -(-(np.arange(o) + 1) * n // o)
    inside = (np.arange(n) >= first[:, None]) & (np.arange(n) < last[:, None])
    return inside / (last - first)[:, None]
