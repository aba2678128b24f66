"""Pooling of images [B, H, W, C]: maximum and average over windows under every padding convention, adaptive average."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon.ops.padding import Padding, outputs, pads, pair, sides


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
    window, stride = pair(window, 'window'), pair(window if stride is None else stride, 'stride')
    rows = pads(padding, images.shape[1:3], window, stride, ceil_mode=ceil_mode)
    least = -jnp.inf if jnp.issubdtype(images.dtype, jnp.floating) else jnp.iinfo(images.dtype).min
    return lax.reduce_window(
        images, jnp.array(least, images.dtype), lax.max, (1, *window, 1), (1, *stride, 1), ((0, 0), *rows, (0, 0))
    )


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
    window, stride = pair(window, 'window'), pair(window if stride is None else stride, 'stride')
    size = images.shape[1:3]
    rows = pads(padding, size, window, stride, ceil_mode=ceil_mode)
    total = lax.reduce_window(
        images, jnp.zeros((), images.dtype), lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *rows, (0, 0))
    )
    asked = sides(padding, size, window, stride) if count_include_pad else ((0, 0), (0, 0))
    valid = [(-low, n + high) for n, (low, high) in zip(size, asked, strict=True)]
    counted = outputs(rows, size, window, stride)
    counts = [_counts(*a) for a in zip(window, stride, rows, counted, valid, strict=True)]
    return total / jnp.asarray(np.outer(*counts)[:, :, None], images.dtype)


def adaptive_avg_pool(images: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """To [B, *size, C]: cell i of o is the mean of rows floor(i n / o) .. ceil((i + 1) n / o), as torch cuts them."""
    size = pair(size)
    if size == (1, 1):
        return images.mean((1, 2), keepdims=True)
    if images.shape[1:3] == size:
        return images
    down, across = (jnp.asarray(_cells(n, o), images.dtype) for n, o in zip(images.shape[1:3], size, strict=True))
    return jnp.einsum('oh,bhwc,pw->bopc', down, images, across)


def _counts(k: int, s: int, rows: tuple[int, int], count: int, valid: tuple[int, int]) -> np.ndarray:
    """How many of each window's rows lie within `valid`."""
    first = np.arange(count) * s - rows[0]
    return np.minimum(first + k, valid[1]) - np.maximum(first, valid[0])


def _cells(n: int, o: int) -> np.ndarray:
    first, last = np.arange(o) * n // o, -(-(np.arange(o) + 1) * n // o)
    inside = (np.arange(n) >= first[:, None]) & (np.arange(n) < last[:, None])
    return inside / (last - first)[:, None]
