"""DomainBed's network by its count, and layer by layer in double precision."""

import jax
import numpy as np
import pytest

from canon import models

NETWORK = models.make_model('domainbed.mnist_network', num_classes=2)


def start(network, method):
    """Returns the parameters for images of two channels, of 8x8 pixels."""
    features = lambda features, logits: features  # noqa: E731
    return method(lambda key: network.init(key, np.zeros((1, 8, 8, 2), np.float32), features, method='initialise'))


def test_the_count_of_domainbed():
    shapes = start(NETWORK, lambda init: jax.eval_shape(init, jax.random.key(0)))['params']
    # torch: 1,216 + 73,856 + 2 x 147,584 of the convolutions, 128 + 3 x 256 of the norms.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['extractor'])) == 371_136
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes['classifier'])) == 128 * 2 + 2


def convolve(x, kernel, stride):
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
    return np.einsum('bhwcij,ijcf->bhwf', windows[:, ::stride, ::stride], kernel)


@pytest.mark.slow
def test_layers_written_out():
    params = start(NETWORK, lambda init: init(jax.random.key(0)))['params']
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2))
    ours = NETWORK.apply({'params': params}, np.asarray(x, np.float32), method='encode')
    for number, stride in enumerate((1, 2, 1, 1), 1):
        layer = params['extractor'][f'conv{number}']
        x = np.maximum(convolve(x, np.asarray(layer['kernel'], np.float64), stride) + np.asarray(layer['bias']), 0)
        groups = x.reshape(*x.shape[:3], 8, -1)
        mean, var = (f(groups, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
        x = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)  # scale 1 and bias 0 at the start
    np.testing.assert_allclose(ours, x.mean((1, 2)), atol=2e-5)
