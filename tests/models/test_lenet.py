"""LeNet-5, modern and as published, against the counts of its paper's layers and float64 numpy forward passes."""

import functools

import jax
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models import lenet
from tests.models.reach import check_fields


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@functools.cache
def variables(name='lenet.lenet5', **kwargs):
    model = models.make_model(name, **kwargs)
    return model, jax.jit(model.init)(jax.random.key(0, impl='rbg'), np.zeros((1, 32, 32, 1), np.float32))


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
    model, initial = variables(dtype=dtype)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(initial))
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype(np.float32)
    expected = forward(initial['params'], images)
    actual = np.asarray(jax.jit(model.apply)(initial, images), np.float64)
    np.testing.assert_allclose(actual, expected, atol=tolerance * np.abs(expected).max())


def test_logits_are_computed_from_the_stages():
    model, initial = variables()
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 1)).astype(np.float32)
    logits, stages = jax.jit(lambda v, x: (model.apply(v, x), model.apply(v, x, method='features')))(initial, images)
    assert {name: x.shape[1:] for name, x in stages.items()} == {
        'C1': (28, 28, 6), 'S2': (14, 14, 6), 'C3': (10, 10, 16), 'S4': (5, 5, 16), 'C5': (1, 1, 120),
    }  # fmt: skip
    p = initial['params']
    f6 = np.tanh(stages['C5'][:, 0, 0] @ p['F6']['kernel'] + p['F6']['bias'])
    np.testing.assert_allclose(logits, f6 @ p['output']['kernel'] + p['output']['bias'], atol=2e-6)


def published(**kwargs):
    return variables('lenet.lenet5_1998', **kwargs)


def test_the_published_one_has_60000_parameters():
    """All numbers are those of section II.B; the output layer is fixed."""
    _, initial = published()
    sizes = {name: count(layer) for name, layer in initial['params'].items()}
    assert sizes == {'C1': 156, 'S2': 12, 'C3': 1516, 'S4': 32, 'C5': 48120, 'F6': 10164}
    assert sum(sizes.values()) == 60000
    assert initial.keys() == {'params'}


def test_table_i():
    """Each row of the table in the paper: which maps of C3 see that map of S2."""
    rows = [
        (0, 4, 5, 6, 9, 10, 11, 12, 14, 15),
        (0, 1, 5, 6, 7, 10, 11, 12, 13, 15),
        (0, 1, 2, 6, 7, 8, 11, 13, 14, 15),
        (1, 2, 3, 6, 7, 8, 9, 12, 14, 15),
        (2, 3, 4, 7, 8, 9, 10, 12, 13, 15),
        (3, 4, 5, 8, 9, 10, 11, 13, 14, 15),
    ]
    assert [tuple(n for n, seen in enumerate(lenet._C3) if m in seen) for m in range(6)] == rows


def forward_1998(params, images):
    """The network of section II.B in loops, float64: the penalties y."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def f(a):
        return 1.7159 * np.tanh(2 / 3 * a)

    def sub_sample(x, layer):
        total = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
        return f(total * p[layer]['kernel'] + p[layer]['bias'])

    def correlate(x, kernel):
        n = x.shape[1] - 4
        return sum(kernel[i, j] * x[:, i : i + n, j : j + n] for i in range(5) for j in range(5))

    def conv(x, layer, inputs):
        kernels = iter(np.moveaxis(p[layer]['kernel'].reshape(5, 5, -1), -1, 0))
        maps = [sum(correlate(x[..., m], next(kernels)) for m in seen) for seen in inputs]
        return f(np.stack(maps, -1) + p[layer]['bias'])

    def full(x, layer):
        kernel = p[layer]['kernel']
        maps = [
            sum(correlate(x[..., m], kernel[..., m, n]) for m in range(x.shape[-1])) for n in range(kernel.shape[-1])
        ]
        return f(np.stack(maps, -1) + p[layer]['bias'])

    x = sub_sample(conv(sub_sample(full(images, 'C1'), 'S2'), 'C3', lenet._C3), 'S4')
    x = full(x, 'C5').reshape(len(images), -1)
    x = f(x @ p['F6']['kernel'] + p['F6']['bias'])
    return np.stack([((x - code) ** 2).sum(-1) for code in lenet._codes()], -1)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(None, 2e-6), ('bfloat16', 3e-2)])
def test_published_forward(dtype, tolerance):
    model, initial = published(dtype=dtype)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(initial))
    images = np.random.default_rng(0).uniform(-0.1, 1.175, (3, 32, 32, 1)).astype(np.float32)
    expected = -forward_1998(initial['params'], images)
    actual = np.asarray(jax.jit(model.apply)(initial, images), np.float64)
    np.testing.assert_allclose(actual, expected, atol=tolerance * np.abs(expected).max())


def test_the_pictures_of_the_digits():
    """Seven pixels wide and twelve high, of -1 and 1, an empty row above and below, each far from every other."""
    codes = lenet._codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1, 1}
    pictures = codes.reshape(10, 12, 7)
    assert (pictures[:, [0, 11]] == -1).all()
    np.testing.assert_array_equal(pictures[0], pictures[0][:, ::-1])  # nought and eight are their own mirror images
    np.testing.assert_array_equal(pictures[8], pictures[8][:, ::-1])
    apart = (codes[:, None] != codes[None]).sum(-1)[~np.eye(10, dtype=bool)]
    assert apart.min() >= 6


def test_published_initialisation():
    """U(+-2.4 / F): 75, 100 and 150 inputs in C3, four in S2 and S4."""
    _, made = published()
    p = made['params']
    assert all((layer['bias'] == 0).all() for layer in p.values())
    fans = {'C1': 25, 'S2': 4, 'S4': 4, 'C5': 400, 'F6': 120}
    parts = {name: (p[name]['kernel'], fan) for name, fan in fans.items()}
    parts |= {f'C3 {fan}': (p['C3']['kernel'][..., cut], fan) for fan, cut in
              ((75, slice(0, 18)), (100, slice(18, 54)), (150, slice(54, 60)))}  # fmt: skip
    for name, (kernel, fan) in parts.items():
        bound = 2.4 / fan
        assert np.abs(kernel).max() <= bound, name
        assert np.abs(kernel).max() > 0.5 * bound, name
        if kernel.size > 100:
            assert abs(kernel.std() / (bound / np.sqrt(3)) - 1) < 4 / np.sqrt(kernel.size), name


def test_receptive_fields():
    model = models.make_model('lenet.lenet5')
    windows = {'C1': [(5, 1, 0)]}
    for name, before, window in (('S2', 'C1', (2, 2, 0)), ('C3', 'S2', (5, 1, 0)), ('S4', 'C3', (2, 2, 0)),
                                 ('C5', 'S4', (5, 1, 0))):  # fmt: skip
        windows[name] = [*windows[before], window]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    check_fields(model, shapes, windows, 80, 32)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r"model\.pool='mean' is unknown; there are average, max"):
        models.make_model('lenet.lenet5', pool='mean')
    with pytest.raises(UsageError, match=r"model\.classes: lenet5 takes no such key; did you mean 'num_classes'"):
        models.make_model('lenet.lenet5', classes=3)
    with pytest.raises(UsageError, match='LeNet-5 takes images of at least 32x32, not 28x28; resize them'):
        models.make_model('lenet.lenet5').init(jax.random.key(0), np.zeros((1, 28, 28, 1)))
    with pytest.raises(UsageError, match='LeNet-5 takes images of at least 32x32, not 28x28; resize them'):
        models.make_model('lenet.lenet5_1998').init(jax.random.key(0), np.zeros((1, 28, 28, 1)))
    with pytest.raises(UsageError, match=r'model\.num_classes=11: LeNet-5 of 1998 has bitmaps of the ten digits'):
        models.make_model('lenet.lenet5_1998', num_classes=11)
