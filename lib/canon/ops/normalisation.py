"""Normalisation of activations [B, H, W, C]: batch normalisation, and AlexNet's local response normalisation."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array, eps: float
) -> jax.Array:
    """scale (x - mean) / sqrt(var + eps) + bias with given statistics [C], in x's dtype; the factors in float32."""
    factor = scale * lax.rsqrt(var + eps)
    return (x * factor + (bias - mean * factor)).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm_train(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ioffe & Szegedy 2015, Algorithm 1: (y, mean, var), the statistics of x over all axes but the last.

    mean and var (of the population: divided by n) are float32 whatever x is; y is of x's dtype. With the batch laid out
    over devices under `jit`, the statistics are those of the whole batch.
    """
    return _forward(x, scale, bias, eps)[0]


def _forward(x, scale, bias, eps):
    axes, wide = tuple(range(x.ndim - 1)), _wide(x)
    mean = wide.mean(axes)
    var = jnp.square(wide - mean).mean(axes)
    inverse = lax.rsqrt(var + eps)
    factor = inverse * scale
    y = (wide * factor + (bias - mean * factor)).astype(x.dtype)
    return (y, mean, var), (x, mean, inverse, scale)


def _backward(eps, residuals, cotangents):
    x, mean, inverse, scale = residuals
    dy, dmean, dvar = cotangents
    axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    wide, dwide = _wide(x), _wide(dy)
    dbias = dwide.sum(axes)
    dscale = ((dwide * wide).sum(axes) - mean * dbias) * inverse
    # d/dx of the three outputs, gathered into dy * a + x * b + c with a, b, c [C].
    a = scale * inverse
    b = (2 * dvar - a * inverse * dscale) / n
    c = (dmean - a * dbias) / n - b * mean
    return (dwide * a + wide * b + c).astype(x.dtype), dscale, dbias


batch_norm_train.defvjp(_forward, _backward)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def lrn(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, divide_by_n: bool = False
) -> jax.Array:
    """Local response normalisation between channels: Krizhevsky et al. 2012, section 3.3, with its constants.

    x / (k + alpha sum x_j^2)^beta over the `size` channels around each one. divide_by_n: alpha / size for alpha, as
    the paper's own code, Caffe and torch have it (the latter two with k = 1).
    """
    half = size // 2
    squares = jnp.pad(jnp.square(x), ((0, 0),) * (x.ndim - 1) + ((half, size - 1 - half),))
    total = lax.reduce_window(
        squares, jnp.zeros((), x.dtype), lax.add, (1,) * (x.ndim - 1) + (size,), (1,) * x.ndim, 'VALID'
    )
    return x * (k + (alpha / size if divide_by_n else alpha) * total) ** -beta


def lrn_within(
    x: jax.Array, size: int = 3, alpha: float = 5e-5, beta: float = 0.75, k: float = 1.0, divide_by_n: bool = False
) -> jax.Array:
    """Local response normalisation within a channel, over the size x size pixels around each one of [B, H, W, C].

    divide_by_n: alpha / size^2, as Caffe has it (with k = 1).
    """
    half = size // 2
    rows = ((0, 0), (half, size - 1 - half), (half, size - 1 - half), (0, 0))
    total = lax.reduce_window(jnp.square(x), jnp.zeros((), x.dtype), lax.add, (1, size, size, 1), (1, 1, 1, 1), rows)
    return x * (k + (alpha / size**2 if divide_by_n else alpha) * total) ** -beta
