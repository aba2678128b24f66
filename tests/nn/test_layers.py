"""Layers: how their parameters lie, what BatchNorm keeps, and widths as the MobileNets' authors round them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import ops
from canon.errors import UsageError
from canon.nn import BatchNorm, Conv, ConvTranspose, SeparableConv, check_images, make_divisible, reestimate


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ('layer', 'image', 'shapes'),
    [
        (Conv(6, 3, groups=2), (1, 5, 5, 4), {'bias': (6,), 'kernel': (3, 3, 2, 6)}),
        (Conv(6, (5, 1), use_bias=False), (1, 5, 5, 4), {'kernel': (5, 1, 4, 6)}),
        (ConvTranspose(6, 4, stride=2, groups=2), (1, 5, 5, 4), {'bias': (6,), 'kernel': (4, 4, 3, 4)}),
        (
            SeparableConv(7, 3, multiplier=2),
            (1, 5, 5, 4),
            {'depthwise': {'kernel': (3, 3, 1, 8)}, 'pointwise': {'bias': (7,), 'kernel': (1, 1, 8, 7)}},
        ),
        (BatchNorm(), (1, 5, 5, 4), {'bias': (4,), 'scale': (4,)}),
    ],
)
def test_parameters(layer, image, shapes):
    params = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct(image, jnp.bfloat16))['params']
    assert jax.tree.map(lambda p: p.shape, params) == shapes
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ('layer', 'by_hand'),
    [
        (
            Conv(6, 3, stride=2, padding=1, groups=2),
            lambda p, x: ops.conv(x, p['kernel'], 2, 1, groups=2) + p['bias'],
        ),
        (
            ConvTranspose(4, 3, stride=2, padding=1, output_padding=1),
            lambda p, x: ops.conv_transpose(x, p['kernel'], 2, 1, 1) + p['bias'],
        ),
        (
            SeparableConv(5, 3),
            lambda p, x: (
                ops.conv(ops.conv(x, p['depthwise']['kernel'], padding='same', groups=4), p['pointwise']['kernel'])
                + p['pointwise']['bias']
            ),
        ),
    ],
)
def test_layers_are_the_operations(layer, by_hand):
    x = drawn(2, 5, 4, 4)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)['params']
    params = jax.tree.map(lambda p: drawn(*p.shape), shapes)
    both = jax.jit(lambda p, x: (layer.apply({'params': p}, x), by_hand(p, x)))
    np.testing.assert_allclose(*both(params, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(('kernel', 'filters', 'fan'), [(3, 64, 9 * 64), (7, 32, 49 * 32)])
def test_initial_kernels_are_he_et_als(kernel, filters, fan):
    """Eq. 14, backward form: variance 2 / (k^2 N)."""
    values = np.asarray(Conv(1, 1).kernel_init(jax.random.key(0), (kernel, kernel, 128, filters)))
    assert abs(values.var() / (2 / fan) - 1) < 0.03
    assert abs(values.mean()) < 0.03 * values.std()


def update_statistics(layer, x, times=1):
    variables = layer.init(jax.random.key(0), x)
    for _ in range(times):
        y, mutated = layer.apply(variables, x, train=True, mutable=['batch_stats'])
        variables = {**variables, **mutated}
    return y, variables['batch_stats']


def test_running_statistics():
    """Two steps from (0, 1) with decay 0.8; the variance is torch's (n / (n - 1)) or flax's."""
    x = drawn(4, 3, 2, 5) * 3 + 1
    axes = (0, 1, 2)
    for unbiased in (True, False):
        _, stats = update_statistics(BatchNorm(decay=0.8, unbiased=unbiased), x, times=2)
        np.testing.assert_allclose(stats['mean'], 0.36 * x.mean(axes), rtol=1e-5)
        np.testing.assert_allclose(stats['var'], 0.64 + 0.36 * x.var(axes, ddof=int(unbiased)), rtol=1e-5)
    _, flax = update_statistics(FlaxNorm(), x, times=2)
    _, ours = update_statistics(BatchNorm(decay=0.8, unbiased=False), x, times=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, flax['BatchNorm_0'])


class FlaxNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)


def test_initialisation_moves_no_statistics():
    variables = BatchNorm().init(jax.random.key(0), drawn(4, 3, 3, 2) + 7, train=True)
    np.testing.assert_array_equal(variables['batch_stats']['mean'], 0)
    np.testing.assert_array_equal(variables['batch_stats']['var'], 1)


def test_statistics_stay_float32_under_bfloat16():
    """A mean of 1000 steps of 0.001: bfloat16 statistics would stand still."""
    x = (drawn(64, 4, 4, 3) * 0.01 + 1).astype(jnp.bfloat16)
    y, stats = update_statistics(BatchNorm(decay=0.999), x, times=2)
    assert y.dtype == jnp.bfloat16
    assert {s.dtype for s in jax.tree.leaves(stats)} == {jnp.dtype('float32')}
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(stats['mean'], (1 - 0.999**2) * exact.mean((0, 1, 2)), rtol=1e-4)


def test_frozen():
    """Training of a frozen layer is its evaluation, and keeps the statistics; scale and bias still get gradients."""
    x, layer = drawn(4, 3, 3, 2), BatchNorm(frozen=True)
    variables = layer.init(jax.random.key(0), x)
    variables['batch_stats'] = {'mean': jnp.array([1.0, -2.0]), 'var': jnp.array([4.0, 0.5])}
    y, mutated = layer.apply(variables, x, train=True, mutable=['batch_stats'])
    np.testing.assert_array_equal(y, BatchNorm().apply(variables, x, train=False))
    jax.tree.map(np.testing.assert_array_equal, mutated['batch_stats'], variables['batch_stats'])
    grads = jax.grad(lambda p: (layer.apply({**variables, 'params': p}, x, train=True) ** 2).sum())(variables['params'])
    assert all(np.abs(g).min() > 0 for g in jax.tree.leaves(grads))


class Two(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = ops.relu(BatchNorm(decay=0.7, name='first')(x, train))
        return BatchNorm(decay=0.7, name='second')(x, train)


def test_reestimate_over_a_data_set():
    """E[mu_B] and E[var_B] n / (n - 1) of Algorithm 2, layer by layer, whatever the running statistics were."""
    batches = [drawn(6, 2, 2, 3, seed=i) * (i + 1) + i for i in range(4)]
    model = Two()
    variables = model.init(jax.random.key(0), batches[0])
    variables['params']['first']['scale'] = jnp.array([1.0, 2.0, -1.0])
    stale = jax.tree.map(lambda s: s + 5, variables['batch_stats'])

    @jax.jit
    def forward(stats, x):
        return model.apply({**variables, 'batch_stats': stats}, x, train=True, mutable=['batch_stats'])[1][
            'batch_stats'
        ]

    stats = reestimate(forward, stale, batches, decay=0.7)
    firsts, seconds = [], []
    for x in batches:
        x = x.astype(np.float64).reshape(-1, 3)
        firsts.append((x.mean(0), x.var(0, ddof=1)))
        z = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * np.array([1, 2, -1]), 0)
        seconds.append((z.mean(0), z.var(0, ddof=1)))
    for name, seen in (('first', firsts), ('second', seconds)):
        for what, expected in zip(('mean', 'var'), np.mean(seen, 0), strict=True):
            np.testing.assert_allclose(stats[name][what], expected, rtol=1e-4, atol=1e-6, err_msg=f'{name} {what}')
    bad = np.full_like(batches[0], np.nan)
    unknown = reestimate(forward, stale, [bad, *batches])  # each layer's decay is found, and a bad batch does not count
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), unknown, stats)
    jax.tree.map(np.testing.assert_array_equal, reestimate(forward, stale, [bad]), stale)
    with pytest.raises(UsageError, match='no batches'):
        reestimate(forward, stale, [])


def test_widths_of_mobilenet_v2():
    """The widths of Sandler et al.'s released models, by multiplier: 32, 16, 24, 32, 64, 96, 160, 320 channels."""
    widths = (32, 16, 24, 32, 64, 96, 160, 320)
    published = {
        0.35: (16, 8, 8, 16, 24, 32, 56, 112),
        0.5: (16, 8, 16, 16, 32, 48, 80, 160),
        0.75: (24, 16, 24, 24, 48, 72, 120, 240),
        1.0: widths,
        1.3: (40, 24, 32, 40, 80, 128, 208, 416),
        1.4: (48, 24, 32, 48, 88, 136, 224, 448),
    }
    for multiplier, expected in published.items():
        assert tuple(make_divisible(w * multiplier) for w in widths) == expected, multiplier
    assert make_divisible(3) == 8
    assert make_divisible(3, divisor=4, least=1) == 4
    for channels in np.linspace(8, 400, 1571):
        rounded = make_divisible(channels)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * channels
        assert rounded - channels < 8


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Conv(4, 3, groups=3).init(jax.random.key(0), jnp.zeros((1, 5, 5, 4))), 'groups=3'),
        (lambda: Conv(4, 3, groups=2).init(jax.random.key(0), jnp.zeros((1, 2, 2, 4))), 'does not fit'),
        (lambda: Conv(5, 3, groups=2).init(jax.random.key(0), jnp.zeros((1, 5, 5, 4))), 'groups=2'),
        (lambda: ConvTranspose(5, 3, groups=2).init(jax.random.key(0), jnp.zeros((1, 5, 5, 4))), 'groups=2'),
        (lambda: Conv(4, 0).init(jax.random.key(0), jnp.zeros((1, 5, 5, 4))), 'kernel_size=0'),
        (lambda: check_images(jnp.zeros((5, 5, 3)), 4, 'net'), 'B, H, W, C'),
        (lambda: check_images(jnp.zeros((1, 5, 3, 3)), 4, 'net'), '4x4'),
        (lambda: check_images(jnp.zeros((1, 5, 5, 1)), 4, 'net', 3), '3 channels'),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert '\n' not in str(caught.value)
