"""Networks of adaptation: layers written out, the parameters that the papers state, and spaces of several sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.models.domain_adversarial import digit_network, mlp_network, projected_network


def init(network, shape):
    return network.init(
        jax.random.key(0), jnp.zeros((1, *shape)), lambda features, logits: features, method='initialise'
    )


def test_the_network_of_coloured_digits_has_the_layers_of_irm():
    """Arjovsky et al.: 2 * 14 * 14 values, two layers of 390 with Glorot-uniform weights."""
    params = init(mlp_network(), (14, 14, 2))['params']
    sizes = {name: params['extractor'][name]['kernel'].shape for name in params['extractor']}
    assert sizes == {'dense1': (392, 390), 'dense2': (390, 390)}
    bound = np.sqrt(6 / (392 + 390))
    kernel = np.asarray(params['extractor']['dense1']['kernel'])
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert params['classifier']['kernel'].shape == (390, 2)


def test_domains_of_two_sizes_are_projected_into_one_space():
    network = projected_network(3, sizes=(16, 4), units=5)
    variables = init(network, (4, 4, 1))
    parts = variables['params']['extractor']
    assert set(parts) == {'project_16', 'project_4', 'shared'}  # both, though only one size was seen
    rng = np.random.default_rng(0)
    for shape, name in (((4, 4, 1), 'project_16'), ((1, 4, 1), 'project_4')):
        x = rng.normal(size=(3, *shape)).astype(np.float32)
        features = network.apply(variables, x, method='encode')
        hidden = np.maximum(x.reshape(3, -1) @ parts[name]['kernel'] + parts[name]['bias'], 0)
        expected = np.maximum(hidden @ parts['shared']['kernel'] + parts['shared']['bias'], 0)
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match='has no 9, the values of an image of 3x3x1; list the size of every domain'):
        network.apply(variables, np.zeros((1, 3, 3, 1)))


def test_dropout_is_of_training_alone():
    plain, dropped = (digit_network(channels=(2, 2), units=8, dropout=rate) for rate in (0.0, 0.5))
    variables = init(plain, (8, 8, 1))
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(*(network.apply(variables, x, method='encode') for network in (plain, dropped)))
    first, second = (
        np.asarray(dropped.apply(variables, x, True, method='encode', rngs={'dropout': jax.random.key(seed)}))
        for seed in (0, 1)
    )
    assert (first != second).any()
    # What is kept of the features is divided by the rate that is kept.
    assert np.mean(first == 0) > 0.4
