"""LeNet-5 against the counts of its paper's layers and a float64 numpy forward pass."""

import jax
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def variables(**kwargs):
    model = models.make('lenet.lenet5', **kwargs)
    return model, model.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))


def test_parameters():
    """C1 156, C5 48,120 and F6 10,164 are the paper's; C3 is 2,416 when connected to all of S2; 850 for the output."""
    _, made = variables()
    sizes = {name: count(layer) for name, layer in made['params'].items()}
    assert sizes == {'C1': 156, 'C3': 2416, 'C5': 48120, 'F6': 10164, 'output': 850}
    assert sum(sizes.values()) == 61706


def forward(params, images):
    """The network in loops, float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def conv(x, layer):
        kernel, bias = p[layer]['kernel'], p[layer]['bias']
        n = x.shape[1] - 4
        out = np.zeros((len(x), n, n, kernel.shape[-1]))
        for i in range(n):
            for j in range(n):
                out[:, i, j] = np.tensordot(x[:, i : i + 5, j : j + 5], kernel, 3) + bias
        return np.tanh(out)

    def pool(x):
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    x = conv(pool(conv(pool(conv(images, 'C1')), 'C3')), 'C5').reshape(len(images), -1)
    x = np.tanh(x @ p['F6']['kernel'] + p['F6']['bias'])
    return x @ p['output']['kernel'] + p['output']['bias']


@pytest.mark.parametrize(('dtype', 'tolerance'), [(None, 2e-6), ('bfloat16', 3e-2)])
def test_forward(dtype, tolerance):
    model, made = variables(dtype=dtype)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(made))
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype(np.float32)
    wanted = forward(made['params'], images)
    found = np.asarray(model.apply(made, images), np.float64)
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


def test_what_is_refused():
    with pytest.raises(UsageError, match=r"model\.pool='mean' is unknown; there are average, max"):
        models.make('lenet.lenet5', pool='mean')
    with pytest.raises(UsageError, match=r"model\.classes: lenet5 takes no such key; did you mean 'num_classes'"):
        models.make('lenet.lenet5', classes=3)
    with pytest.raises(UsageError, match='pad or resize'):
        models.make('lenet.lenet5').init(jax.random.key(0), np.zeros((1, 28, 28, 1)))
