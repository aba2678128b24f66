"""Convolution: its transpose is its gradient, groups are separate networks, and what does not fit is message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend, ops
from canon.errors import UsageError


@pytest.mark.parametrize(
    ('kernel', 'stride', 'padding', 'dilation', 'groups'),
    [((3, 3), 2, 1, 1, 1), ((4, 2), (2, 3), (1, 0), (1, 2), 2), ((3, 3), 1, 2, 2, 1), ((2, 2), 3, 0, 1, 4)],
)
def test_the_transpose_is_the_gradient_by_the_images(kernel, stride, padding, dilation, groups):
    """conv from N to C channels takes [B, H', W', N] to images [B, H, W, C]; the transpose takes those back."""
    rng = np.random.default_rng(0)
    wide, weights = rng.normal(size=(2, 9, 11, 4)), rng.normal(size=(*kernel, 4 // groups, 8))
    with jax.enable_x64(True):

        def conv(x):
            return ops.conv(x, jnp.asarray(weights), stride, padding, dilation, groups)

        y, pull = jax.vjp(conv, jnp.asarray(wide))
        extra = [
            n + 2 * p - (k - 1) * d - 1 - s * (o - 1)
            for n, o, k, s, p, d in zip(
                wide.shape[1:3], y.shape[1:3], kernel, *map(pair, (stride, padding, dilation)), strict=True
            )
        ]
        actual = ops.conv_transpose(y, jnp.asarray(weights), stride, padding, extra, dilation, groups)
        np.testing.assert_allclose(actual, pull(y)[0], rtol=1e-11, atol=1e-11)


def pair(v):
    return (v, v) if isinstance(v, int) else v


@pytest.mark.parametrize('form', ['cpu', 'plain'])
def test_groups_do_not_see_one_another(form):
    """A convolution in three groups is three convolutions. 40 groups are more than are cut in pieces."""
    rng = np.random.default_rng(0)
    for groups, each, filters in ((3, 2, 4), (40, 2, 1), (4, 1, 3)):
        x, w = rng.normal(size=(2, 6, 5, groups * each)), rng.normal(size=(3, 3, each, groups * filters))
        with jax.enable_x64(True), backend.forms(form):
            joint = jax.jit(lambda x, w, g=groups: ops.conv(x, w, 2, 1, groups=g))(x, w)
            some = [
                ops.conv(
                    jnp.asarray(x[..., g * each : (g + 1) * each]),
                    jnp.asarray(w[..., g * filters : (g + 1) * filters]),
                    2,
                    1,
                )
                for g in range(min(groups, 5))
            ]
        for g, part in enumerate(some):
            np.testing.assert_allclose(joint[..., g * filters : (g + 1) * filters], part, rtol=1e-11, atol=1e-11)


X, W = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: ops.conv(X[0], W), 'images \\[B, H, W, C\\]'),
        (lambda: ops.conv(X[..., :3], W), 'takes 4 channels'),
        (lambda: ops.conv(X, W, groups=2), 'takes 8 channels'),
        (lambda: ops.conv(X, W[:, :, :1, :5], groups=4), 'cannot be divided into'),
        (lambda: ops.conv(X, W, groups=0), 'groups=0'),
        (lambda: ops.conv(X, W, stride=0), 'stride=0'),
        (lambda: ops.conv(X, W, dilation=(1, 2, 3)), 'dilation'),
        (lambda: ops.conv(X, W, dilation=5), 'does not fit'),
        (lambda: ops.conv_transpose(X, W), 'takes 6 channels'),
        (lambda: ops.conv_transpose(X, W, padding='same'), 'padding'),
        (lambda: ops.conv_transpose(X, W[..., :4], output_padding=1), 'output_padding'),
        (lambda: ops.max_pool(X[0], 2), 'pooling takes images'),
        (lambda: ops.max_pool(X, 9), 'does not fit'),
        (lambda: ops.avg_pool(X, (2, 0)), 'window'),
        (lambda: ops.adaptive_avg_pool(X, 0), 'size'),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert '\n' not in str(caught.value)
