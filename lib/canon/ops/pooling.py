"""Pooling of images [B, H, W, C]: maximum and average over windows, under all padding conventions; adaptive average."""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon import backend, native
from canon.errors import UsageError
from canon.ops.padding import Padding, Pair, nominal_padding, pair, resolve_padding
from canon.ops.shifts import MAX_TAPS, Windows, pad_images, slice_taps, sum_over_taps


def max_pool(
    images: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> jax.Array:
    """Computes the maximum over windows, [B, H, W, C] -> [B, H', W', C].

    The gradient goes to the first maximum of a window, row by row.

    Args:
      images: [B, H, W, C].
      window: size, a number or (height, width).
      stride: between windows; None takes the window's size. Windows larger than their stride overlap (AlexNet).
      padding: a convention of `canon.ops.padding`; padded pixels never are the maximum.
      ceil_mode: rounds the number of windows up, as Caffe does.
    """
    window, stride = _resolve_window(images, window, stride)
    explicit = resolve_padding(padding, images.shape[1:3], window, stride, ceil_mode=ceil_mode)
    windows = Windows(images.shape[1:3], window, stride, explicit)
    if backend.cpu_form() and len(windows.taps) <= MAX_TAPS:
        is_native = images.dtype == jnp.float32 and native.is_available()
        return (_max_in_kernel if is_native else _max_of_shifts)(images, windows)
    return _reduce_window(images, windows, _lowest(images.dtype), lax.max)


def _resolve_window(
    images: jax.Array, window: int | Sequence[int], stride: int | Sequence[int] | None
) -> tuple[Pair, Pair]:
    _check_rank(images)
    return pair(window, 'window'), pair(window if stride is None else stride, 'stride')


def _check_rank(images: jax.Array) -> None:
    if images.ndim != 4:
        raise UsageError(f'pooling takes images [B, H, W, C], not {images.shape}')


def _lowest(dtype) -> np.ndarray:
    return np.array(-np.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_shifts(images: jax.Array, windows: Windows) -> jax.Array:
    """Computes the form for XLA:CPU, where the plain form's gradient, select-and-scatter, runs on one core."""
    # Without a gradient no argmax is needed: the maximum of the slices is one fused loop.
    return reduce(jnp.maximum, slice_taps(pad_images(images, windows.padding, _lowest(images.dtype)), windows))


def _max_forward(images, windows):
    first, *rest = slice_taps(pad_images(images, windows.padding, _lowest(images.dtype)), windows)
    largest, argmax = first, jnp.zeros(first.shape, jnp.int8)  # int8: at most MAX_TAPS taps, a quarter of the memory
    for tap, x in enumerate(rest, 1):
        wins = (x > largest) | jnp.isnan(x)  # strictly larger: the first maximum wins; NaN must not be lost
        largest, argmax = jnp.where(wins, x, largest), jnp.where(wins, jnp.int8(tap), argmax)
    return largest, argmax


def _max_backward(windows, argmax, dy):
    return (sum_over_taps([(dy, 0), (argmax, -1)], windows, lambda tap, dy, argmax: jnp.where(argmax == tap, dy, 0)),)


_max_of_shifts.defvjp(_max_forward, _max_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_in_kernel(images: jax.Array, windows: Windows) -> jax.Array:
    """Computes the form of `canon.native`, which makes no padded copy."""
    return _kernel_forward(images, windows)[0]


def _kernel_forward(images, windows):
    shape = (len(images), *windows.out, images.shape[-1])
    results = jax.ShapeDtypeStruct(shape, images.dtype), jax.ShapeDtypeStruct(shape, jnp.int8)
    twin = partial(_max_forward, windows=windows)
    return native.call('max_pool', twin, results, images, windows=windows.describe())


def _kernel_backward(windows, argmax, dy):
    result = jax.ShapeDtypeStruct((len(dy), *windows.size, dy.shape[-1]), dy.dtype)
    twin = lambda dy, argmax: _max_backward(windows, argmax, dy)[0]  # noqa: E731
    return (native.call('max_pool_gradient', twin, result, dy, argmax, windows=windows.describe()),)


_max_in_kernel.defvjp(_kernel_forward, _kernel_backward)


def avg_pool(
    images: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """Computes the average over windows, [B, H, W, C] -> [B, H', W', C].

    Args:
      images: [B, H, W, C].
      window: size, a number or (height, width).
      stride: between windows; None takes the window's size.
      padding: a convention of `canon.ops.padding`.
      ceil_mode: rounds the number of windows up, as Caffe does.
      count_include_pad: divides by the pixels of a window including the padding, as Caffe and torch do (pixels that
        `ceil_mode` adds beyond it do not count); False divides by those of the image alone, as TensorFlow does.
    """
    window, stride = _resolve_window(images, window, stride)
    size = images.shape[1:3]
    explicit = resolve_padding(padding, size, window, stride, ceil_mode=ceil_mode)
    windows = Windows(size, window, stride, explicit)
    # In float32 at least: a sum of 49 bfloat16 values would lose most of their digits.
    total = _sum(images.astype(jnp.promote_types(images.dtype, jnp.float32)), windows)
    counted = nominal_padding(padding, size, window, stride) if count_include_pad else ((0, 0), (0, 0))
    valid = [(-low, n + high) for n, (low, high) in zip(size, counted, strict=True)]
    counts = [_counts(*axis) for axis in zip(window, stride, explicit, windows.out, valid, strict=True)]
    # The counts are known without the images, so XLA folds them to a constant.
    return (total / np.outer(*counts)[:, :, None].astype(total.dtype)).astype(images.dtype)


def _sum(images: jax.Array, windows: Windows) -> jax.Array:
    if backend.cpu_form() and len(windows.taps) <= MAX_TAPS:
        return _sum_of_shifts(images, windows)
    return _reduce_window(images, windows, np.zeros((), images.dtype), lax.add)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_of_shifts(images: jax.Array, windows: Windows) -> jax.Array:
    return reduce(jnp.add, slice_taps(pad_images(images, windows.padding), windows))


_sum_of_shifts.defvjp(
    lambda images, windows: (_sum_of_shifts(images, windows), None),
    lambda windows, _, dy: (sum_over_taps([(dy, 0)], windows, lambda tap, dy: dy),),
)


def adaptive_avg_pool(images: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Averages to [B, *size, C]: cell i of o is the mean of rows floor(i n / o) .. ceil((i + 1) n / o), as in torch."""
    size = pair(size)
    _check_rank(images)
    if size == (1, 1):  # a plain mean, which XLA fuses
        return images.mean((1, 2), keepdims=True)
    if images.shape[1:3] == size:
        return images
    down, across = (jnp.asarray(_cells(n, o), images.dtype) for n, o in zip(images.shape[1:3], size, strict=True))
    return jnp.einsum('oh,bhwc,pw->bopc', down, images, across)


def _reduce_window(images: jax.Array, windows: Windows, init: np.ndarray, op: Callable) -> jax.Array:
    # Pixels that no window reaches are cropped first: the gradient of reduce_window takes no negative padding.
    crop = [(min(low, 0), min(high, 0), 0) for low, high in windows.padding]
    images = lax.pad(images, init, ((0, 0, 0), *crop, (0, 0, 0)))
    padding = ((0, 0), *((max(low, 0), max(high, 0)) for low, high in windows.padding), (0, 0))
    return lax.reduce_window(images, init, op, (1, *windows.window, 1), (1, *windows.stride, 1), padding)


def _counts(k: int, s: int, padding: Pair, count: int, valid: Pair) -> np.ndarray:
    """Counts the pixels of each window along one axis within `valid`; 1 if there are none, whose sum is zero."""
    first = np.arange(count) * s - padding[0]
    return np.maximum(np.minimum(first + k, valid[1]) - np.maximum(first, valid[0]), 1)


def _cells(n: int, o: int) -> np.ndarray:
    """Returns the averaging matrix [o, n] of `adaptive_avg_pool` along one axis."""
    first, last = np.arange(o) * n // o, -(-(np.arange(o) + 1) * n // o)
    inside = (np.arange(n) >= first[:, None]) & (np.arange(n) < last[:, None])
    return inside / (last - first)[:, None]
