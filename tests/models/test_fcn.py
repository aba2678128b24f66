"""Fully convolutional networks: published counts and crops, a float64 network, torchvision's, and the surgery."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models, ops, weights
from canon.errors import UsageError
from canon.models import fcn
from canon.nn.trace import trace_network
from canon.weights.fcn import TORCHVISION
from tests.models.drawn import images
from tests.models.goldens import Golden, count, draw_variables, shapes_of
from tests.models.reach import field

PAPER = {'fcn32s': 134_346_581, 'fcn16s': 134_357_354, 'fcn8s': 134_362_751}
SKIPS = {'fcn32s': 0, 'fcn16s': 1, 'fcn8s': 2}


def filled(model, size, seed=0):
    """Variables of He et al.'s scale, biases and scores too, so that every layer shows in the logits."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == 'kernel':
            return (rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        if path[-1].key in ('bias', 'mean'):
            return (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, size))


# --- the paper ------------------------------------------------------------------------------------------------------


def test_published_counts_and_receptive_fields():
    """Table 1 of the paper: 404 pixels for VGG, 355 for AlexNet. (907 for GoogLeNet count its average pool of 7x7.)"""
    for name, parameters in PAPER.items():
        trace = trace_network(models.make_model(f'fcn.{name}'), 64)
        assert (trace.parameters, trace.field, trace.stride) == (parameters, (404, 404), (32, 32))
    trace = trace_network(models.make_model('fcn.fcn_alexnet'), 64)
    assert (trace.field, trace.stride) == ((355, 355), (32, 32))
    trace = trace_network(models.make_model('fcn.fcn_googlenet'), 64)
    assert (trace.field[0] + 6 * 32, trace.stride) == (907, (32, 32))
    tabled = {row['name']: row['parameters'] for row in fcn.TABLE if row['parameters']}
    assert tabled == {f'fcn.{k}': v for k, v in PAPER.items()} | {'fcn.fcn_resnet50': 35_322_218}


def test_scores_start_at_zero_and_upsampling_at_interpolation():
    model = fcn.fcn8s(width=1 / 32, num_classes=3, upsampling='learned')

    @jax.jit
    def scores(key):  # nothing else of the initialisation is computed
        params = model.init(key, images(1, 20, 30))['params']
        return {name: leaf for name, leaf in params.items() if 'score' in name}

    made = scores(jax.random.key(0, impl='rbg'))
    for name, size in (('upscore2', 4), ('upscore_pool4', 4), ('upscore8', 16)):
        np.testing.assert_array_equal(made.pop(name), ops.bilinear_deconv_kernel(size, 3))
    leaves = jax.tree.leaves(made)
    assert len(leaves) == 6
    assert not any(np.any(leaf) for leaf in leaves)


class Caffe:
    """The authors' prototxt in numpy, float64: convolutions, pooling that rounds up, deconvolutions and crop layers."""

    @staticmethod
    def conv(x, layer, pad):
        kernel, bias = (np.asarray(layer[k], np.float64) for k in ('kernel', 'bias'))
        x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (0, 1))
        return np.einsum('hwcij,ijcn->hwn', windows, kernel, optimize=True) + bias

    @staticmethod
    def pool(x):
        x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), constant_values=-np.inf)
        return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))

    @staticmethod
    def upscore(x, size, stride):
        taps = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
        out = np.zeros(((x.shape[0] - 1) * stride + size, (x.shape[1] - 1) * stride + size, x.shape[2]))
        for i, j in np.ndindex(*x.shape[:2]):
            out[i * stride : i * stride + size, j * stride : j * stride + size] += (
                x[i, j] * (np.outer(taps, taps)[..., None])
            )
        return out

    @staticmethod
    def crop(x, like, offset):
        return x[offset : offset + like.shape[0], offset : offset + like.shape[1]]

    @classmethod
    def forward(cls, image, params, skips):
        x, pools = np.asarray(image, np.float64), {}
        for column, rows in enumerate((2, 2, 3, 3, 3), start=1):
            for row in range(1, rows + 1):
                layer = params['backbone'][f'conv{column}_{row}']
                x = np.maximum(cls.conv(x, layer, 100 if (column, row) == (1, 1) else 1), 0)
            x = pools[column] = cls.pool(x)
        for name in ('fc6', 'fc7'):
            x = np.maximum(cls.conv(x, params[name], 0), 0)
        score = cls.conv(x, params['score_fr'], 0)
        if skips == 0:
            return cls.crop(cls.upscore(score, 64, 32), image, 19)
        x = cls.upscore(score, 4, 2)
        x = x + cls.crop(cls.conv(pools[4], params['score_pool4'], 0), x, 5)
        if skips == 1:
            return cls.crop(cls.upscore(x, 32, 16), image, 27)
        x = cls.upscore(x, 4, 2)
        x = x + cls.crop(cls.conv(pools[3], params['score_pool3'], 0), x, 9)
        return cls.crop(cls.upscore(x, 16, 8), image, 31)


@pytest.mark.parametrize(
    ('name', 'upsampling'), [*((name, 'bilinear') for name in PAPER), ('fcn32s', 'learned'), ('fcn8s', 'learned')]
)
def test_networks_against_the_prototxt_in_numpy(name, upsampling):
    """Offsets 19; 5, 27; 5, 9, 31 are written there and derived here, from where the places of each map lie."""
    model = getattr(fcn, name)(num_classes=3, width=1 / 64, upsampling=upsampling)
    variables = filled(model, (1, 37, 50, 3))
    if upsampling == 'learned':
        sizes = {k: v.shape[0] for k, v in variables['params'].items() if k.startswith('upscore')}
        variables['params'] |= {k: ops.bilinear_deconv_kernel(size, 3) for k, size in sizes.items()}
    x = images(1, 37, 50)
    found = np.asarray(jax.jit(model.apply)(variables, x))[0]
    expected = Caffe.forward(x[0], variables['params'], SKIPS[name])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_at_once_scales_the_maps_of_the_skips():
    nets: list[Any] = [fcn.fcn8s(num_classes=2, width=1 / 64, border=1, at_once=a) for a in (False, True)]
    plain, scaled = nets
    variables, x = filled(plain, (1, 64, 64, 3)), images(1, 64, 64)
    params = dict(variables['params'])
    for name, scale in (('score_pool4', 0.01), ('score_pool3', 0.0001)):
        params[name] = {**params[name], 'kernel': params[name]['kernel'] * scale}
    found, expected = jax.jit(scaled.apply)(variables, x), jax.jit(plain.apply)({'params': params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('make', [
    fcn.fcn32s, fcn.fcn8s, partial(fcn.fcn8s, border=1), partial(fcn.fcn8s, border=1, upsampling='learned'),
    fcn.fcn_alexnet, fcn.fcn_googlenet, partial(fcn.fcn_googlenet, variant='torchvision'), fcn.fcn_resnet50,
    partial(fcn.skip_fcn, {'name': 'resnet.resnet18'}, strides=(4, 32)),
    partial(fcn.skip_fcn, {'name': 'vgg.vgg11', 'batch_norm': True}, channels=8),
])  # fmt: skip
def test_images_of_any_size(make):
    """Odd ones, wide ones, and the smallest: logits have the size of the image."""
    model = make(num_classes=5)
    for height, width in ((32, 32), (97, 130)):
        variables = shapes_of(model, (1, height, width, 3))
        x = jax.ShapeDtypeStruct((2, height, width, 3), np.float32)
        assert jax.eval_shape(model.apply, variables, x).shape == (2, height, width, 5)


VGG = [*[(3, 1, 1)] * 2, (2, 2, 0), *[(3, 1, 1)] * 2, (2, 2, 0)]
VGG_POOLS = {'pool3': [*VGG, *[(3, 1, 1)] * 3, (2, 2, 0)]}
VGG_POOLS['pool4'] = [*VGG_POOLS['pool3'], *[(3, 1, 1)] * 3, (2, 2, 0)]
VGG_POOLS['fr'] = [*VGG_POOLS['pool4'], *[(3, 1, 1)] * 3, (2, 2, 0)]
ALEXNET = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), *[(3, 1, 1)] * 3, (3, 2, 0)]
STEM, FIVE = [(7, 2, 3), (3, 2, 0), (3, 1, 1), (3, 2, 0)], (5, 1, 2)
GOOGLENET = [*STEM, FIVE, FIVE, (3, 2, 0), *[FIVE] * 5, (3, 2, 0), FIVE, FIVE]
TORCHVISIONS = [*STEM, *[(3, 1, 1)] * 2, (3, 2, 0), *[(3, 1, 1)] * 5, (2, 2, 0), *[(3, 1, 1)] * 2]


@pytest.mark.parametrize(
    ('model', 'windows'),
    [
        (fcn.fcn8s(), VGG_POOLS),
        (fcn.fcn8s(border=1), VGG_POOLS),
        (fcn.fcn_alexnet(), {'fr': ALEXNET}),
        (fcn.fcn_googlenet(), {'fr': GOOGLENET}),
        (fcn.fcn_googlenet(variant='torchvision'), {'fr': TORCHVISIONS}),
    ],
)
def test_maps_lie_at_the_centres_of_their_receptive_fields(model, windows):
    """Crops and interpolation follow from these numbers, so that no score is shifted against the image."""
    assert model.trunk.maps.keys() == windows.keys()
    for name, (_, _, grid) in model.trunk.maps.items():
        first, second = (sum(field(windows[name], place)) / 2 for place in (0, 1))
        assert (grid.centre, grid.stride) == (first, second - first), name


def test_precision_of_the_computation():
    for name in ('fcn8s', 'fcn_resnet50', 'fcn_alexnet', 'fcn_googlenet'):
        model = models.make_model(f'fcn.{name}', dtype='bfloat16')
        variables = shapes_of(model, (1, 64, 64, 3))
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
        x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
        apply = partial(model.apply, capture_intermediates=True, mutable='intermediates')
        logits, captured = jax.eval_shape(apply, variables, x)
        scores = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(captured) if "'score" in str(path)]
        # Layers compute in bfloat16; their scores are interpolated in float32.
        assert {leaf.dtype for leaf in scores} == {np.dtype(jnp.bfloat16)}
        assert logits.dtype == jnp.float32


@pytest.mark.parametrize('channels', [None, 4])
def test_scores_of_half_precision_are_interpolated_in_float32(channels):
    """Between two scores of bfloat16 there are steps that bfloat16 does not have."""
    backbone = dict(name='vgg.vgg11', width=1 / 32, batch_norm=True)
    model = fcn.skip_fcn(backbone, 3, (8,), channels, dtype='bfloat16')
    variables = filled(model, (1, 32, 32, 3))
    apply = partial(model.apply, capture_intermediates=True, mutable='intermediates')
    # XLA may leave out a rounding to bfloat16 in the middle of a program, as on CPU, where it computes in float32.
    exact = {'xla_allow_excess_precision': False}
    logits, captured = jax.jit(apply, compiler_options=exact)(variables, images(1, 32, 48))
    scores = captured['intermediates']['score8' if channels is None else 'score']['__call__'][0]
    assert (scores.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    expected = ops.upsample_bilinear(np.asarray(scores, np.float32), 8, (32, 48))
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
    assert np.mean(logits == logits.astype(jnp.bfloat16)) < 0.5


# --- torchvision ----------------------------------------------------------------------------------------------------


def test_names_and_shapes_at_torchvision():
    golden, like = Golden('fcn_resnet50'), shapes_of(fcn.fcn_resnet50(), (1, 65, 65, 3))
    assert count(like['params']) == 35_322_218
    names = TORCHVISION['fcn.fcn_resnet50']
    zeros = {k: np.broadcast_to(np.float32(0), s) for k, s in golden.shapes.items()}
    assert jax.tree.map(np.shape, weights.from_torch(zeros, like, names)) == jax.tree.map(np.shape, like)


@pytest.mark.slow
def test_logits_of_both_heads_at_torchvision():
    golden, model = Golden('fcn_resnet50'), fcn.fcn_resnet50()
    variables = golden.variables(shapes_of(model, (1, 65, 80, 3)), TORCHVISION['fcn.fcn_resnet50'])
    apply = jax.jit(partial(model.apply, mutable=['auxiliary']))
    for part, size in (('odd', (2, 65, 80)), ('square', (1, 96, 96))):
        logits, sown = apply(variables, images(*size))
        for name, found in (('logits', logits), ('auxiliary', sown['auxiliary']['logits'][0])):
            expected = golden.parts[part][name]
            assert np.abs(found[:, ::3, ::3] - expected).max() < 1e-5 * np.abs(expected).max(), (part, name)


# --- the surgery ----------------------------------------------------------------------------------------------------


def test_a_classifier_as_convolutions_has_equal_outputs():
    """At its own size; and on a larger image its fully connected layers applied to every window of pool5."""
    model = models.make_model('vgg.vgg11', width=1 / 32, num_classes=5, init='he')
    variables = draw_variables(models.make_model('vgg.vgg11', width=1 / 32, num_classes=5, init='he'))
    windows = {'fc6': (7, 7), 'fc7': (1, 1), 'fc8': (1, 1)}
    params = weights.convolutionalise(variables, windows)['params']

    @jax.jit
    def slide(params, x):
        x = model.apply({'params': variables['params']}, x, method='features')['pool5']
        for name in windows:
            x = ops.conv(x, params[name]['kernel']) + params[name]['bias']
            x = x if name == 'fc8' else ops.relu(x)
        return x

    small, large = images(2, 224, 224), images(1, 288, 320)
    logits = np.asarray(jax.jit(model.apply)(variables, small))
    np.testing.assert_allclose(slide(params, small)[:, 0, 0], logits, atol=1e-5 * np.abs(logits).max())
    dense = np.asarray(jax.jit(model.clone(dense=True).apply)(variables, large))
    assert dense.shape == (1, 3, 4, 5)
    np.testing.assert_allclose(slide(params, large), dense, atol=1e-5 * np.abs(dense).max())


class Unpadded(nn.Module):
    """A classifier for images of 12x14 that pads nothing."""

    @nn.compact
    def __call__(self, x, dense=False):
        x = ops.max_pool(ops.relu(nn.Conv(4, (3, 3), padding='VALID', name='conv1')(x)), 2)
        x = ops.relu(nn.Conv(5, (2, 2), padding='VALID', name='conv2')(x))
        if dense:
            x = ops.relu(nn.Conv(6, (4, 5), padding='VALID', name='fc1')(x))
            return nn.Conv(3, (1, 1), name='fc2')(x)
        x = ops.relu(nn.Dense(6, name='fc1')(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name='fc2')(x)


def test_the_dense_map_is_the_classifier_slid_over_the_image():
    model: Any = Unpadded()
    variables = filled(model, (1, 12, 14, 3))
    converted = weights.convolutionalise(variables, {'fc1': (4, 5), 'fc2': (1, 1)})
    large = images(1, 19, 22)
    dense = jax.jit(partial(model.apply, dense=True))(converted, large)
    assert dense.shape == (1, 4, 5, 3)
    crops = np.concatenate([large[:, 2 * i : 2 * i + 12, 2 * j : 2 * j + 14] for i in range(4) for j in range(5)])
    np.testing.assert_allclose(dense.reshape(20, 3), jax.jit(model.apply)(variables, crops), atol=1e-6)


def test_published_classifiers_fill_the_convolutions(tmp_path):
    """A file of VGG-16's names: fc6 and fc7 arrive as convolutions, and scores keep their initialisation."""
    classifier = models.make_model('vgg.vgg16', width=1 / 64, num_classes=4)
    trained = filled(classifier, (1, 224, 224, 3))
    model = fcn.fcn16s(num_classes=3, width=1 / 64)
    leaves = {
        '/'.join(k.key for k in path[1:]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(filled(model, (1, 32, 32, 3), seed=1))
    }
    for publisher in ('torchvision', 'timm'):
        file = tmp_path / f'{publisher}.safetensors'
        weights.save_variables(file, 'vgg.vgg16', trained, publisher)
        found = weights.fcn_reader('fcn.fcn16s')(str(file), leaves)
        assert found is not None
        assert set(leaves) <= set(found)
        converted = weights.convolutionalise(trained, {'fc6': (7, 7), 'fc7': (1, 1)})['params']
        for name, leaf in leaves.items():
            layer, _, kind = name.removeprefix('backbone/').partition('/')
            expected = leaf if layer.startswith('score') else converted[layer][kind]
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert weights.fcn_reader('fcn.fcn16s')(str(tmp_path), leaves) is None  # a run's folder


def test_torchvisions_file_fills_the_whole_network(tmp_path):
    golden, names = Golden('fcn_resnet50'), TORCHVISION['fcn.fcn_resnet50']
    like = shapes_of(fcn.fcn_resnet50(), (1, 65, 65, 3))
    ones = {k: np.ones(s, np.float32) for k, s in golden.shapes.items()}
    weights.write(tmp_path / 'net.safetensors', ones)
    leaves = {
        '/'.join(k.key for k in path if k.key != 'params'): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    found = weights.fcn_reader('fcn.fcn_resnet50')(str(tmp_path / 'net.safetensors'), leaves)
    assert found is not None
    assert set(found) == set(leaves)
    assert all(np.all(array == 1) and array.shape == leaves[name].shape for name, array in found.items())
    assert names.missing(like) == []


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: fcn.fcn32s(upsampling='bilinaer'), "model.upsampling='bilinaer'.*bilinear"),
        (lambda: fcn.fcn32s(border=50), 'model.border=50'),
        (lambda: fcn.skip_fcn({'name': 'resnet.resnet20_cifar'}), r'has no \[8, 16, 32\]; it has 1, 2, 4'),
        (lambda: fcn.skip_fcn({'name': 'nerf.nerf'}), 'model.backbone'),
        (lambda: shapes_of(fcn.fcn8s(border=1), (1, 20, 64, 3)), 'at least 32x32, not 20x64'),
        (lambda: weights.convolutionalise({'params': {'fc': {'kernel': np.zeros((8, 2))}}}, {'fc6': (2, 2)}), 'fc6'),
        (lambda: weights.convolutionalise({'params': {'fc': {'kernel': np.zeros((9, 2))}}}, {'fc': (2, 2)}), '2x2'),
        (lambda: models.make_model('resnet.resnet50', output_stride=4), 'output_stride=4'),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(UsageError, match=message):
        call()
