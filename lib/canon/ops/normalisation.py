"""Normalisation of activations [B, H, W, C]: batch normalisation, and AlexNet's local response normalisation."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import backend
from canon.errors import UsageError


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
    return _respond(x, (1,) * (x.ndim - 1) + (size,), alpha / size if divide_by_n else alpha, beta, k)


def lrn_within(
    x: jax.Array, size: int = 3, alpha: float = 5e-5, beta: float = 0.75, k: float = 1.0, divide_by_n: bool = False
) -> jax.Array:
    """Local response normalisation within a channel, over the size x size pixels around each one of [B, H, W, C].

    divide_by_n: alpha / size^2, as Caffe has it (with k = 1).
    """
    return _respond(x, (1, size, size, 1), alpha / size**2 if divide_by_n else alpha, beta, k)


def _respond(x: jax.Array, window: tuple[int, ...], alpha: float, beta: float, k: float) -> jax.Array:
    if min(window) < 1:
        raise UsageError(f'a window of {max(min(window), 0)} normalises nothing; size is a positive integer')
    if backend.cpu_form():
        return _respond_by_shifts(x, window, alpha, beta, k)
    sides = [(w // 2, w - 1 - w // 2) for w in window]
    total = lax.reduce_window(jnp.square(_wide(x)), 0.0, lax.add, window, (1,) * x.ndim, sides)
    return (_wide(x) * (k + alpha * total) ** -beta).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _respond_by_shifts(x: jax.Array, window: tuple[int, ...], alpha: float, beta: float, k: float) -> jax.Array:
    """The form for XLA:CPU: the window summed from shifted slices, no general power, the gradient in closed form."""
    return _respond_forward(x, window, alpha, beta, k)[0]


def _respond_forward(x, window, alpha, beta, k):
    wide = _wide(x)
    scale = k + alpha * _sum_of_shifts(jnp.square(wide), [(w // 2, w - 1 - w // 2) for w in window])
    return (wide * _power(scale, beta)).astype(x.dtype), (x, scale)


def _respond_backward(window, alpha, beta, k, residuals, dy):
    x, scale = residuals
    wide, dy = _wide(x), _wide(dy) * _power(scale, beta)
    seen = _sum_of_shifts(dy * wide / scale, [(w - 1 - w // 2, w // 2) for w in window])
    return ((dy - 2 * alpha * beta * wide * seen).astype(x.dtype),)


_respond_by_shifts.defvjp(_respond_forward, _respond_backward)


def _sum_of_shifts(x: jax.Array, sides: Sequence[tuple[int, int]]) -> jax.Array:
    """The sum over the places from `low` before each one to `high` after it, axis by axis."""
    for axis, (low, high) in enumerate(sides):
        if low + high:
            zeros = [(0, 0)] * x.ndim
            zeros[axis] = (low, high)
            around, n = lax.optimization_barrier(jnp.pad(x, zeros)), x.shape[axis]
            terms = [lax.slice_in_dim(around, i, i + n, axis=axis) for i in range(low + high + 1)]
            x = sum(terms[1:], terms[0])
    return x


def _power(x: jax.Array, beta: float) -> jax.Array:
    """x^-beta of positive x, without the general power, which takes eight times as long as the rest of LRN."""
    if beta == 0.75:
        return lax.rsqrt(x) * jnp.sqrt(lax.rsqrt(x))
    return jnp.exp(-beta * jnp.log(x))
