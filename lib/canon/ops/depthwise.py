"""Depthwise convolution for XLA:CPU, whose own reads a full C x C convolution's worth of memory for its gradients.

One filter a channel: k x k shifted multiply-adds. The gradient by the images is the same sum transposed; that by the
kernel sums products along rows first, which is the one reduction that keeps the loop over channels innermost.
Reverse mode only, as every `jax.custom_vjp`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon.ops.shifts import Windows, back, padded, shifted


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(images: jax.Array, kernel: jax.Array, at: Windows) -> jax.Array:
    """images [B, H, W, C] with kernel [h, w, 1, C] -> [B, H', W', C]; sums in float32 at least."""
    return _forward(images, kernel, at)[0]


def _forward(images, kernel, at):
    image = padded(images, at.rows)
    filters = _filters(kernel)
    terms = [_wide(x) * f for x, f in zip(shifted(image, at), filters, strict=True)]
    return sum(terms[1:], terms[0]).astype(images.dtype), (image, kernel)


def _backward(at, residuals, dy):
    image, kernel = residuals
    filters = _filters(kernel)
    dimages = back([(dy, 0)], at, lambda tap, dy: _wide(dy) * filters[tap]).astype(dy.dtype)
    products = [_wide(x) * _wide(dy) for x in shifted(image, at)]
    zeros = [jnp.zeros((), p.dtype) for p in products]
    rows = lax.reduce(products, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], (2,))
    dkernel = jnp.stack([r.sum((0, 1)) for r in rows]).reshape(kernel.shape).astype(kernel.dtype)
    return dimages, dkernel


depthwise.defvjp(_forward, _backward)


def _filters(kernel: jax.Array) -> jax.Array:
    """[taps, C]"""
    return _wide(kernel).reshape(-1, kernel.shape[-1])


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
