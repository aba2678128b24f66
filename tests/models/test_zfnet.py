"""ZFNet against the sides that the paper prints, a float64 forward pass, and single rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models import zfnet
from tests.models.drawn import images
from tests.models.goldens import shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit


def make(**kwargs) -> Any:
    return models.make_model('zfnet.zfnet', **kwargs)


def test_counts_and_sides_of_figure_3():
    model = make()
    variables = shapes_of(model, (1, 224, 224, 3))
    sizes = [sum(int(np.prod(leaf.shape)) for leaf in layer.values()) for layer in variables['params'].values()]
    by_hand = [
        7 * 7 * 3 * 96 + 96, 5 * 5 * 96 * 256 + 256, 3 * 3 * 256 * 384 + 384, 3 * 3 * 384 * 384 + 384,
        3 * 3 * 384 * 256 + 256, 6 * 6 * 256 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000,
    ]  # fmt: skip
    assert sizes == by_hand
    assert sum(sizes) == zfnet.TABLE[0]['parameters']
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
    assert [s.shape[1] for s in stages.values()] == [110, 26, 13, 13, 13, 6]


def float64(params, x):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def windows(x, k, s, before, after, fill=0.0):
        x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::s, ::s]

    def conv(x, layer, s=1, pad=0):
        kernel, bias = p[layer]['kernel'], p[layer]['bias']
        y = np.einsum('bhwcij,ijcn->bhwn', windows(x, kernel.shape[0], s, pad, pad), kernel, optimize=True)
        return np.maximum(y + bias, 0)

    def pool(x):  # a last window may hang over by one row
        return windows(x, 3, 2, 0, int(x.shape[1] % 2 == 0), -np.inf).max((-2, -1))

    def norm(x):
        squares = np.pad(x**2, ((0, 0),) * 3 + ((2, 2),))
        return x / (2 + 1e-4 * sum(squares[..., i : i + x.shape[-1]] for i in range(5))) ** 0.75

    x = norm(pool(conv(x, 'conv1', s=2, pad=1)))
    x = norm(pool(conv(x, 'conv2', s=2)))
    for layer in ('conv3', 'conv4', 'conv5'):
        x = conv(x, layer, pad=1)
    x = pool(x).reshape(len(x), -1)
    for layer in ('fc6', 'fc7'):
        x = np.maximum(x @ p[layer]['kernel'] + p[layer]['bias'], 0)
    return x @ p['fc8']['kernel'] + p['fc8']['bias']


def test_the_paper_in_float64():
    model, x = make(num_classes=5, width=0.125), 1000 * images(2, 96, 96)

    @quick_jit
    def run(x):
        variables = model.init(jax.random.key(0, impl='rbg'), x)
        loud = jax.tree.map(lambda a: 10 * a, variables)
        return loud, model.apply(loud, x)

    variables, actual = run(x)
    expected = float64(variables['params'], x.astype(np.float64))
    assert np.abs(actual - expected).max() < 3e-6 * np.abs(expected).max()
    for name, layer in variables['params'].items():
        assert abs(layer['kernel'].std() / 0.1 - 1) < 4 / np.sqrt(layer['kernel'].size), name
        assert (layer['bias'] == 0).all(), name


def test_receptive_fields_and_strides():
    pool, same = (3, 2, 0), (3, 1, 1)
    paths = {'conv1': [(7, 2, 1)]}
    paths['conv2'] = [*paths['conv1'], pool, (5, 2, 0)]
    paths['conv3'] = [*paths['conv2'], pool, same]
    paths['conv4'] = [*paths['conv3'], same]
    paths['conv5'] = [*paths['conv4'], same]
    paths['pool5'] = [*paths['conv5'], pool]
    model = make(width=0.05)
    check_fields(model, shapes_of(model, (1, 47, 47, 3)), paths, 400, 47)


def test_bfloat16_and_bad_arguments():
    x = jax.ShapeDtypeStruct((1, 47, 47, 3), np.float32)
    model = make(dtype='bfloat16')
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    assert jax.eval_shape(model.apply, variables, x).dtype == jnp.bfloat16
    with pytest.raises(UsageError, match='ZFNet takes images of at least 47x47, not 46x47; resize'):
        shapes_of(model, (1, 46, 47, 3))
