"""BN-Inception, Inception v2, v3, v4 against their papers' tables, torchvision's and timm's outputs, lit rows."""

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from canon import models, weights
from canon.errors import UsageError
from canon.models import inception
from canon.weights.inception import TIMM, TORCHVISION
from tests.models.drawn import images
from tests.models.goldens import Golden, check_bfloat16, check_evaluation, check_training_pass, count, shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit

V3, V4 = TORCHVISION['inception.inception_v3'], TIMM['inception.inception_v4']


def make(name: str, **kwargs) -> Any:
    return models.make_model(f'inception.{name}', **kwargs)


@cache
def build(name: str, size=(75, 75), channels=3, **kwargs):
    return shapes_of(make(name, **kwargs), (1, *size, channels))


def stages_of(name, size):
    model, variables = make(name), build(name, (size, size))
    x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return {
        k: s.shape[1:]
        for k, s in jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x).items()
    }


# --- counts and tables ---


@pytest.mark.parametrize(
    ('name', 'kwargs', 'parameters'),
    [
        ('bn_inception', {}, 11_194_984),
        ('bn_inception', {'separable_stem': True}, 11_194_984 - 7 * 7 * 3 * 64 + 7 * 7 * 3 * 8 + 3 * 8 * 64),
        ('inception_v3', {}, 27_161_264),
        ('inception_v3', {'auxiliary': False}, 23_834_568),
        ('inception_v4', {}, 42_679_816),
    ],
)
def test_parameters(name, kwargs, parameters):
    size = 224 if name == 'bn_inception' else 299
    assert count(build(name, (size, size), **kwargs)['params']) == parameters


def test_parameters_of_v2():
    """v3's count, and what differs, by hand: a convolution is k k C N weights, and N scales and N shifts."""

    def conv(area, channels, filters):
        return area * channels * filters + 2 * filters

    params = build('inception_v2', (299, 299))['params']
    v3 = build('inception_v3', (299, 299))['params']
    sizes, of_v3 = ({k: count(v) for k, v in p.items()} for p in (params, v3))
    assert {k for k in sizes if sizes[k] != of_v3.get(k)} == {
        'conv_3b', 'conv_4b', 'mixed_5b', 'mixed_5c', 'mixed_5d', 'mixed_6e', 'mixed_6f', 'head',
    }  # fmt: skip
    assert sizes['conv_3b'] == conv(9, 64, 80)
    assert sizes['conv_4b'] == conv(9, 192, 288)
    for name in ('mixed_5b', 'mixed_5c', 'mixed_5d'):
        assert sizes[name] == of_v3['mixed_5d'] - conv(25, 48, 64) + conv(9, 48, 64)
    assert sizes['mixed_6e'] == of_v3['mixed_6d']
    assert sizes['mixed_6f'] == of_v3['mixed_6e']
    assert sizes['head'] == conv(1, 768, 128) + 25 * 128 * 1024 + 1024 + 1025 * 1000
    assert count(params) == 30_355_632


def test_the_table():
    for row in inception.TABLE:
        name, size = row['name'].removeprefix('inception.'), row['size']
        made = build(name, (size, size), **row['arguments'])
        assert count(made['params']) == row['parameters'], row


def test_stages_of_bn_inception():
    """The column "output size" of figure 5; its 3c and 4e are printed with the size they take."""
    assert stages_of('bn_inception', 224) == {
        'conv1': (112, 112, 64), 'conv2_reduce': (56, 56, 64), 'conv2': (56, 56, 192), 'inception_3a': (28, 28, 256),
        'inception_3b': (28, 28, 320), 'inception_3c': (14, 14, 576), 'inception_4a': (14, 14, 576),
        'inception_4b': (14, 14, 576), 'inception_4c': (14, 14, 576), 'inception_4d': (14, 14, 576),
        'inception_4e': (7, 7, 1024), 'inception_5a': (7, 7, 1024), 'inception_5b': (7, 7, 1024),
    }  # fmt: skip


def test_stages_of_v2():
    """Rethinking's table 1: the input size of each row is the output of the one before."""
    stages = stages_of('inception_v2', 299)
    assert {k: stages[k] for k in ('conv_1a', 'conv_2a', 'conv_2b', 'conv_3b', 'conv_4a', 'conv_4b')} == {
        'conv_1a': (149, 149, 32), 'conv_2a': (147, 147, 32), 'conv_2b': (147, 147, 64), 'conv_3b': (71, 71, 80),
        'conv_4a': (35, 35, 192), 'conv_4b': (35, 35, 288),
    }  # fmt: skip
    assert {k: s for k, s in stages.items() if k.startswith('mixed')} == {
        **{f'mixed_5{k}': (35, 35, 288) for k in 'bcd'},
        **{f'mixed_6{k}': (17, 17, 768) for k in 'abcdef'},
        'mixed_7a': (8, 8, 1280), 'mixed_7b': (8, 8, 2048), 'mixed_7c': (8, 8, 2048),
    }  # fmt: skip


def test_stages_of_v4():
    """Figure 9: 35x35x384, 17x17x1024, 8x8x1536; and figure 3's stem."""
    stages = stages_of('inception_v4', 299)
    assert [stages[f'stem_mixed{i}'] for i in (1, 2, 3)] == [(73, 73, 160), (71, 71, 192), (35, 35, 384)]
    assert {k: s for k, s in stages.items() if not k.startswith('stem')} == {
        **{f'inception_a{i}': (35, 35, 384) for i in range(1, 5)},
        **{f'inception_b{i}': (17, 17, 1024) for i in range(1, 8)},
        **{f'inception_c{i}': (8, 8, 1536) for i in range(1, 4)},
        'reduction_a': (17, 17, 1024), 'reduction_b': (8, 8, 1536),
    }  # fmt: skip


# --- against peers ---


def test_v3_small():
    golden, model = Golden('inception_v3'), make('inception_v3', auxiliary=False)
    variables = golden.variables(build('inception_v3', auxiliary=False), V3, without='AuxLogits')
    check_evaluation(model, variables, (2, 75, 107), golden.parts['small'])


@pytest.mark.slow
def test_v3_transform_input():
    golden, model = Golden('inception_v3'), make('inception_v3', transform_input=True)
    check_evaluation(
        model, golden.variables(build('inception_v3', (299, 299)), V3), (1, 299, 299), golden.parts['large']
    )


@pytest.mark.slow
def test_v3_training():
    """In float64: torch's own float32 is 2e-4 from it in the logits, 3e-5 in the statistics (v4: 4e-3, 9e-4)."""
    golden, model = Golden('inception_v3'), make('inception_v3', auxiliary=False, dropout=0.0)
    variables = golden.variables(build('inception_v3', auxiliary=False), V3, without='AuxLogits')
    main = [k for k in golden.shapes if not k.startswith('AuxLogits')]
    check_training_pass(model, variables, (2, 107, 123), golden.parts['train'], V3, main, double=True)


@pytest.mark.slow
def test_v3_training_with_its_head():
    golden, model = Golden('inception_v3'), make('inception_v3', dropout=0.0)
    variables = golden.variables(build('inception_v3', (299, 299)), V3)
    check_training_pass(model, variables, (2, 299, 299), golden.parts['heads'], V3, golden.shapes, double=True)


@pytest.mark.slow
@pytest.mark.parametrize(('part', 'size'), [('small', (2, 75, 107)), ('large', (1, 299, 299))])
def test_v4(part, size):
    golden, model = Golden('inception_v4'), make('inception_v4')
    check_evaluation(model, golden.variables(build('inception_v4'), V4), size, golden.parts[part])


@pytest.mark.slow
def test_v4_training():
    golden, model = Golden('inception_v4'), make('inception_v4', dropout=0.0)
    variables = golden.variables(build('inception_v4'), V4)
    check_training_pass(model, variables, (2, 107, 123), golden.parts['train'], V4, golden.shapes, double=True)


def test_published_names():
    """Every key and shape of torchvision's and timm's, and whose they are."""
    assert weights.find_names('inception.inception_v3').keys() == {
        ('torchvision', 'inception.inception_v3'),
        ('timm', 'inception.inception_v3'),
    }
    tensors = {k: np.broadcast_to(np.float32(0), s) for k, s in Golden('inception_v4').shapes.items()}
    weights.from_torch(tensors, build('inception_v4'), V4)  # raises where a key or a shape differs
    with pytest.raises(UsageError, match=r'shapes: last_linear\.bias \[1000\], here \[5\]'):
        weights.from_torch(tensors, build('inception_v4', num_classes=5), V4)


# --- BN-Inception, which no peer publishes, in float64 ---


FIGURE_5 = {  # 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool and projection (4c, 4d: 96)
    '3a': (64, 64, 64, 64, 96, 'avg', 32),
    '3b': (64, 64, 96, 64, 96, 'avg', 64),
    '3c': (0, 128, 160, 64, 96, 'max', 0),
    '4a': (224, 64, 96, 96, 128, 'avg', 128),
    '4b': (192, 96, 128, 96, 128, 'avg', 128),
    '4c': (160, 128, 160, 128, 160, 'avg', 96),
    '4d': (96, 128, 192, 160, 192, 'avg', 96),
    '4e': (0, 128, 192, 192, 256, 'max', 0),
    '5a': (352, 192, 320, 160, 224, 'avg', 128),
    '5b': (352, 192, 320, 192, 224, 'max', 128),
}


def windows(x, k, s, fill):
    """'same': ceil(n / s) windows, the odd row of padding below. [B, H', W', C, k, k]"""
    rows = []
    for n in x.shape[1:3]:
        total = max((-(-n // s) - 1) * s + k - n, 0)
        rows.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), *rows, (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::s, ::s]


def float64(variables, x):
    p, stats = (jax.tree.map(lambda a: np.asarray(a, np.float64), variables[k]) for k in ('params', 'batch_stats'))

    def conv(x, *path, filters=None, s=1):
        q, r = p, stats
        for key in path:
            q, r = q[key], r[key]
        kernel = q['conv']['kernel']
        assert filters in (None, kernel.shape[-1]), path
        y = np.einsum('bhwcij,ijcn->bhwn', windows(x, kernel.shape[0], s, 0), kernel, optimize=True)
        y = (y - r['bn']['mean']) / np.sqrt(r['bn']['var'] + 1e-3) * q['bn']['scale'] + q['bn']['bias']
        return np.maximum(y, 0)

    def maximum(x, s):
        return windows(x, 3, s, -np.inf).max((-2, -1))

    def average(x):  # of the pixels that are there
        return windows(x, 3, 1, 0).sum((-2, -1)) / windows(np.ones_like(x), 3, 1, 0).sum((-2, -1))

    out = {'conv1': conv(x, 'conv1', s=2)}
    out['conv2_reduce'] = conv(maximum(out['conv1'], 2), 'conv2_reduce')
    out['conv2'] = conv(out['conv2_reduce'], 'conv2')
    x = maximum(out['conv2'], 2)
    for name, (ones, reduce, threes, reduce2, doubles, kind, projection) in FIGURE_5.items():
        m, s = f'inception_{name}', 2 - bool(ones)
        branches = [conv(x, m, 'branch1x1', filters=ones)] if ones else []
        branches.append(
            conv(conv(x, m, 'branch3x3_1', filters=reduce), m, 'branch3x3_2', filters=threes, s=s),
        )
        double = conv(conv(x, m, 'branch3x3dbl_1', filters=reduce2), m, 'branch3x3dbl_2', filters=doubles)
        branches.append(conv(double, m, 'branch3x3dbl_3', filters=doubles, s=s))
        pooled = average(x) if kind == 'avg' else maximum(x, s)
        branches.append(conv(pooled, m, 'branch_pool', filters=projection) if projection else pooled)
        out[m] = x = np.concatenate(branches, -1)
    out['logits'] = x.mean((1, 2)) @ p['fc']['kernel'] + p['fc']['bias']
    return out


def draw_like(path, leaf):
    rng, kind = np.random.default_rng(leaf.shape), path[-1].key
    if kind == 'kernel':
        value = rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    else:
        value = rng.uniform(0.8, 1.2, leaf.shape) if kind in ('scale', 'var') else 0.1 * rng.standard_normal(leaf.shape)
    return value.astype(np.float32)


def test_bn_inception_in_float64():
    """77x70 images: halvings of odd and even sizes."""
    model, x = make('bn_inception', num_classes=7), images(1, 77, 70)
    variables = jax.tree_util.tree_map_with_path(draw_like, shapes_of(model, x.shape))

    @quick_jit
    def both(variables, x):
        return {'logits': model.apply(variables, x), **model.apply(variables, x, method='features')}

    actual, expected = both(variables, x), float64(variables, x.astype(np.float64))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(actual[name] - value).max() / np.abs(value).max() < 3e-6, name


def test_bn_inception_variants():
    """Sigmoids for ReLUs; biases for normalisation: one number a filter in place of two."""
    model, x = make('bn_inception', activation='sigmoid', num_classes=3), images(1, 32, 32)
    variables = jax.tree_util.tree_map_with_path(draw_like, shapes_of(model, x.shape))
    conv1 = quick_jit(lambda v, x: model.apply(v, x, method='features')['conv1'])(variables, x)
    pre = quick_jit(
        lambda v, x: make('bn_inception', activation='linear', num_classes=3).apply(v, x, method='features')['conv1']
    )(variables, x)
    np.testing.assert_allclose(conv1, 1 / (1 + np.exp(-pre)), atol=1e-6)
    full, plain = build('bn_inception', (32, 32)), build('bn_inception', (32, 32), batch_norm=False)
    filters = sum(leaf.shape[0] for path, leaf in flatten_dict(full['params']).items() if path[-1] == 'scale')
    assert count(plain['params']) == 11_194_984 - filters
    assert 'batch_stats' not in plain
    with pytest.raises(UsageError, match="no activation is called 'sigmoidal'; did you mean 'sigmoid'"):
        make('bn_inception', activation='sigmoidal')


# --- receptive fields ---

A, C = [(3, 1, 1)] * 2, [(7, 1, 3)] * 2  # the widest way of a module, by rows: double 3x3; twice 7x1
STEM = {
    'v3': [(3, 2, 0), (3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 1, 0), (3, 2, 0)],
    'v2': [(3, 2, 0), (3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 1, 0), (3, 2, 0), (3, 1, 1)],
    'v4': [(3, 2, 0), (3, 1, 0), (3, 1, 1), (3, 2, 0), (7, 1, 3), (3, 1, 0), (3, 2, 0)],
}
REDUCE = [(3, 1, 1), (3, 2, 0)]


@pytest.mark.slow
def test_receptive_field_of_v3():
    stem = STEM['v3']
    paths = {'conv_2b': stem[:3], 'conv_4a': stem[:5], 'mixed_5d': stem + 3 * A, 'mixed_6a': stem + 3 * A + REDUCE}
    check_fields(make('inception_v3', auxiliary=False), build('inception_v3', auxiliary=False), paths, 420, 75)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'paths', 'height'),
    [
        ('inception_v3', {'mixed_7c': STEM['v3'] + 3 * A + REDUCE + 4 * C + [(7, 1, 3), (3, 2, 0)] + 2 * A}, 2200),
        ('inception_v2', {'mixed_5d': STEM['v2'] + 3 * A, 'mixed_6b': STEM['v2'] + 3 * A + REDUCE + C}, 700),
        ('inception_v4', {'inception_a4': STEM['v4'] + 4 * A, 'inception_b1': STEM['v4'] + 4 * A + REDUCE + C}, 800),
    ],
)
def test_receptive_field(name, paths, height):
    kwargs = {} if name == 'inception_v4' else {'auxiliary': False}
    check_fields(make(name, **kwargs), build(name, **kwargs), paths, height, 75)


# --- initialisation, types, errors ---


@pytest.mark.parametrize('name', ['bn_inception', 'inception_v3'])
@pytest.mark.slow
def test_initialisation(name):
    """A normal truncated at two deviations has 0.87962566 of the deviation; the variance 2 / fan-in is after that."""
    model, size = make(name), 32 if name == 'bn_inception' else 299
    cut = 0.87962566
    expected = {
        'inception_v3': {'mixed_5b/branch3x3dbl_2/conv': 0.1 * cut, 'head/conv1/conv': 0.01 * cut, 'fc': 0.1 * cut}
        | {'head/fc': 0.001 * cut},
        'bn_inception': {'inception_3a/branch3x3_2/conv': np.sqrt(2 / (9 * 64)), 'fc': np.sqrt(2 / 1024)},
    }[name]

    @quick_jit
    def initial(key):  # of the rest nothing is computed
        layers = flatten_dict(model.init(key, np.zeros((1, size, size, 3), np.float32))['params'], sep='/')
        return {k: layers[f'{k}/kernel'] for k in expected}

    for path, kernel in initial(jax.random.key(5, impl='rbg')).items():
        assert abs(kernel.std() / expected[path] - 1) < 5 / np.sqrt(kernel.size), path
        assert np.abs(kernel).max() < 2.0001 * expected[path] / cut


@pytest.mark.slow
def test_the_head_only_trains():
    model = make('inception_v3', num_classes=5, dropout=0.0)
    x = jax.ShapeDtypeStruct((2, 299, 299, 3), np.float32)
    variables = build('inception_v3', (299, 299), num_classes=5, dropout=0.0)
    assert variables.keys() == {'params', 'batch_stats'}
    collections = ['auxiliary', 'batch_stats']
    _, changed = jax.eval_shape(lambda v, x: model.apply(v, x, True, mutable=collections), variables, x)
    assert [a.shape for a in changed['auxiliary']['auxiliary']] == [(2, 5)]
    assert 'auxiliary' not in jax.eval_shape(lambda v, x: model.apply(v, x, mutable=collections), variables, x)[1]
    small = jax.ShapeDtypeStruct((1, 75, 80, 3), np.float32)
    assert jax.eval_shape(model.apply, variables, small).shape == (1, 5)


def test_bfloat16():
    check_bfloat16(make('bn_inception', dtype='bfloat16'), 32)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match='BN-Inception takes images of at least 32x32, not 31x40; resize them'):
        build('bn_inception', (31, 40))
    for name in ('inception_v2', 'inception_v3', 'inception_v4'):
        kwargs = {} if name == 'inception_v4' else {'auxiliary': False}
        with pytest.raises(UsageError, match=r'Inception v\d takes images of at least 75x75, not 74x75'):
            build(name, (74, 75), **kwargs)
        build(name, (75, 75), **kwargs)  # and the least size is so
    with pytest.raises(UsageError, match=r'auxiliary=False leaves it out\) takes images of at least 299x299, not 298'):
        build('inception_v3', (298, 299))
    with pytest.raises(UsageError, match='Inception v3 takes images of 3 channels, not 1'):
        build('inception_v3', channels=1, auxiliary=False, transform_input=True)
