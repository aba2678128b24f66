"""ResNets against the papers' counts, a float64 forward pass, torchvision's outputs, and single pixels."""

import re
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest

from canon import models, weights
from canon.errors import UsageError
from canon.models import resnet
from canon.weights.resnet import TORCHVISION
from tests.models.drawn import images
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

IMAGENET = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
PREACT = {164: 1_703_258, 1001: 10_327_706}
PARAMETERS = (
    {f'resnet{k}': v for k, v in IMAGENET.items()}
    | {f'resnet{k}_cifar': v for k, v in CIFAR.items()}
    | {f'preact_resnet{k}': v for k, v in PREACT.items()}
)
SLOW = ('resnet1202_cifar', 'preact_resnet1001')


def make(name: str, **kwargs) -> Any:
    return models.make_model(f'resnet.{name}', **kwargs)


def names(network: str):
    return TORCHVISION[f'resnet.{network}']


@pytest.mark.parametrize('name', [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in PARAMETERS])
def test_parameters(name):
    assert count(shapes_of(make(name), (1, 32, 32, 3))['params']) == PARAMETERS[name]


def test_the_table():
    for row in resnet.TABLE:
        if row['parameters'] is not None:
            assert row['parameters'] == PARAMETERS[row['name'].removeprefix('resnet.')], row


def test_layers():
    """A network is called by its convolutions and its fully connected layer; shortcuts do not count."""
    for name in ('resnet18', 'resnet50', 'resnet152', 'resnet20_cifar', 'preact_resnet164'):
        made = jax.tree_util.tree_leaves_with_path(shapes_of(make(name), (1, 32, 32, 3))['params'])
        kernels = ['/'.join(k.key for k in path) for path, _ in made if path[-1].key == 'kernel']
        assert sum('shortcut' not in k for k in kernels) == int(re.findall(r'\d+', name)[0])


def test_shortcuts_and_plain_nets():
    """Parameters of options A, B and C of section 4.1, and of a plain net: that of A."""
    counts = {
        k: count(shapes_of(make('resnet34', **a), (1, 32, 32, 3))['params'])
        for k, a in {
            'A': {'shortcut': 'padding'},
            'B': {},
            'C': {'shortcut': 'projection_all'},
            'plain': {'plain': True},
        }.items()
    }
    widths, depths = (64, 128, 256, 512), (3, 4, 6, 3)
    new = sum(a * b + 2 * b for a, b in pairwise(widths))  # 1x1 kernels and their norms
    same = sum((d - (w > 64)) * (w * w + 2 * w) for w, d in zip(widths, depths, strict=True))
    assert counts == {'A': IMAGENET[34] - new, 'B': IMAGENET[34], 'C': IMAGENET[34] + same, 'plain': IMAGENET[34] - new}


def test_stages():
    """Table 1's output sizes, and those of section 4.2."""

    def stages(name, size):
        model, x = make(name), jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        variables = shapes_of(model, x.shape)
        made = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
        return {k: (s.shape[1], s.shape[3]) for k, s in made.items()}

    assert stages('resnet18', 224) == {
        'conv1': (112, 64), 'conv2_x': (56, 64), 'conv3_x': (28, 128), 'conv4_x': (14, 256), 'conv5_x': (7, 512)
    }  # fmt: skip
    assert stages('resnet50', 224) == {
        'conv1': (112, 64), 'conv2_x': (56, 256), 'conv3_x': (28, 512), 'conv4_x': (14, 1024), 'conv5_x': (7, 2048)
    }  # fmt: skip
    assert stages('resnet20_cifar', 32) == {
        'conv1': (32, 16), 'conv2_x': (32, 16), 'conv3_x': (16, 32), 'conv4_x': (8, 64)
    }  # fmt: skip
    assert stages('preact_resnet164', 32) == {
        'conv1': (32, 16), 'conv2_x': (32, 64), 'conv3_x': (16, 128), 'conv4_x': (8, 256), 'last': (8, 256)
    }  # fmt: skip


@pytest.mark.parametrize('name', TORCHVISION)
def test_names_and_shapes_at_torchvision(name):
    name = name.removeprefix('resnet.')
    golden, like = Golden(name), shapes_of(make(name), (1, 64, 64, 3))
    zeros = {k: np.broadcast_to(np.float32(0), s) for k, s in golden.shapes.items()}
    converted = weights.from_torch(zeros, like, names(name))
    assert jax.tree.map(np.shape, converted) == jax.tree.map(np.shape, like)
    assert weights.to_torch(converted, names(name)).keys() == golden.shapes.keys()


def check_both_sizes(name, parts):
    golden, model = Golden(name), make(name)
    variables = golden.variables(shapes_of(model, (1, 64, 64, 3)), names(name))
    sizes = {'small': (2, 64, 80), 'odd': (1, 97, 97)}
    for part in parts:
        check_evaluation(model, variables, sizes[part], golden.parts[part])


def test_torchvision_18():
    check_both_sizes('resnet18', ('small', 'odd'))


def test_torchvision_50():
    check_both_sizes('resnet50', ('small',))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet34', 'resnet101', 'resnet152'])
def test_torchvision_deeper(name):
    check_both_sizes(name, ('small',))


@pytest.mark.slow
def test_torchvision_50_of_odd_size():
    check_both_sizes('resnet50', ('odd',))


@pytest.mark.parametrize('double', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', ['resnet18', pytest.param('resnet50', marks=pytest.mark.slow)])
def test_torchvision_training(name, double):
    golden, model = Golden(name), make(name)
    variables = golden.variables(shapes_of(model, (1, 64, 64, 3)), names(name))
    size = (4, 72, 88) if name == 'resnet18' else (8, 96, 128)
    check_training_pass(model, variables, size, golden.parts['train'], names(name), golden.shapes, double)


def conv(x, layer, stride=1):
    kernel = layer['kernel']
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum('bhwcij,ijcn->bhwn', seen, kernel, optimize=True)


def bn(x, layer):
    return (x - layer['mean']) / np.sqrt(layer['var'] + 1e-5) * layer['scale'] + layer['bias']


def relu(x):
    return np.maximum(x, 0)


def shortcut(x, y, block, stride):
    if 'shortcut' in block:
        return bn(conv(x, block['shortcut'], stride), block['shortcut_bn'])
    padded = np.zeros_like(y)
    padded[..., : x.shape[-1]] = x[:, ::stride, ::stride]
    return padded


def basic(x, b, stride, plain, v1):
    y = bn(conv(relu(bn(conv(x, b['conv1'], stride), b['bn1'])), b['conv2']), b['bn2'])
    return relu(y if plain else y + shortcut(x, y, b, stride))


def bottleneck(x, b, stride, plain, v1):
    first, second = (stride, 1) if v1 else (1, stride)
    y = relu(bn(conv(x, b['conv1'], first), b['bn1']))
    y = relu(bn(conv(y, b['conv2'], second), b['bn2']))
    y = bn(conv(y, b['conv3']), b['bn3'])
    return relu(y if plain else y + shortcut(x, y, b, stride))


def preact(x, b, stride, plain, v1):
    y = relu(bn(x, b['bn1']))
    x = conv(y, b['shortcut'], stride) if 'shortcut' in b else x
    y = conv(y, b['conv1'], stride)
    y = conv(relu(bn(y, b['bn2'])), b['conv2'])
    return conv(relu(bn(y, b['bn3'])), b['conv3']) + (0 if plain else x)


def float64(variables, x, block, plain=False, v1=False):
    """The network in windows and sums: {stage: values}, for what torchvision has no counterpart of."""
    layers = jax.tree.map(lambda a: np.asarray(a, np.float64), variables['params'])
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables['batch_stats']):
        node = layers
        for key in path[:-1]:
            node = node[key.key]
        node[path[-1].key] = np.asarray(leaf, np.float64)
    out, imagenet = {}, layers['conv1']['kernel'].shape[0] == 7
    x = conv(x, layers['conv1'], 2 if imagenet else 1)
    x = out['conv1'] = relu(bn(x, layers['bn1'])) if 'bn1' in layers else x
    if imagenet:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))
    for name in sorted(k for k in layers if re.fullmatch(r'conv\d_\d', k)):
        stage, place = name[4], name[6]
        x = block(x, layers[name], 2 if place == '1' and stage > '2' else 1, plain, v1)
        out[f'conv{stage}_x'] = x
    if 'bn' in layers:
        x = out['last'] = relu(bn(x, layers['bn']))
    out['logits'] = x.mean((1, 2)) @ layers['fc']['kernel'] + layers['fc']['bias']
    return out


@pytest.mark.parametrize(
    ('name', 'kwargs', 'block', 'depth'),
    [
        ('resnet20_cifar', {}, basic, None),
        ('resnet20_cifar', {'plain': True}, basic, None),
        ('resnet20_cifar', {'shortcut': 'projection_all'}, basic, {'depths': (2, 2, 2)}),
        ('resnet50', {'stride_at': '1x1'}, bottleneck, {'depths': (1, 2, 1, 1)}),
        ('resnet50', {'shortcut': 'padding'}, bottleneck, {'depths': (2, 1, 1, 1)}),
        ('preact_resnet164', {}, preact, {'depth': 2}),
        ('preact_resnet164', {'plain': True}, preact, {'depth': 1}),
    ],
)
def test_the_papers_in_float64(name, kwargs, block, depth):
    """Odd sizes, of which a stride keeps the first row; statistics drawn near identity."""
    model = make(name, num_classes=7, **kwargs).clone(**depth or {})
    variables, x = draw_variables(model), images(2, 37, 33)
    actual = quick_jit(lambda v, x: model.apply(v, x, method='features') | {'logits': model.apply(v, x)})(variables, x)
    expected = float64(variables, x, block, kwargs.get('plain', False), kwargs.get('stride_at') == '1x1')
    assert actual.keys() == expected.keys()
    for stage, value in expected.items():
        assert np.abs(actual[stage] - value).max() / np.abs(value).max() < 5e-6, stage


def list_paths(model, bottlenecks: bool, v1: bool, plain_stem: bool = False):
    """Returns {stage: windows of its widest path}, which is that through all residual branches."""
    windows = [(3, 1, 1)] if plain_stem else [(7, 2, 3)]
    paths = {'conv1': list(windows)}
    windows += [] if plain_stem else [(3, 2, 1)]
    for stage, depth in enumerate(model.depths, start=2):
        for place in range(depth):
            stride = 2 if place == 0 and stage > 2 else 1
            if bottlenecks:
                windows += [(1, stride, 0), (3, 1, 1)] if v1 else [(3, stride, 1)]
            else:
                windows += [(3, stride, 1), (3, 1, 1)]
        paths[f'conv{stage}_x'] = list(windows)
    return paths


@pytest.mark.parametrize(
    ('name', 'kwargs', 'extent'),
    [
        ('resnet18', {}, 435),
        pytest.param('resnet50', {}, 427, marks=pytest.mark.slow),
        pytest.param('resnet50', {'stride_at': '1x1'}, 483, marks=pytest.mark.slow),
    ],
)
def test_receptive_field_and_stride(name, kwargs, extent):
    """Edges at single pixels; the extents are those of the literature (Araujo et al. 2019 give 435 and 483)."""
    model = make(name, num_classes=2, **kwargs)
    paths = list_paths(model, name == 'resnet50', bool(kwargs))
    first, last = field(paths['conv5_x'], 100)
    assert last - first + 1 == extent
    check_fields(model, shapes_of(model, (1, 32, 32, 3)), paths, 1100, 32)


def test_receptive_field_and_stride_on_cifar():
    model = make('resnet20_cifar', num_classes=2)
    check_fields(model, shapes_of(model, (1, 32, 32, 3)), list_paths(model, False, False, plain_stem=True), 240, 8)


def initialised(model):
    key = jax.random.key(3, impl='rbg')  # it compiles in a third of the time
    return quick_jit(model.init)(key, np.zeros((1, 32, 32, 3), np.float32))


@pytest.mark.parametrize(
    ('name', 'kwargs', 'depth', 'zero'),
    [
        ('resnet50', {'zero_init_last': True}, {'depths': (1,), 'widths': (64,)}, 'bn3'),
        ('preact_resnet164', {}, {'depth': 1}, ''),
    ],
)
@pytest.mark.slow
def test_initialisation(name, kwargs, depth, zero):
    """He et al.'s deviation sqrt(2 / fan_out); norms are identities, or zero where a block's last is asked to be."""
    made = initialised(make(name, **kwargs).clone(**depth))
    for path, leaf in jax.tree_util.tree_leaves_with_path(made['params']):
        keys = [k.key for k in path]
        if keys == ['fc', 'kernel']:
            assert np.abs(leaf).max() == pytest.approx(leaf.shape[0] ** -0.5, rel=2e-2)
            assert abs(leaf.std() / (leaf.shape[0] * 3) ** -0.5 - 1) < 3 / np.sqrt(leaf.size)
        elif keys[-1] == 'kernel':
            expected = np.sqrt(2 / (leaf.shape[0] * leaf.shape[1] * leaf.shape[3]))
            assert abs(leaf.std() / expected - 1) < 4 / np.sqrt(2 * leaf.size), keys
        elif keys[-1] == 'scale':
            assert (leaf == (0 if keys[-2] == zero else 1)).all(), keys
        else:
            assert (leaf == 0).all(), keys


@pytest.mark.slow
def test_a_block_of_zero_scale_is_its_shortcut():
    """Then every stage of the CIFAR net is relu(conv1), subsampled."""
    model = make('resnet20_cifar', zero_init_last=True).clone(depths=(2, 1, 1))
    stages = quick_jit(lambda v, x: model.apply(v, x, method='features'))(initialised(model), images(1, 32, 32))
    first = stages['conv1']
    np.testing.assert_array_equal(stages['conv2_x'], first)
    np.testing.assert_array_equal(stages['conv4_x'][..., :16], first[:, ::4, ::4])
    assert not np.any(stages['conv4_x'][..., 16:])


def test_frozen_norms():
    model, free = (make('resnet20_cifar', frozen_norm=f).clone(depths=(1, 1, 1)) for f in (True, False))
    variables, x = draw_variables(model), images(2, 16, 16)

    @quick_jit
    def compute_all(variables, x):
        trained, changed = model.apply(variables, x, True, mutable=['batch_stats'])
        return trained, changed, model.apply(variables, x), free.apply(variables, x, True, mutable=['batch_stats'])[0]

    trained, changed, evaluated, free_trained = compute_all(variables, x)
    np.testing.assert_array_equal(trained, evaluated)
    assert np.abs(free_trained - trained).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, changed['batch_stats'], variables['batch_stats'])


@pytest.mark.parametrize('name', ['resnet50', 'resnet20_cifar'])
def test_bfloat16(name):
    check_bfloat16(make(name, dtype='bfloat16'), 32)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r"model\.shortcut='project' is unknown; did you mean 'projection'"):
        make('resnet50', shortcut='project')
    with pytest.raises(UsageError, match=r"model\.stride_at='1' is unknown; there are 1x1, 3x3"):
        make('resnet101', stride_at='1')
    with pytest.raises(UsageError, match=r"model\.plane: .* takes no such key; did you mean 'plain'"):
        make('resnet56_cifar', plane=True)
    with pytest.raises(UsageError, match='at least 32x32, not 31x40; resize them'):
        shapes_of(make('resnet34'), (1, 31, 40, 3))
    with pytest.raises(UsageError, match='at least 4x4, not 3x3'):
        shapes_of(make('resnet20_cifar'), (1, 3, 3, 3))
    other, like = Golden('resnet18'), shapes_of(make('resnet34'), (1, 64, 64, 3))
    with pytest.raises(UsageError, match=r'is of another network: missing layer1\.2\.bn1\.bias'):
        other.variables(like, names('resnet34'))
