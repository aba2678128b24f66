"""Depthwise convolution for XLA:CPU, whose own gradients read the memory of a full C x C convolution.

One filter per channel is k x k shifted multiply-adds. The gradient by the images is the same sum transposed; the
gradient by the kernel sums products along rows first, the one reduction that keeps the loop over channels innermost.
Reverse mode only, like every `jax.custom_vjp`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import native
from canon.ops.shifts import Windows, pad_images, slice_taps, sum_over_taps


def depthwise_conv(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Convolves images [B, H, W, C] with kernel [h, w, 1, C] to [B, H', W', C]; sums in float32 at least."""
    is_float32 = images.dtype == kernel.dtype == jnp.float32
    if is_float32 and windows.window in ((3, 3), (5, 5)) and native.is_available():
        return _kernel_conv(images, _filters(kernel), windows)
    return _shifted_conv(images, kernel, windows)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_conv(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    return _forward(images, kernel, windows)[0]


def _forward(images, kernel, windows):
    image = pad_images(images, windows.padding)
    filters = _filters(kernel)
    terms = [_widen(x) * f for x, f in zip(slice_taps(image, windows), filters, strict=True)]
    return sum(terms[1:], terms[0]).astype(images.dtype), (image, kernel)


def _backward(windows, residuals, dy):
    image, kernel = residuals
    dkernel = _kernel_gradient(image, dy, windows)
    return _image_gradient(dy, _filters(kernel), windows), dkernel.reshape(kernel.shape).astype(kernel.dtype)


def _image_gradient(dy, filters, windows):
    return sum_over_taps([(dy, 0)], windows, lambda tap, dy: _widen(dy) * filters[tap]).astype(dy.dtype)


def _kernel_gradient(image, dy, windows):
    """Returns the gradient of the filters [taps, C] from the padded image."""
    products = [_widen(x) * _widen(dy) for x in slice_taps(image, windows)]
    zeros = [jnp.zeros((), p.dtype) for p in products]
    # One variadic reduction over the columns: a reduction per tap would read `dy` k x k times.
    rows = lax.reduce(products, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], (2,))
    # What is left, [B, H', C] per tap, is 1 / W' of the products and cheap to sum in any order.
    return jnp.stack([r.sum((0, 1)) for r in rows])


_shifted_conv.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_conv(images: jax.Array, filters: jax.Array, windows: Windows) -> jax.Array:
    """Computes the form of `canon.native`, which makes no padded copy; filters [taps, C]."""
    return _native_conv(images, filters, windows)


def _native_conv(images, filters, windows):

    def twin(images, filters):
        return _forward(images, filters.reshape(*windows.window, 1, -1), windows)[0]

    result = jax.ShapeDtypeStruct((len(images), *windows.out, images.shape[-1]), images.dtype)
    return native.call('depthwise', twin, result, images, filters, windows=windows.describe())


def _native_forward(images, filters, windows):
    return _native_conv(images, filters, windows), (images, filters)


def _native_backward(windows, residuals, dy):
    images, filters = residuals

    def twin(images, dy):
        return _kernel_gradient(pad_images(images, windows.padding), dy, windows)

    by_image, numbers = partial(_image_gradient, windows=windows), windows.describe()
    dimages = native.call('depthwise_image_gradient', by_image, _like(images), dy, filters, windows=numbers)
    return dimages, native.call('depthwise_kernel_gradient', twin, _like(filters), images, dy, windows=numbers)


_kernel_conv.defvjp(_native_forward, _native_backward)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _filters(kernel: jax.Array) -> jax.Array:
    """Returns the filters of all taps, [taps, C], in float32 at least."""
    return _widen(kernel).reshape(-1, kernel.shape[-1])


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
