"""LoRA on any Dense or Conv: counted parameters, the plain network at the start, and an exact merge."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.nn import count_adapters, init_adapters, merge_adapters


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name='conv')(x))
        return nn.Dense(5, name='head')(x.mean((1, 2)))


@pytest.fixture(scope='module')
def network():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    return Small(), Small().init(jax.random.key(1), x)['params'], x


def test_adapters_have_the_counted_parameters_and_start_as_the_network(network):
    model, params, x = network
    adapters = init_adapters(jax.random.key(2), params, 2)
    assert set(adapters) == {'conv/kernel', 'head/kernel'}
    assert count_adapters(adapters) == 2 * (27 + 6) + 2 * (6 + 5)
    plain = model.apply({'params': params}, x)
    np.testing.assert_array_equal(model.apply({'params': merge_adapters(params, adapters)}, x), plain)
    assert set(init_adapters(jax.random.key(2), params, 1, '^head/kernel$')) == {'head/kernel'}


def test_what_is_merged_computes_what_adapters_add(network):
    """x W + (alpha / r) (x a) b, computed as two products next to the plain layers, against the merged weights."""
    model, params, x = network
    adapters = init_adapters(jax.random.key(2), params, 2)
    adapters = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(3), leaf.shape), adapters)
    conv, head = adapters['conv/kernel'], adapters['head/kernel']
    shape = (3, 3, 3, 2)
    low = jax.lax.conv_general_dilated(
        x, conv['a'].reshape(shape), (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    wide = nn.Conv(6, (3, 3)).apply({'params': params['conv']}, x) + 4 / 2 * low @ conv['b']
    pooled = nn.relu(wide).mean((1, 2))
    expected = pooled @ params['head']['kernel'] + params['head']['bias'] + 4 / 2 * pooled @ head['a'] @ head['b']
    merged = merge_adapters(params, adapters, alpha=4)
    np.testing.assert_allclose(model.apply({'params': merged}, x), expected, rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    # Of b alone the first gradient is not 0: a then follows.
    fresh = init_adapters(jax.random.key(2), params, 2)
    gradient = jax.grad(lambda d: model.apply({'params': merge_adapters(params, d)}, x).sum())(fresh)
    assert np.abs(gradient['head/kernel']['b']).max() > 0
    assert not np.asarray(gradient['head/kernel']['a']).any()


def test_errors_of_adapters(network):
    params = network[1]
    key = jax.random.key(0)
    with pytest.raises(UsageError, match='matches no parameter'):
        init_adapters(key, params, 1, 'kernels$')
    with pytest.raises(UsageError, match='is not a kernel'):
        init_adapters(key, params, 1, 'bias$')
    with pytest.raises(UsageError, match=r'rank=6 must be in 1\.\.5 for head/kernel'):
        init_adapters(key, params, 6)
    with pytest.raises(UsageError, match='fits no kernel'):
        merge_adapters({'other': {'kernel': jnp.zeros((2, 2))}}, init_adapters(key, params, 1))
