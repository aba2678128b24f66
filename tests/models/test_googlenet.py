"""GoogLeNet against table 1's counts, a float64 forward pass, torchvision's outputs, and single pixels."""

from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from canon import models
from canon.errors import UsageError
from canon.models import googlenet
from canon.weights.googlenet import TORCHVISION
from tests.models.drawn import images
from tests.models.goldens import Golden, check_bfloat16, check_evaluation, check_training_pass, count, shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit

NAMES = TORCHVISION['googlenet.googlenet']


def make(**kwargs) -> Any:
    return models.make_model('googlenet.googlenet', **kwargs)


@pytest.fixture(scope='module')
def golden():
    return Golden('googlenet')


@pytest.mark.parametrize(
    ('kwargs', 'parameters'),
    [
        ({}, 13_378_280),
        ({'auxiliary': False}, 6_998_552),
        ({'variant': 'torchvision'}, 13_004_888),
        ({'variant': 'torchvision', 'auxiliary': False}, 6_624_904),
    ],
)
def test_parameters(kwargs, parameters):
    variables = shapes_of(make(**kwargs), (1, 224, 224, 3))
    assert count(variables['params']) == parameters
    if not kwargs:  # the column "params" of table 1; 3a's is 163,696 with biases where the table prints 159K
        sizes = {k: count(v) for k, v in variables['params'].items()}
        assert sizes['conv1'] == 9472
        assert [round(sizes[f'inception_{k}'] / 1e3) for k in googlenet.INCEPTIONS] == [
            164, 389, 376, 449, 510, 605, 868, 1043, 1444,
        ]  # fmt: skip


def test_parameters_of_the_naive_module():
    """Figure 2(a): no 1x1 in front of the 3x3 and the 5x5 or behind the pooling, which passes all its channels on."""
    params = shapes_of(make(auxiliary=False, reductions=False), (1, 224, 224, 3))['params']
    inputs = 192
    for name, (ones, (_, threes), (_, fives), _) in googlenet.INCEPTIONS.items():
        expected = sum(inputs * n * k * k + n for n, k in ((ones, 1), (threes, 3), (fives, 5)))
        assert count(params[f'inception_{name}']) == expected
        inputs += ones + threes + fives
    assert count(params['fc']) == (inputs + 1) * 1000


def test_width():
    params = shapes_of(make(width=0.25), (1, 224, 224, 3))['params']
    assert params['conv1']['conv']['kernel'].shape == (7, 7, 3, 16)
    assert params['inception_5b']['branch3x3_2']['conv']['kernel'].shape == (3, 3, 48, 96)
    assert params['head_4a']['conv']['conv']['kernel'].shape == (1, 1, 128, 32)
    with pytest.raises(UsageError, match=r'model.width=0\.001'):
        shapes_of(make(width=0.001), (1, 224, 224, 3))


def test_stages():
    """The column "output size" of table 1."""
    model = make()
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    made = jax.eval_shape(model.init, jax.random.key(0), x)
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), made, x)
    assert {k: s.shape[1:] for k, s in stages.items()} == {
        'conv1': (112, 112, 64), 'conv2': (56, 56, 192), 'inception_3a': (28, 28, 256), 'inception_3b': (28, 28, 480),
        'inception_4a': (14, 14, 512), 'inception_4b': (14, 14, 512), 'inception_4c': (14, 14, 512),
        'inception_4d': (14, 14, 528), 'inception_4e': (14, 14, 832), 'inception_5a': (7, 7, 832),
        'inception_5b': (7, 7, 1024),
    }  # fmt: skip


def test_torchvision_small(golden):
    model = make(variant='torchvision', auxiliary=False)
    variables = golden.variables(shapes_of(model, (1, 64, 64, 3)), NAMES, without='aux')
    check_evaluation(model, variables, (2, 65, 80), golden.parts['small'])


@pytest.mark.slow
def test_torchvision_transform_input(golden):
    model = make(variant='torchvision', transform_input=True)
    variables = golden.variables(shapes_of(model, (1, 64, 64, 3)), NAMES)
    check_evaluation(model, variables, (1, 224, 224), golden.parts['large'])


@pytest.mark.parametrize('double', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_torchvision_training(golden, double):
    """Running statistics and both heads' logits after one step; torch's order of heads is 4d, 4a."""
    model = make(variant='torchvision', dropout=0.0, auxiliary_dropout=0.0)
    variables = golden.variables(shapes_of(model, (1, 64, 64, 3)), NAMES)
    check_training_pass(model, variables, (4, 72, 88), golden.parts['train'], NAMES, golden.shapes, double)


def draw_like(leaf):
    rng = np.random.default_rng(leaf.shape)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
    return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)


def float64(params, x):
    """The paper's network in windows and sums, float64: {stage or head: values}."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def windows(x, k, s, low, high, fill):
        x = np.pad(x, ((0, 0), (low, high), (low, high), (0, 0)), constant_values=fill)
        seen = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::s, ::s]
        return seen  # [B, H', W', C, k, k]

    def conv(x, unit, s=1):
        kernel = unit['conv']['kernel']
        pad = kernel.shape[0] // 2
        y = np.einsum('bhwcij,ijcn->bhwn', windows(x, kernel.shape[0], s, pad, pad, 0), kernel, optimize=True)
        return np.maximum(y + unit['conv']['bias'], 0)

    def pool(x):  # 3x3/2; a last window may hang over by one
        return windows(x, 3, 2, 0, x.shape[1] % 2 == 0, -np.inf).max((-2, -1))

    def lrn(x):
        squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
        return x / (1 + 1e-4 / 5 * sum(squares[..., i : i + x.shape[-1]] for i in range(5))) ** 0.75

    def dense(x, layer):
        return x @ layer['kernel'] + layer['bias']

    def head(x, h):
        pooled = windows(x, 5, 3, 0, 0, 0).mean((-2, -1))
        y = conv(pooled, h['conv']).reshape(len(x), -1)
        return dense(np.maximum(dense(y, h['fc1']), 0), h['fc2'])

    out = {'conv1': conv(x, p['conv1'], 2)}
    out['conv2'] = conv(conv(lrn(pool(out['conv1'])), p['conv2_reduce']), p['conv2'])
    x = pool(lrn(out['conv2']))
    for name in googlenet.INCEPTIONS:
        m = p[f'inception_{name}']
        x = pool(x) if name in ('4a', '5a') else x
        branches = [
            conv(x, m['branch1x1']),
            conv(conv(x, m['branch3x3_1']), m['branch3x3_2']),
            conv(conv(x, m['branch5x5_1']), m['branch5x5_2']),
            conv(windows(x, 3, 1, 1, 1, -np.inf).max((-2, -1)), m['branch_pool']),
        ]
        out[f'inception_{name}'] = x = np.concatenate(branches, -1)
        if name in ('4a', '4d'):
            out[f'auxiliary_{name}'] = head(x, p[f'head_{name}'])
    out['logits'] = dense(x.mean((1, 2)), p['fc'])
    return out


def test_the_paper_in_float64():
    """80x80 images: the heads' 5x5 pool stands on a 5x5 map, the pools meet even and odd sizes."""
    model = make(num_classes=7, dropout=0.0, auxiliary_dropout=0.0)
    x = images(2, 80, 80)
    variables = jax.tree.map(draw_like, shapes_of(model, x.shape))

    @quick_jit
    def compute_all(variables, x):
        logits, heads = model.apply(variables, x, True, mutable=['auxiliary'])
        return {'logits': logits, **model.apply(variables, x, method='features')} | {
            k: v for k, (v,) in heads['auxiliary'].items()
        }

    actual, expected = compute_all(variables, x), float64(variables['params'], x.astype(np.float64))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(actual[name] - value).max() / np.abs(value).max() < 2e-6, name


@pytest.mark.slow
def test_receptive_field_and_stride():
    """By table 1: 5x5 is the widest of a module, and a pool has no padding of its own."""
    model = make(auxiliary=False, num_classes=2)
    windows, paths = [(7, 2, 3)], {}
    paths['conv1'] = list(windows)
    windows += [(3, 2, 0), (3, 1, 1)]
    paths['conv2'] = list(windows)
    for name in googlenet.INCEPTIONS:
        windows += [(3, 2, 0)] * (name in ('3a', '4a', '5a')) + [(5, 1, 2)]
        paths[f'inception_{name}'] = list(windows)
    some = ('conv1', 'conv2', 'inception_3a', 'inception_4a', 'inception_4e', 'inception_5b')
    check_fields(model, shapes_of(model, (1, 64, 64, 3)), {k: paths[k] for k in some}, 1100, 31)


@pytest.mark.parametrize(
    ('variant', 'deviation'), [('paper', lambda fan: 1 / np.sqrt(fan)), ('torchvision', lambda fan: 0.01)]
)
@pytest.mark.slow
def test_initialisation(variant, deviation):
    """Caffe's xavier, U(+-sqrt(3 / fan_in)), has a deviation of 1 / sqrt(fan_in); biases ahead of a ReLU are 0.2."""
    model = make(variant=variant)
    x = np.zeros((1, 64, 64, 3), np.float32)
    some = ('conv1/conv', 'inception_4b/branch3x3_2/conv', 'head_4d/conv/conv', 'head_4d/fc1', 'head_4d/fc2', 'fc')

    @quick_jit
    def initial(key):  # of the rest nothing is computed
        layers = flatten_dict(model.init(key, x)['params'], sep='/')
        return {f'{name}/{leaf}': layers.get(f'{name}/{leaf}') for name in some for leaf in ('kernel', 'bias')}

    for path, leaf in initial(jax.random.key(3, impl='rbg')).items():
        if path.endswith('kernel'):
            expected = deviation(np.prod(leaf.shape[:-1]))
            assert abs(leaf.std() / expected - 1) < 5 / np.sqrt(leaf.size), path
            assert variant != 'paper' or np.abs(leaf).max() < np.sqrt(3) * expected * (1 + 1e-6)
        elif leaf is not None:
            ahead = variant == 'paper' and not path.endswith(('fc2/bias', 'fc/bias'))
            assert (leaf == np.float32(0.2 if ahead else 0)).all(), path


def test_auxiliary_heads_only_train():
    model = make(num_classes=5, dropout=0.0)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert variables.keys() == {'params'}  # nothing is sown while initialising

    def call(train, **rngs):
        return lambda v, x: model.apply(v, x, train, mutable=['auxiliary'], rngs=rngs)

    logits, sown = jax.eval_shape(call(True, dropout=jax.random.key(0)), variables, x)
    assert logits.shape == (2, 5)
    assert {k: [a.shape for a in v] for k, v in sown['auxiliary'].items()} == {
        'auxiliary_4a': [(2, 5)],
        'auxiliary_4d': [(2, 5)],
    }
    assert not jax.eval_shape(call(False), variables, x)[1]


def test_bfloat16():
    check_bfloat16(make(dtype='bfloat16', variant='torchvision'), 64)


def build(kwargs, size, channels=3):
    return shapes_of(make(**kwargs), (1, *size, channels))


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r"model\.variant='caffe' is unknown; there are paper, torchvision"):
        make(variant='caffe')
    with pytest.raises(UsageError, match='GoogLeNet with its heads takes images of at least 47x47, not 46x64; resize'):
        build({}, (46, 64))
    with pytest.raises(UsageError, match='GoogLeNet takes images of at least 31x31'):
        build({'auxiliary': False}, (30, 64))
    with pytest.raises(UsageError, match='at least 15x15'):
        build({'variant': 'torchvision'}, (14, 64))
    with pytest.raises(UsageError, match='of 3 channels, not 1'):
        build({'transform_input': True}, (64, 64), channels=1)
    for kwargs, least in (({}, 47), ({'auxiliary': False}, 31), ({'variant': 'torchvision'}, 15)):
        build(kwargs, (least, least))  # and the least sizes are so


def test_heads_keep_the_size_they_were_made_for():
    model, variables = make(dropout=0.0, auxiliary_dropout=0.0), build({}, (224, 224))
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    with pytest.raises(UsageError, match=r'auxiliary head_4a was made for 16 pixels and gets 1; train on images of'):
        jax.eval_shape(lambda v, x: model.apply(v, x, True, mutable=['auxiliary']), variables, x)
    assert jax.eval_shape(model.apply, variables, x).shape == (1, 1000)  # without training, any size does


def test_the_table():
    for row in googlenet.TABLE:
        made = shapes_of(models.make_model(row['name'], **row['arguments']), (1, row['size'], row['size'], 3))
        assert count(made['params']) == row['parameters']
