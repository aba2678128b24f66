"""Batch normalisation, LRN and L2 normalisation against float64 loops, and where float32 is hard put to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend, ops
from canon.errors import UsageError
from canon.nn import L2Norm


def lrn(x, size, alpha, beta, k, divide_by_n):
    """Krizhevsky et al. 2012, section 3.3, channel by channel; even windows reach further back, as torch's do."""
    y, channels = np.zeros_like(x), x.shape[-1]
    for c in range(channels):
        seen = range(max(c - size // 2, 0), min(c + (size - 1) // 2 + 1, channels))
        total = sum(x[..., j] ** 2 for j in seen)
        y[..., c] = x[..., c] / (k + alpha / (size if divide_by_n else 1) * total) ** beta
    return y


def lrn_within(x, size, alpha, beta, k, divide_by_n):
    """The same over the pixels around each one, the last of them W - 1."""
    y, (_, height, width, _) = np.zeros_like(x), x.shape
    for i in range(height):
        for j in range(width):
            rows = slice(max(i - size // 2, 0), i + (size - 1) // 2 + 1)
            columns = slice(max(j - size // 2, 0), j + (size - 1) // 2 + 1)
            total = (x[:, rows, columns] ** 2).sum((1, 2))
            y[:, i, j] = x[:, i, j] / (k + alpha / (size**2 if divide_by_n else 1) * total) ** beta
    return y


SETTINGS = [(5, 1e-4, 0.75, 2.0, False), (5, 0.2, 0.75, 1.0, True), (3, 0.5, 0.5, 1.5, False), (4, 0.3, 0.6, 2.0, True)]


@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@pytest.mark.parametrize(('function', 'loop'), [(ops.lrn, lrn), (ops.lrn_within, lrn_within)])
def test_lrn_equals_the_loop(function, loop, settings, form):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 7)) * 3
    with jax.enable_x64(True), backend.forms(form):
        y = jax.jit(lambda x: function(x, *settings))(x)
    np.testing.assert_allclose(y, loop(x, *settings), rtol=1e-12)
    with backend.forms(form):
        narrow = jax.jit(lambda x: function(x, *settings))(x.astype(np.float32))
    np.testing.assert_allclose(narrow, loop(x, *settings), rtol=2e-6)


def test_lrn_of_the_paper_by_hand():
    """One channel of value 100: 100 / (2 + 1e-4 * 1e4)^0.75."""
    np.testing.assert_allclose(ops.lrn(jnp.full((1, 1, 1, 1), 100.0)), 100 / 3**0.75, rtol=1e-6)
    with pytest.raises(UsageError, match='positive'):
        ops.lrn(jnp.ones((1, 1, 1, 3)), size=0)


def batch_norm(x, scale, bias, eps, dy, dmean, dvar):
    """Algorithm 1 and the gradients below it in Ioffe & Szegedy 2015, section 3, channel by channel."""
    y, dx, dscale = np.zeros_like(x), np.zeros_like(x), np.zeros_like(scale)
    mean, var = np.zeros_like(scale), np.zeros_like(scale)
    for c in range(x.shape[-1]):
        values, upstream = x[..., c].ravel(), dy[..., c].ravel()
        m = len(values)
        mean[c] = sum(values) / m
        var[c] = sum((values - mean[c]) ** 2) / m
        hat = (values - mean[c]) / np.sqrt(var[c] + eps)
        y[..., c] = (scale[c] * hat + bias[c]).reshape(x.shape[:-1])
        dscale[c] = (upstream * hat).sum()
        dhat = upstream * scale[c]
        by_var = (dhat * (values - mean[c])).sum() * -0.5 * (var[c] + eps) ** -1.5 + dvar[c]
        by_mean = -dhat.sum() / np.sqrt(var[c] + eps) + dmean[c]
        actual = dhat / np.sqrt(var[c] + eps) + by_var * 2 * (values - mean[c]) / m + by_mean / m
        dx[..., c] = actual.reshape(x.shape[:-1])
    return y, mean, var, dx, dscale, dy.sum(tuple(range(x.ndim - 1)))


def drawn(shape, offset=0.0):
    rng = np.random.default_rng(0)
    channels = shape[-1:]
    x, dy = rng.normal(size=shape) + offset, rng.normal(size=shape)
    return x, *(rng.normal(size=channels) for _ in range(2)), 1e-3, dy, *(rng.normal(size=channels) for _ in range(2))


def ours(x, scale, bias, eps, dy, dmean, dvar):
    def both(x, scale, bias, *cotangents):
        y, pull = jax.vjp(lambda *a: ops.batch_norm_train(*a, eps), x, scale, bias)
        return *y, *pull(cotangents)

    return jax.jit(both)(x, scale, bias, dy, dmean, dvar)


@pytest.mark.parametrize('shape', [(4, 3, 2, 5), (6, 3), (2, 1, 1, 1)])
def test_batch_norm_equals_the_loop(shape):
    """mean and var are outputs too, and what flows back through them is counted."""
    values = drawn(shape)
    with jax.enable_x64(True):
        actual = ours(*values)
    for what, a, b in zip(('y', 'mean', 'var', 'dx', 'dscale', 'dbias'), actual, batch_norm(*values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=what)


def test_batch_norm_far_from_zero():
    """float32 with a mean of 100 deviations: the sum of squares less the squared mean would have lost five digits."""
    values = [v if isinstance(v, float) else v.astype(np.float32) for v in drawn((8, 16, 16, 4), offset=100.0)]
    exact = batch_norm(*(v if isinstance(v, float) else v.astype(np.float64) for v in values))
    for quantity, a, b in zip(('y', 'mean', 'var', 'dx', 'dscale', 'dbias'), ours(*values), exact, strict=True):
        limit = 2e-6 if quantity in ('mean', 'var') else 1e-4
        assert np.abs(a - b).max() <= limit * np.abs(b).max(), quantity


def test_statistics_are_float32_under_bfloat16():
    x = (np.random.default_rng(0).normal(size=(64, 8, 8, 3)) + 3).astype(jnp.bfloat16)
    y, mean, var = jax.jit(lambda x: ops.batch_norm_train(x, jnp.ones(3), jnp.zeros(3), 1e-5))(x)
    wide = np.asarray(x, np.float64)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, wide.var((0, 1, 2)), rtol=1e-5)
    dx, dscale = jax.grad(
        lambda x, s: ops.batch_norm_train(x, s, jnp.zeros(3), 1e-5)[0].sum(dtype=jnp.float32), (0, 1)
    )(x, jnp.ones(3))
    assert (dx.dtype, dscale.dtype) == (jnp.bfloat16, jnp.float32)


def test_given_statistics():
    rng = np.random.default_rng(0)
    x, scale, bias, mean, var = rng.normal(size=(2, 3, 3, 4)), *rng.normal(size=(3, 4)), rng.uniform(size=4)
    with jax.enable_x64(True):
        y = ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var)), 1e-3)
    np.testing.assert_allclose(y, scale * (x - mean) / np.sqrt(var + 1e-3) + bias, rtol=1e-12)


def test_l2_normalisation_equals_numpy_and_so_do_its_gradients():
    """y = s x / n with n = |x|; dx = s dy / n - x (s dy . x) / n^3, ds = sum dy x / n. One vector is zero."""
    rng = np.random.default_rng(0)
    x, scale, dy = rng.normal(size=(2, 3, 4, 6)), rng.uniform(1, 20, 6), rng.normal(size=(2, 3, 4, 6))
    x[0, 1, 2] = 0

    @jax.jit
    def differentiate(x, scale, dy):
        y, pull = jax.vjp(ops.l2_normalize, x, scale)
        return y, *pull(dy)

    with jax.enable_x64(True):
        actual = [np.asarray(a) for a in differentiate(x, scale, dy)]
    norm = np.sqrt((x**2).sum(-1, keepdims=True) + 1e-10)
    dx = scale * dy / norm - x * (scale * dy * x).sum(-1, keepdims=True) / norm**3
    for found, expected in zip(actual, (scale * x / norm, dx, (dy * x / norm).sum((0, 1, 2))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert not actual[0][0, 1, 2].any()


def test_l2_normalisation_of_large_bfloat16_values():
    """The sum of squares is float32: 1e3 squared 512 times would lose its digits in bfloat16."""
    x = jnp.full((1, 1, 1, 512), 1e3, jnp.bfloat16)
    layer = L2Norm()
    params = layer.init(jax.random.key(0), x)
    assert params['params']['channel_scale'].tolist() == [20] * 512
    y = layer.apply(params, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), 20 / np.sqrt(512), rtol=4e-3)
