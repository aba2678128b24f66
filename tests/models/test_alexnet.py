"""AlexNet against two half networks that exchange at conv3, torchvision's outputs, counts, and single rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models import alexnet
from canon.weights.alexnet import TORCHVISION
from tests.models.drawn import images
from tests.models.goldens import Golden, check_bfloat16, check_evaluation, count, shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit

NAMES = TORCHVISION['alexnet.alexnet_one_tower']


def make(name='alexnet', **kwargs) -> Any:
    return models.make_model(f'alexnet.{name}', **kwargs)


def test_the_table_of_counts():
    for row in alexnet.TABLE:
        made = shapes_of(models.make_model(row['name'], **row['arguments']), (1, row['size'], row['size'], 3))
        assert count(made['params']) == row['parameters']


def test_sides_and_units_of_the_paper():
    """Figure 2: 253,440 units after conv1 need it to stand over 55x55 of 48 + 48 maps, hence 227 pixels."""
    model = make()
    variables = shapes_of(model, (1, 227, 227, 3))
    x = jax.ShapeDtypeStruct((1, 227, 227, 3), np.float32)
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
    assert {k: s.shape[1:] for k, s in stages.items()} == {
        'conv1': (55, 55, 96), 'conv2': (27, 27, 256), 'conv3': (13, 13, 384), 'conv4': (13, 13, 384),
        'conv5': (13, 13, 256), 'pool5': (6, 6, 256),
    }  # fmt: skip
    assert {k: p['kernel'].shape for k, p in variables['params'].items()} == {
        'conv1': (11, 11, 3, 96), 'conv2': (5, 5, 48, 256), 'conv3': (3, 3, 256, 384), 'conv4': (3, 3, 192, 384),
        'conv5': (3, 3, 192, 256), 'fc6': (9216, 4096), 'fc7': (4096, 4096), 'fc8': (4096, 1000),
    }  # fmt: skip


def two_halves(params, x):
    """Figure 2 in float64: two networks of half the maps, which see each other's at conv3 and from fc6 on."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def windows(x, k, s, pad, fill=0.0):
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::s, ::s]

    def conv(x, layer, gpu, s=1, pad=0):
        kernel, bias = (np.split(p[layer][k], 2, axis=-1)[gpu] for k in ('kernel', 'bias'))
        y = np.einsum('bhwcij,ijcn->bhwn', windows(x, kernel.shape[0], s, pad), kernel, optimize=True)
        return np.maximum(y + bias, 0)

    def pool(x):
        return windows(x, 3, 2, 0).max((-2, -1))

    def norm(x):  # section 3.3, over the maps of one GPU
        out = np.empty_like(x)
        n = x.shape[-1]
        for i in range(n):
            near = x[..., max(0, i - 2) : min(n - 1, i + 2) + 1]
            out[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
        return out

    gpus = (0, 1)
    x = [pool(norm(conv(x, 'conv1', g, s=4))) for g in gpus]
    x = [pool(norm(conv(x[g], 'conv2', g, pad=2))) for g in gpus]
    joined = np.concatenate(x, -1)
    x = [conv(joined, 'conv3', g, pad=1) for g in gpus]
    x = [conv(x[g], 'conv4', g, pad=1) for g in gpus]
    x = [pool(conv(x[g], 'conv5', g, pad=1)) for g in gpus]
    x = np.concatenate(x, -1).reshape(len(joined), -1)
    for layer in ('fc6', 'fc7'):
        x = np.maximum(x @ p[layer]['kernel'] + p[layer]['bias'], 0)
    return x @ p['fc8']['kernel'] + p['fc8']['bias']


def test_the_groups_are_two_half_networks():
    """With images so loud that LRN's sums weigh: where they reach across the halves, the answer is another."""
    model, across = make(num_classes=7, width=0.125), make(num_classes=7, width=0.125, variant='caffe')
    x = 3000 * images(2, 99, 83)

    @quick_jit
    def run(x):
        variables = model.init(jax.random.key(0, impl='rbg'), x)
        loud = jax.tree_util.tree_map_with_path(lambda path, a: 5 * a if path[-1].key == 'kernel' else a, variables)
        undivided = model.clone(variant=model.variant._replace(per_group=False))
        return loud, model.apply(loud, x), undivided.apply(loud, x), across.apply(loud, x)

    variables, actual, undivided, caffe = run(x)
    expected = two_halves(variables['params'], x.astype(np.float64))
    scale = np.abs(expected).max()
    assert np.abs(actual - expected).max() < 3e-6 * scale
    assert np.abs(undivided - expected).max() > 1e-3 * scale
    assert np.abs(caffe - expected).max() > 1e-3 * scale


@pytest.fixture(scope='module')
def golden():
    stored = Golden('alexnet')
    model = make('alexnet_one_tower')
    return stored, model, stored.variables(shapes_of(model, (1, 224, 224, 3)), NAMES)


@pytest.mark.parametrize(('part', 'size'), [('large', (1, 224, 224)), ('small', (2, 100, 70))])
def test_torchvision(golden, part, size):
    actual, model, variables = golden
    check_evaluation(model, variables, size, actual.parts[part])


def test_receptive_fields_and_strides():
    pool, same = (3, 2, 0), (3, 1, 1)
    for name, first in (('alexnet', (11, 4, 0)), ('alexnet_one_tower', (11, 4, 2))):
        paths = {'conv1': [first]}
        paths['conv2'] = [*paths['conv1'], pool, (5, 1, 2)]
        paths['conv3'] = [*paths['conv2'], pool, same]
        paths['conv4'] = [*paths['conv3'], same]
        paths['conv5'] = [*paths['conv4'], same]
        paths['pool5'] = [*paths['conv5'], pool]
        model = make(name, width=0.05)
        check_fields(model, shapes_of(model, (1, 67, 67, 3)), paths, 450, 67)


@pytest.mark.slow
def test_initialisation():
    """Section 5: N(0, 0.01), and biases of 1 in conv2, conv4, conv5, fc6, fc7. Caffe's: 0.1, and 0.005 in fc6, fc7."""
    x, key = np.zeros((1, 67, 67, 3), np.float32), jax.random.key(0, impl='rbg')  # it compiles faster
    for variant, bias, std in (('paper', 1.0, 0.01), ('caffe', 0.1, 0.005)):
        params = quick_jit(make(variant=variant, width=0.1).init)(key, x)['params']
        for name, layer in params.items():
            raised = name in ('conv2', 'conv4', 'conv5', 'fc6', 'fc7')
            assert (layer['bias'] == np.float32(bias if raised else 0)).all(), name
            expected = std if name in ('fc6', 'fc7') else 0.01
            assert abs(layer['kernel'].std() / expected - 1) < 4 / np.sqrt(layer['kernel'].size), name
    params = quick_jit(make(init='he', width=0.1).init)(key, x)['params']
    for name, layer in params.items():
        assert (layer['bias'] == 0).all(), name
        expected = np.sqrt(2 / np.prod(layer['kernel'].shape[:-1]))
        assert abs(layer['kernel'].std() / expected - 1) < 4 / np.sqrt(layer['kernel'].size), name
    params = quick_jit(make('alexnet_one_tower', width=0.1).init)(key, x)['params']
    for name, layer in params.items():
        bound = np.prod(layer['kernel'].shape[:-1]) ** -0.5
        for leaf in layer.values():
            assert 0 < np.abs(leaf).max() <= bound, name
        assert abs(layer['kernel'].std() * np.sqrt(3) / bound - 1) < 4 / np.sqrt(layer['kernel'].size), name


def test_positions_of_dropout():
    """After fc6 and fc7 in 2012, so some of fc8's inputs vanish; before them in torchvision's, so none does there."""
    x = jnp.asarray(images(1, 67, 67))
    for name, zeros in (('alexnet', (0.3, 0.7)), ('alexnet_one_tower', (0.0, 0.0))):
        model = make(name, width=0.1, num_classes=3)

        @quick_jit
        def inputs(x, model=model):
            variables = model.init(jax.random.key(0, impl='rbg'), x)
            high = jax.tree.map(lambda a: jnp.abs(a) + 0.1, variables)['params']  # no ReLU of fc7 is shut

            def total(last):
                return model.apply(
                    {'params': {**high, 'fc8': last}}, x, True, rngs={'dropout': jax.random.key(1, impl='rbg')}
                ).sum()

            return jax.grad(total)(high['fc8'])['kernel'][:, 0]  # fc8 is linear: this is its input

        share = float((inputs(x) == 0).mean())
        assert zeros[0] <= share <= zeros[1], (name, share)


def test_bfloat16():
    for name in ('alexnet', 'alexnet_one_tower'):
        check_bfloat16(make(name, dtype='bfloat16'), 67)


def test_bad_arguments_are_refused():
    for name, least in (('alexnet', 67), ('alexnet_one_tower', 63)):
        shapes_of(make(name), (1, least, least, 3))
        with pytest.raises(UsageError, match=f'at least {least}x{least}, not {least - 1}x{least}; resize'):
            shapes_of(make(name), (1, least - 1, least, 3))
        with pytest.raises(UsageError, match=r'model\.width=0\.001 leaves none of \d+ channels'):
            shapes_of(make(name, width=0.001), (1, 67, 67, 3))
    with pytest.raises(UsageError, match=r"model\.variant='cafe' is unknown; did you mean 'caffe'"):
        make(variant='cafe')
    with pytest.raises(UsageError, match=r"model\.init='hee' is unknown; did you mean 'he'"):
        make(init='hee')
