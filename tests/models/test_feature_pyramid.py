"""Feature pyramids against torchvision from drawn maps and weights, on any backbone, and under SSD and FCN."""

import jax
import numpy as np
import pytest

from canon import models, ops
from canon.errors import UsageError
from canon.models.feature_pyramid import FeaturePyramid
from canon.nn import Network
from canon.nn.trace import select_pyramid, trace_stages
from tests.models.drawn import draw_parameter, images
from tests.models.goldens import Golden, count
from tests.quick import quick_jit

MAPS = {'c3': (19, 27, 8), 'c4': (10, 14, 12), 'c5': (5, 7, 16)}  # as in tools/golden/faster_rcnn_torch.py
SMALL = dict(name='resnet.resnet18', width=0.125)


class DrawnMaps(Network):
    """A backbone whose stages are the drawn maps, whatever the images."""

    def __call__(self, images_, train=False, features=True):
        return {name: images(2, *shape) for name, shape in MAPS.items()}


def draw_layer(key, size, channels, features):
    kernel = draw_parameter(f'{key}.weight', (features, channels, size, size)).transpose(2, 3, 1, 0)
    return {'kernel': kernel, 'bias': draw_parameter(f'{key}.bias', (features,))}


@pytest.mark.parametrize('top', ['subsample', 'convolve'])
def test_levels_equal_torchvision(top):
    """Maps of 19, 10 and 5 rows: both cut the rows that repeating them gives too many."""
    parts = Golden('faster_rcnn').parts['pyramid']
    model = FeaturePyramid(DrawnMaps(), tuple(enumerate(MAPS, start=3)), 6, top, False, None)
    params = {}
    for i, (*_, channels) in enumerate(MAPS.values()):
        params[f'lateral{3 + i}'] = draw_layer(f'inner_blocks.{i}.0', 1, channels, 6)
        params[f'smooth{3 + i}'] = draw_layer(f'layer_blocks.{i}.0', 3, 6, 6)
    if top == 'convolve':
        params |= {'p6': draw_layer('extra_blocks.p6', 3, 16, 6), 'p7': draw_layer('extra_blocks.p7', 3, 6, 6)}
    levels = quick_jit(model.apply)({'params': params}, np.zeros((2, 64, 64, 3)))
    assert list(levels) == ['p3', 'p4', 'p5', 'p6'] + ['p7'] * (top == 'convolve')
    for i, level in enumerate(levels.values()):
        np.testing.assert_allclose(level, parts[f'{top}{i}'], atol=2e-5)


def test_nearest_upsampling_repeats_pixels():
    """Row p is row floor(p h / H), whatever the sizes; the gradient of a pixel is the number of its copies."""
    x, shapes = images(2, 4, 3, 5), ((8, 6), (7, 5), (4, 3), (9, 7), (6, 2))

    def upsample(x, shape):
        y = ops.upsample_nearest(x, shape)
        return y.sum(), y

    @quick_jit
    def compute(x):
        return [jax.grad(upsample, has_aux=True)(x, shape) for shape in shapes]

    for shape, (copies, enlarged) in zip(shapes, compute(x), strict=True):
        rows, columns = (np.arange(length) * n // length for length, n in zip(shape, (4, 3), strict=True))
        np.testing.assert_array_equal(enlarged, x[:, rows][:, :, columns])
        expected = np.bincount(rows, minlength=4)[:, None] * np.bincount(columns, minlength=3)
        np.testing.assert_array_equal(copies[0, :, :, 0], expected)


def test_any_backbone():
    """Levels have the strides of their names; stages can be named; normalised pyramids have no biases."""
    model = models.make_model('feature_pyramid.feature_pyramid', backbone=SMALL, channels=16)
    assert select_pyramid(trace_stages(model)) == {4: 'p2', 8: 'p3', 16: 'p4', 32: 'p5', 64: 'p6'}
    alexnet = dict(name='alexnet.alexnet', width=0.125)  # maps of 55, 27 and 13 rows, which are no halves
    model = models.make_model(
        'feature_pyramid.feature_pyramid', backbone=alexnet, stages=('conv1', 'conv2', 'conv5'), top=None, channels=8
    )
    x = jax.ShapeDtypeStruct((1, 227, 227, 3), np.float32)
    maps, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert {name: x.shape for name, x in maps.items()} == {
        'p2': (1, 55, 55, 8), 'p3': (1, 27, 27, 8), 'p4': (1, 13, 13, 8)
    }  # fmt: skip
    model = models.make_model(
        'feature_pyramid.feature_pyramid', backbone=SMALL, min_stride=16, batch_norm=True, dtype='bfloat16'
    )
    maps, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), 'f4')
    )
    assert {x.dtype.name for x in maps.values()} == {'bfloat16'}
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {'float32'}
    assert set(variables['params']['smooth5']) == {'kernel'}
    assert set(variables['batch_stats']) >= {'smooth4_bn', 'lateral5_bn'}


def test_ssd_and_fcn_take_a_pyramid():
    pyramid = dict(name='feature_pyramid.feature_pyramid', backbone=SMALL, channels=16)
    model = models.make_model('ssd.ssd', backbone=pyramid, num_classes=3, extras=())
    assert model.stages == ('p3', 'p4', 'p5', 'p6')
    priors = model.priors(96, 64)
    x = jax.ShapeDtypeStruct((2, 96, 64, 3), np.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert outputs['offsets'].shape == (2, len(priors), 4)
    # P6 has no parameters, and P2 none that SSD would not read.
    levels = 16 * (64 * 0.125 + 128 * 0.125 + 256 * 0.125 + 512 * 0.125) + 4 * (9 * 16 * 16 + 2 * 16)
    backbone = dict(variables['params']['backbone'])
    del backbone['backbone']
    assert count(backbone) == levels
    fcn = models.make_model('fcn.skip_fcn', backbone=pyramid, num_classes=5, strides=(4, 8, 16, 32), channels=8)
    assert fcn.stages == {32: 'p5', 16: 'p4', 8: 'p3', 4: 'p2'}
    assert jax.eval_shape(fcn.init_with_output, jax.random.key(0), x)[0].shape == (2, 96, 64, 5)


def test_bad_input_is_one_clear_line():
    def make(**arguments):
        return models.make_model('feature_pyramid.feature_pyramid', **{'backbone': SMALL, **arguments})

    with pytest.raises(UsageError, match=r"model\.top='subsampled' is unknown; did you mean 'subsample'"):
        make(top='subsampled')
    with pytest.raises(UsageError, match=r"model\.stages: the backbone has no 'conv6_x'; did you mean"):
        make(stages=('conv6_x',))
    with pytest.raises(UsageError, match=r'ascending strides; the backbone has conv1 \(2\), conv2_x \(4\)'):
        make(stages=('conv5_x', 'conv4_x'))
    with pytest.raises(UsageError, match=r'model\.stages=\(\) must be one or more'):
        make(min_stride=64)
    with pytest.raises(UsageError, match=r"model\.backbone needs a name, such as 'resnet\.resnet18'"):
        make(backbone=dict(width=0.5))
    with pytest.raises(UsageError, match=r"model\.backbone\.name='deepsdf\.deepsdf' has no stages"):
        make(backbone=dict(name='deepsdf.deepsdf'))
    with pytest.raises(UsageError, match='a backbone without a classifier'):
        make().apply({}, np.zeros((1, 64, 64, 3)), features=False)
