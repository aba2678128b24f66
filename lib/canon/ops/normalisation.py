"""Normalisation of activations [B, H, W, C]: batch normalisation, AlexNet's local responses, and L2 across channels."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import backend, native
from canon.errors import UsageError


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array, eps: float
) -> jax.Array:
    """Computes scale (x - mean) / sqrt(var + eps) + bias of given statistics [C], in x's dtype; factors in float32."""
    factor = scale * lax.rsqrt(var + eps)  # [C]: one multiplication and one addition per element remain
    return (x * factor + (bias - mean * factor)).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm_train(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the statistics of x over all axes but the last: Ioffe & Szegedy 2015, Algorithm 1.

    With the batch laid out over devices under `jit`, the statistics are those of the whole batch.

    Returns:
      (y, mean, var): y in x's dtype, mean and variance (of the population, divided by n) in float32 at least.
    """
    return _forward(x, scale, bias, eps)[0]


def _forward(x, scale, bias, eps):
    x_wide, (mean, var) = _widen(x), _moments(x)
    inverse = lax.rsqrt(var + eps)
    factor = inverse * scale
    y = (x_wide * factor + (bias - mean * factor)).astype(x.dtype)
    return (y, mean, var), (x, mean, inverse, scale)


def _backward(eps, residuals, cotangents):
    x, mean, inverse, scale = residuals
    dy, dmean, dvar = cotangents
    n, x_wide, dy_wide = x.size // x.shape[-1], _widen(x), _widen(dy)
    dbias, centred = _gradient_sums(dy, x, mean)
    dscale = centred * inverse
    # The gradient through y, mean and var, gathered into dy * a + x * b + c with a, b, c [C]: one pass over x and dy.
    a = scale * inverse
    b = (2 * dvar - a * inverse * dscale) / n
    c = (dmean - a * dbias) / n - b * mean
    return (dy_wide * a + x_wide * b + c).astype(x.dtype), dscale, dbias


batch_norm_train.defvjp(_forward, _backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the variance [C] of x [..., C]."""
    if x.dtype == jnp.float32 and native.is_available():
        return native.call('moments', _moments_in_jax, (_per_channel(x), _per_channel(x)), x)
    return _moments_in_jax(x)


def _moments_in_jax(x):
    axes, x = tuple(range(x.ndim - 1)), _widen(x)
    mean = x.mean(axes)
    return mean, jnp.square(x - mean).mean(axes)  # not E[x^2] - mean^2, which cancels in float32


def _gradient_sums(dy: jax.Array, x: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums [C] of dy and of dy (x - mean) over all axes but the last."""
    if x.dtype == dy.dtype == jnp.float32 and native.is_available():
        results = _per_channel(x), _per_channel(x)
        return native.call('gradient_sums', _gradient_sums_in_jax, results, dy, x, mean)
    return _gradient_sums_in_jax(dy, x, mean)


def _gradient_sums_in_jax(dy, x, mean):
    axes, dy = tuple(range(x.ndim - 1)), _widen(dy)
    total = dy.sum(axes)
    return total, (dy * _widen(x)).sum(axes) - mean * total


def _per_channel(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape[-1:], x.dtype)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def l2_normalize(x: jax.Array, scale: jax.Array, eps: float = 1e-10) -> jax.Array:
    """Computes scale x / sqrt(sum_c x_c^2 + eps) across the channels of x [..., C].

    From ParseNet (Liu et al. 2015, section 3.3); SSD normalises conv4_3 in this way, with a learned scale [C]. The
    gradient at the zero vector is finite.
    """
    wide = _widen(x)
    return (wide * lax.rsqrt(jnp.square(wide).sum(-1, keepdims=True) + eps) * scale).astype(x.dtype)


def lrn(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, divide_by_n: bool = False
) -> jax.Array:
    """Normalises across channels: x / (k + alpha sum_j x_j^2)^beta over the `size` channels around each one.

    Local response normalisation, Krizhevsky et al. 2012, section 3.3; the defaults are its constants.

    Args:
      x: [..., C].
      size: number of channels in the sum.
      alpha: factor of the sum.
      beta: exponent.
      k: constant.
      divide_by_n: uses alpha / size for alpha, as the paper's own code, Caffe and torch do (the latter two with k = 1).
    """
    return _normalise(x, (1,) * (x.ndim - 1) + (size,), alpha / size if divide_by_n else alpha, beta, k)


def lrn_within(
    x: jax.Array, size: int = 3, alpha: float = 5e-5, beta: float = 0.75, k: float = 1.0, divide_by_n: bool = False
) -> jax.Array:
    """Normalises within each channel of [B, H, W, C], over the size x size pixels around each one.

    Arguments as of `lrn`; divide_by_n: uses alpha / size^2 for alpha, as Caffe does (with k = 1).
    """
    return _normalise(x, (1, size, size, 1), alpha / size**2 if divide_by_n else alpha, beta, k)


def _normalise(x: jax.Array, window: tuple[int, ...], alpha: float, beta: float, k: float) -> jax.Array:
    if min(window) < 1:
        raise UsageError(f'size={min(window)} of local response normalisation must be a positive integer')
    if backend.cpu_form():
        return _normalise_on_cpu(x, window, alpha, beta, k)
    sides = [(w // 2, w - 1 - w // 2) for w in window]  # an even window reaches further to the left
    total = lax.reduce_window(jnp.square(_widen(x)), 0.0, lax.add, window, (1,) * x.ndim, sides)
    return (_widen(x) * (k + alpha * total) ** -beta).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _normalise_on_cpu(x: jax.Array, window: tuple[int, ...], alpha: float, beta: float, k: float) -> jax.Array:
    """Computes the form for XLA:CPU: a sum of shifted slices, no general power, the gradient in closed form."""
    return _cpu_forward(x, window, alpha, beta, k)[0]


def _cpu_forward(x, window, alpha, beta, k):
    x_wide = _widen(x)
    scale = k + alpha * _sum_of_shifts(jnp.square(x_wide), [(w // 2, w - 1 - w // 2) for w in window])
    return (x_wide * _power(scale, beta)).astype(x.dtype), (x, scale)


def _cpu_backward(window, alpha, beta, k, residuals, dy):
    x, scale = residuals
    x_wide, dy = _widen(x), _widen(dy) * _power(scale, beta)
    total = _sum_of_shifts(dy * x_wide / scale, [(w - 1 - w // 2, w // 2) for w in window])
    return ((dy - 2 * alpha * beta * x_wide * total).astype(x.dtype),)


_normalise_on_cpu.defvjp(_cpu_forward, _cpu_backward)


def _sum_of_shifts(x: jax.Array, sides: Sequence[tuple[int, int]]) -> jax.Array:
    """Sums over the elements from `low` before each one to `high` after it, axis by axis."""
    for axis, (low, high) in enumerate(sides):
        if low + high:
            zeros = [(0, 0)] * x.ndim
            zeros[axis] = (low, high)
            # The barrier keeps the padding from being fused into, and computed for, each of the slices.
            padded, n = lax.optimization_barrier(jnp.pad(x, zeros)), x.shape[axis]
            terms = [lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(low + high + 1)]
            x = sum(terms[1:], terms[0])
    return x


def _power(x: jax.Array, beta: float) -> jax.Array:
    """Computes x^-beta of positive x without the general power, which takes eight times as long as the rest of LRN."""
    if beta == 0.75:
        return lax.rsqrt(x) * jnp.sqrt(lax.rsqrt(x))  # x^-1/2 x^-1/4: AlexNet's exponent
    return jnp.exp(-beta * jnp.log(x))
