"""Network in Network against the authors' definitions counted by hand, a float64 forward pass, and single rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models import nin
from tests.models.drawn import images
from tests.models.goldens import shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit


def make(name, **kwargs) -> Any:
    return models.make_model(f'nin.{name}', **kwargs)


def layers(name) -> dict[str, tuple[int, ...]]:
    made = shapes_of(make(name), (1, 64, 64, 3))
    return {name: layer['kernel'].shape for name, layer in made['params'].items()}


def test_the_authors_definitions():
    assert layers('nin_cifar') == {
        'conv1': (5, 5, 3, 192), 'cccp1': (1, 1, 192, 160), 'cccp2': (1, 1, 160, 96),
        'conv2': (5, 5, 96, 192), 'cccp3': (1, 1, 192, 192), 'cccp4': (1, 1, 192, 192),
        'conv3': (3, 3, 192, 192), 'cccp5': (1, 1, 192, 192), 'cccp6': (1, 1, 192, 10),
    }  # fmt: skip
    assert layers('nin_imagenet') == {
        'conv1': (11, 11, 3, 96), 'cccp1': (1, 1, 96, 96), 'cccp2': (1, 1, 96, 96),
        'conv2': (5, 5, 96, 256), 'cccp3': (1, 1, 256, 256), 'cccp4': (1, 1, 256, 256),
        'conv3': (3, 3, 256, 384), 'cccp5': (1, 1, 384, 384), 'cccp6': (1, 1, 384, 384),
        'conv4': (3, 3, 384, 1024), 'cccp7': (1, 1, 1024, 1024), 'cccp8': (1, 1, 1024, 1000),
    }  # fmt: skip
    for row in nin.TABLE:
        made = shapes_of(models.make_model(row['name'], **row['arguments']), (1, row['size'], row['size'], 3))
        assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(made)) == row['parameters']


@pytest.mark.parametrize(
    ('name', 'size', 'sides'), [('nin_cifar', 32, [32, 16, 8]), ('nin_imagenet', 224, [54, 27, 13, 6])]
)
def test_sides(name, size, sides):
    """The authors' last pooling is 8x8 and 6x6: it is over the whole map, so poolings round up."""
    model = make(name)
    x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    made = jax.eval_shape(model.init, jax.random.key(0), x)
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), made, x)
    assert [s.shape[1] for s in stages.values()] == sides


def float64(params, x, strides):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def windows(x, k, s, before, after, fill=0.0):
        x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::s, ::s]

    for block, (stride, pad) in enumerate(strides, start=1):
        x = x if block == 1 else windows(x, 3, 2, 0, int(x.shape[1] % 2 == 0), -np.inf).max((-2, -1))
        for layer in (f'conv{block}', f'cccp{2 * block - 1}', f'cccp{2 * block}'):
            kernel, s, pad_ = p[layer]['kernel'], *((stride, pad) if layer.startswith('conv') else (1, 0))
            x = np.einsum('bhwcij,ijcn->bhwn', windows(x, kernel.shape[0], s, pad_, pad_), kernel, optimize=True)
            x = np.maximum(x + p[layer]['bias'], 0)
    return x.mean((1, 2))


@pytest.mark.parametrize(
    ('name', 'size', 'strides', 'stds'),
    [
        ('nin_cifar', 20, [(1, 2), (1, 2), (1, 1)], {}),
        ('nin_imagenet', 75, [(4, 0), (1, 2), (1, 1), (1, 1)], dict(conv1=0.01, conv3=0.01, cccp8=0.01)),
    ],
)
def test_in_float64(name, size, strides, stds):
    model, x = make(name, num_classes=5, width=0.1), 100 * images(2, size, size)

    @quick_jit
    def run(x):
        variables = model.init(jax.random.key(0, impl='rbg'), x)
        return variables, model.apply(variables, x)

    variables, actual = run(x)
    expected = float64(variables['params'], x.astype(np.float64), strides)
    assert (expected > 0).any()
    assert np.abs(actual - expected).max() < 3e-6 * np.abs(expected).max()
    for layer, p in variables['params'].items():
        assert (p['bias'] == 0).all(), layer
        assert abs(p['kernel'].std() / stds.get(layer, 0.05) - 1) < 4 / np.sqrt(p['kernel'].size), layer


def test_receptive_fields_and_strides():
    firsts = {'nin_cifar': [(5, 1, 2), (5, 1, 2), (3, 1, 1)],
              'nin_imagenet': [(11, 4, 0), (5, 1, 2), (3, 1, 1), (3, 1, 1)]}  # fmt: skip
    for name, first in firsts.items():
        paths, windows = {}, []
        for i, window in enumerate(first, start=1):
            windows += ([(3, 2, 0)] if i > 1 else []) + [window]
            paths[f'mlpconv{i}'] = list(windows)
        model = make(name, width=0.05, num_classes=2)
        check_fields(model, shapes_of(model, (1, 40, 40, 3)), paths, 350, 40)


def test_dropout_follows_the_poolings():
    """It is drawn in training only, twice on CIFAR and once on ImageNet."""
    for name, times in (('nin_cifar', 2), ('nin_imagenet', 1)):
        model, x = make(name), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)

        def train(v, x, model=model):
            return model.apply(v, x, True, rngs={'dropout': jax.random.key(0)})

        assert str(jax.make_jaxpr(train)(variables, x)).count('random_bits') == times
        assert 'random_bits' not in str(jax.make_jaxpr(model.apply)(variables, x))


def test_bfloat16_and_bad_arguments():
    x = jax.ShapeDtypeStruct((1, 40, 40, 3), np.float32)
    for name, least in (('nin_cifar', 4), ('nin_imagenet', 39)):
        model = make(name, dtype='bfloat16')
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
        assert jax.eval_shape(model.apply, variables, x).dtype == jnp.bfloat16
        shapes_of(model, (1, least, least, 3))
        with pytest.raises(UsageError, match=f'at least {least}x{least}, not {least - 1}x{least}; resize'):
            shapes_of(model, (1, least - 1, least, 3))
