"""MobileNets against the papers' counts, a float64 forward pass, torchvision's and timm's outputs, single pixels."""

from typing import Any

import jax
import numpy as np
import pytest

from canon import models, weights
from canon.errors import UsageError
from canon.models import mobilenet
from canon.weights import mobilenet as published
from tests.models.drawn import draw_small_projections, images
from tests.models.goldens import (
    Golden,
    check_bfloat16,
    check_evaluation,
    check_training_pass,
    count,
    draw_variables,
    shapes_of,
)
from tests.models.reach import check_fields, field
from tests.quick import quick_jit

V1_PARAMETERS = {1.0: 4_231_976, 0.75: 2_585_560, 0.5: 1_331_592, 0.25: 470_072}
V2_PARAMETERS = {
    0.35: 1_677_128, 0.5: 1_968_680, 0.75: 2_636_424, 1.0: 3_504_872, 1.3: 5_386_792, 1.4: 6_108_776
}  # fmt: skip
GOLDENS = {
    'mobilenet_v1': (published.TIMM, {'activation': 'relu6', 'padding': 1, 'eps': 1e-5}),
    'mobilenet_v2': (published.TORCHVISION, {}),
}


def make(name: str, **kwargs) -> Any:
    return models.make_model(f'mobilenet.{name}', **kwargs)


@pytest.mark.parametrize(
    ('name', 'kwargs', 'parameters'),
    [
        # Width 1 and the narrowest in the fast suite; each takes a second to trace.
        pytest.param(name, {'width_multiplier': w}, n, marks=[pytest.mark.slow] * (w not in (0.25, 0.35, 1.0)))
        for name, counts in (('mobilenet_v1', V1_PARAMETERS), ('mobilenet_v2', V2_PARAMETERS))
        for w, n in counts.items()
    ]
    + [('mobilenet_v1', {'separable': False}, 29_294_088)],  # Table 4: 29.3 million
)
def test_parameters(name, kwargs, parameters):
    assert count(shapes_of(make(name, **kwargs), (1, 32, 32, 3))['params']) == parameters


def test_the_table():
    counts = {'mobilenet_v1': V1_PARAMETERS, 'mobilenet_v2': V2_PARAMETERS}
    for row in mobilenet.TABLE:
        if row['arguments'].get('separable', True):
            widths = counts[row['name'].removeprefix('mobilenet.')]
            assert row['parameters'] == widths[row['arguments'].get('width_multiplier', 1.0)]


def test_stages():
    """The papers' tables 1 (V1) and 2 (V2) at 224."""

    def stages(name, **kwargs):
        model, x = make(name, **kwargs), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
        variables = shapes_of(model, x.shape)
        made = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
        return {k: (s.shape[1], s.shape[3]) for k, s in made.items()}

    assert stages('mobilenet_v1') == stages('mobilenet_v1', padding=1) == {
        'conv1': (112, 32), 'block1': (112, 64), 'block2': (56, 128), 'block3': (56, 128), 'block4': (28, 256),
        'block5': (28, 256), **{f'block{i}': (14, 512) for i in range(6, 12)}, 'block12': (7, 1024),
        'block13': (7, 1024),
    }  # fmt: skip
    assert stages('mobilenet_v2') == {
        'conv1': (112, 32), 'bottleneck1': (112, 16), 'bottleneck2': (56, 24), 'bottleneck3': (28, 32),
        'bottleneck4': (14, 64), 'bottleneck5': (14, 96), 'bottleneck6': (7, 160), 'bottleneck7': (7, 320),
        'conv_last': (7, 1280),
    }  # fmt: skip


@pytest.mark.parametrize(
    ('golden', 'names', 'model'),
    [
        ('mobilenet_v1', published.TIMM, make('mobilenet_v1')),
        ('mobilenet_v2', published.TORCHVISION, make('mobilenet_v2')),
        ('mobilenet_keys', published.TIMM, make('mobilenet_v2', width_multiplier=1.4)),
    ],
)
def test_names_and_shapes(golden, names, model):
    shapes, like = Golden(golden).shapes, shapes_of(model, (1, 64, 64, 3))
    names = names['mobilenet.mobilenet_v1' if golden == 'mobilenet_v1' else 'mobilenet.mobilenet_v2']
    converted = weights.from_torch({k: np.broadcast_to(np.float32(0), s) for k, s in shapes.items()}, like, names)
    assert jax.tree.map(np.shape, converted) == jax.tree.map(np.shape, like)
    assert weights.to_torch(converted, names).keys() == shapes.keys()


def draw_for(golden, model, names):
    tensors = {k: draw_small_projections(k, s) for k, s in golden.shapes.items()}
    return weights.from_torch(tensors, shapes_of(model, (1, 64, 64, 3)), names)


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('mobilenet_v1', ('small', 'odd')),
        ('mobilenet_v2', ('small',)),
        pytest.param('mobilenet_v2', ('odd',), marks=pytest.mark.slow),  # another program of 53 convolutions
    ],
)
def test_published_evaluated(name, parts):
    golden, (names, kwargs) = Golden(name), GOLDENS[name]
    model = make(name, **kwargs)
    variables = draw_for(golden, model, names[f'mobilenet.{name}'])
    sizes = {'small': (2, 64, 80), 'odd': (1, 97, 97)}
    for part in parts:
        check_evaluation(model, variables, sizes[part], golden.parts[part])


@pytest.mark.parametrize('double', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', GOLDENS)
def test_published_training(name, double):
    golden, (names, kwargs) = Golden(name), GOLDENS[name]
    model, names = make(name, dropout=0.0, **kwargs), names[f'mobilenet.{name}']
    variables = draw_for(golden, model, names)
    check_training_pass(model, variables, (4, 72, 88), golden.parts['train'], names, golden.shapes, double)


def float64(variables, eps, act, same):
    """(unit, dense) in windows and sums: unit(x, module, convolution, norm, activation, stride)."""
    p, s = (jax.tree.map(lambda a: np.asarray(a, np.float64), variables[k]) for k in ('params', 'batch_stats'))

    def sides(n, k, stride):
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        return (total // 2, total - total // 2) if same else (k // 2, k // 2)

    def unit(x, module, name, norm=None, act=act, stride=1):
        params, stats = (p[module], s[module]) if module else (p, s)
        kernel, norm = params[name]['kernel'], norm or f'{name}_bn'
        k, depthwise = kernel.shape[0], kernel.shape[2] == 1
        x = np.pad(x, ((0, 0), sides(x.shape[1], k, stride), sides(x.shape[2], k, stride), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
        rule = 'bhwcij,ijzc->bhwc' if depthwise else 'bhwcij,ijcn->bhwn'
        y = np.einsum(rule, patches, kernel, optimize=True)
        y = (y - stats[norm]['mean']) / np.sqrt(stats[norm]['var'] + eps)
        return act(y * params[norm]['scale'] + params[norm]['bias'])

    return unit, lambda x: x @ p['classifier']['kernel'] + p['classifier']['bias']


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def both(model, variables, x):
    call = quick_jit(lambda v, x: model.apply(v, x, method='features') | {'logits': model.apply(v, x)})
    return call(variables, x)


def check(actual, expected):
    for stage, value in expected.items():
        assert np.abs(actual[stage] - value).max() / np.abs(value).max() < 5e-6, stage


@pytest.mark.parametrize('separable', [True, False])
def test_v1_in_float64(separable):
    """TensorFlow's padding on even and odd sizes, its eps, and full convolutions."""
    model = make('mobilenet_v1', num_classes=7, width_multiplier=0.25, separable=separable)
    variables, x = draw_variables(model), images(2, 45, 64)
    unit, dense = float64(variables, 1e-3, relu, same=True)
    y, expected = unit(x.astype(np.float64), None, 'conv1', 'bn1', stride=2), {}
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for i, stride in enumerate(strides, start=1):
        if separable:
            y = unit(unit(y, f'block{i}', 'depthwise', stride=stride), f'block{i}', 'pointwise')
        else:
            y = unit(y, f'block{i}', 'full', stride=stride)
        expected[f'block{i}'] = y
    check(both(model, variables, x), expected | {'logits': dense(y.mean((1, 2)))})


@pytest.mark.parametrize(('bottleneck', 'residual'), [('relu6', True), ('linear', False)])
def test_v2_in_float64(bottleneck, residual):
    """The forms that figure 6 compares; torchvision has the other."""
    model = make('mobilenet_v2', num_classes=7, width_multiplier=0.35, bottleneck=bottleneck, residual=residual)
    variables, x = draw_variables(model), images(2, 45, 64)
    unit, dense = float64(variables, 1e-5, relu6, same=False)
    y, expected = unit(x.astype(np.float64), None, 'conv1', 'bn1', stride=2), {}
    for row, (blocks, stride) in enumerate(((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)), start=1):
        for place in range(1, blocks + 1):
            name, before = f'bottleneck{row}_{place}', y
            y = unit(y, name, 'expand') if row > 1 else y
            y = unit(y, name, 'depthwise', stride=stride if place == 1 else 1)
            y = unit(y, name, 'project', act=relu6 if bottleneck == 'relu6' else np.asarray)
            y = y + before if residual and place > 1 else y
        expected[f'bottleneck{row}'] = y
    y = expected['conv_last'] = unit(y, None, 'conv_last', 'bn_last')
    check(both(model, variables, x), expected | {'logits': dense(y.mean((1, 2)))})


def test_receptive_field_and_stride_of_v1():
    """On an even size TensorFlow pads a strided window below alone. 315 is Araujo et al. 2019's."""
    windows, paths = [(3, 2, 0)], {}
    paths['conv1'] = list(windows)
    for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), start=1):
        windows.append((3, stride, int(stride == 1)))
        paths[f'block{i}'] = list(windows)
    first, last = field(windows, 20)
    assert last - first + 1 == 315
    model = make('mobilenet_v1', num_classes=2, width_multiplier=0.25)
    check_fields(model, shapes_of(model, (1, 32, 32, 3)), paths, 992, 32)


@pytest.mark.slow
def test_receptive_field_and_stride_of_v2():
    windows, paths = [(3, 2, 1)], {}
    paths['conv1'] = list(windows)
    for row, (blocks, stride) in enumerate(((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)), start=1):
        windows += [(3, stride, 1)] + [(3, 1, 1)] * (blocks - 1)
        paths[f'bottleneck{row}'] = list(windows)
    paths['conv_last'] = list(windows)
    first, last = field(windows, 20)
    assert last - first + 1 == 491
    model = make('mobilenet_v2', num_classes=2, width_multiplier=0.35)
    check_fields(model, shapes_of(model, (1, 32, 32, 3)), paths, 1376, 32)


@pytest.mark.slow
def test_initialisation():
    """V1: N(0, 0.09) cut at two deviations, whose own deviation is 0.8796 of it; V2: sqrt(2 / fan_out), N(0, 0.01)."""
    for name, few in (
        ('mobilenet_v1', ('conv1', 'block4', 'classifier')),
        ('mobilenet_v2', ('bottleneck6_1', 'classifier')),
    ):
        model = make(name)
        x = np.zeros((1, 32, 32, 3), np.float32)
        made = quick_jit(lambda key, model=model, few=few, x=x: {k: model.init(key, x)['params'][k] for k in few})
        for path, leaf in jax.tree_util.tree_leaves_with_path(made(jax.random.key(3, impl='rbg'))):
            keys = [k.key for k in path]
            if keys[-1] == 'kernel':
                expected = 0.09 * 0.87962566
                if name == 'mobilenet_v2':
                    expected = 0.01 if keys[0] == 'classifier' else np.sqrt(2 / (leaf.shape[0] ** 2 * leaf.shape[3]))
                else:
                    assert np.abs(leaf).max() <= 0.18
                assert abs(leaf.std() / expected - 1) < 4 / np.sqrt(2 * leaf.size), keys
            else:
                assert (leaf == (keys[-1] == 'scale')).all(), keys


@pytest.mark.parametrize('name', GOLDENS)
def test_bfloat16(name):
    check_bfloat16(make(name, dtype='bfloat16', width_multiplier=0.5), 32)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r"model\.bottleneck='relu' is unknown; did you mean 'relu6'"):
        make('mobilenet_v2', bottleneck='relu')
    for name in GOLDENS:
        with pytest.raises(UsageError, match=r'model\.width_multiplier=0\.03 leaves none of 32 channels; widen it'):
            make(name, width_multiplier=0.03)
        with pytest.raises(UsageError, match='at least 32x32, not 28x28; resize them'):
            shapes_of(make(name), (1, 28, 28, 3))
    with pytest.raises(UsageError, match="no activation is called 'relu7'"):
        make('mobilenet_v1', activation='relu7')
