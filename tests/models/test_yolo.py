"""YOLO against the counts of the paper, its layers against the table of figure 3, and its boxes against eq. 1-3."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models.yolo import decode_boxes, split_output
from canon.nn.trace import trace_network
from configs.detection.yolo_voc import NEW
from tests.models.drawn import images
from tests.models.goldens import count, draw_variables, shapes_of

SMALL = dict(num_classes=3, size=64, stride=16, width=0.0625, hidden=32)
FAST = SMALL | dict(hidden=(16, 32))


def test_counts_of_the_paper():
    """271,703,550 parameters, 60,155,968 of them in convolutions; Fast YOLO's follow from its layers."""
    params = shapes_of(models.make_model('yolo.yolo'), (1, 448, 448, 3))['params']
    assert count(params) == 271_703_550
    convolutions = {name: layer for name, layer in params.items() if name.startswith('conv')}
    assert len(convolutions) == 24
    assert count(convolutions) == 60_155_968
    fast = shapes_of(models.make_model('yolo.fast_yolo'), (1, 448, 448, 3))['params']
    assert sum(name.startswith('conv') for name in fast) == 9
    widths = [3, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    total = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    total += sum(a * b + b for a, b in ((7 * 7 * 1024, 256), (256, 4096), (4096, 1470)))
    assert count(fast) == total == 45_089_374


def test_the_classifier_has_the_first_twenty_convolutions():
    """Its parameters are those of the detector but the last four convolutions and the connected layers."""
    params = shapes_of(models.make_model('yolo.yolo_classifier'), (1, 224, 224, 3))['params']
    assert count(params.pop('output')) == 1024 * 1000 + 1000
    assert len(params) == 20
    detector = shapes_of(models.make_model('yolo.yolo'), (1, 448, 448, 3))['params']
    new = re.compile(NEW)  # of the recipe
    assert params == {name: layer for name, layer in detector.items() if not new.search(name)}


def test_the_detector_computes_the_maps_of_its_classifier():
    """With the same weights; and the logits are the mean of the last map times the output's kernel."""
    model = models.make_model('yolo.yolo_classifier', num_classes=3, stride=16, width=0.0625)
    x = images(2, 64, 64)
    detector = models.make_model('yolo.yolo', **SMALL)
    # Drawn by name and shape: layers of one name are the same.
    variables, others = (draw_variables(m, x.shape) for m in (model, detector))
    stages, same = model.apply(variables, x, method='features'), detector.apply(others, x, method='features')
    for name in ('conv1', 'conv2', 'conv3', 'conv4'):
        np.testing.assert_array_equal(stages[name], same[name])
    output = variables['params']['output']
    expected = np.float64(stages['conv5']).mean((1, 2)) @ np.float64(output['kernel']) + output['bias']
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_maps_of_figure_3():
    """448 / 2 / 2 = 112, 56, 28, 14, 7; the last map is 7 x 7 x 1024, and the output 7 x 7 x 30."""
    model = models.make_model('yolo.yolo')
    x = jax.ShapeDtypeStruct((1, 448, 448, 3), np.float32)
    stages = jax.eval_shape(lambda k, x: model.init_with_output(k, x, method='features')[0], jax.random.key(0), x)
    shapes = [stages[f'conv{i}'].shape[1:] for i in range(1, 7)]
    assert shapes == [(224, 224, 64), (112, 112, 192), (56, 56, 512), (28, 28, 1024), (7, 7, 1024), (7, 7, 1024)]
    output = jax.eval_shape(lambda k, x: model.init_with_output(k, x)[0], jax.random.key(0), x)
    assert output.shape == (1, 7, 7, 30)
    assert trace_network(models.make_model('yolo.fast_yolo'), 448).stride == (64, 64)


@pytest.mark.parametrize('name', ['yolo.yolo', 'yolo.fast_yolo'])
def test_small_images_have_smaller_cells(name):
    """The grid is size / stride, at every stride; features are of any size."""
    for size, stride in ((64, 16), (128, 8), (96, 32), (128, 64)):
        arguments = SMALL | dict(size=size, stride=stride, hidden=32 if name == 'yolo.yolo' else (16, 32))
        model = models.make_model(name, **arguments)
        output = jax.eval_shape(
            lambda k, x, m=model: m.init_with_output(k, x)[0],
            jax.random.key(0),
            np.zeros((2, size, size, 3), np.float32),
        )
        assert output.shape == (2, size // stride, size // stride, 13)


def test_a_network_computes_and_regularises():
    """Dropout in training only, batch normalisation in place of biases; a negative response keeps a tenth."""
    x = images(2, 64, 64)
    model = models.make_model('yolo.fast_yolo', **FAST, batch_norm=True)
    variables = draw_variables(model, x.shape)
    assert 'bias' not in variables['params']['conv1_1']
    assert np.isfinite(jax.jit(model.apply)(variables, x)).all()
    train = jax.jit(lambda key: model.apply(variables, x, True, mutable=['batch_stats'], rngs={'dropout': key})[0])
    first, second, again = (train(jax.random.key(seed)) for seed in (1, 2, 1))
    assert np.abs(first - second).max() > 1e-3
    assert np.array_equal(first, again)
    # With a kernel of -1 the first stage is -0.1 of the sums of its windows.
    plain = models.make_model('yolo.fast_yolo', **FAST)
    params = draw_variables(plain, x.shape)['params']
    params['conv1_1'] = jax.tree.map(lambda leaf: -np.ones_like(leaf) * (leaf.ndim > 1), params['conv1_1'])
    stages = jax.jit(lambda params: plain.apply({'params': params}, jnp.ones_like(x), method='features'))(params)
    np.testing.assert_allclose(stages['conv1'][0, 8, 8], -0.1 * 27, rtol=1e-6)


def test_layers_per_cell_are_one_function_of_each_cells_features():
    model = models.make_model('yolo.fast_yolo', **FAST, per_cell=True)
    x = images(2, 64, 64)
    params = draw_variables(model, x.shape)['params']
    apply = jax.jit(lambda p: (model.apply({'params': p}, x), model.apply({'params': p}, x, method='features')))
    output, maps = apply(params)
    # The last map goes through the fully connected layers, cell by cell; leaky ReLUs between them.
    y = np.asarray(list(maps.values())[-1], np.float64)
    for layer in ('fc0', 'fc1', 'output'):
        y = y @ np.asarray(params[layer]['kernel'], np.float64) + np.asarray(params[layer]['bias'])
        y = y if layer == 'output' else np.where(y > 0, y, 0.1 * y)
    np.testing.assert_allclose(output, y, rtol=1e-4, atol=1e-4)
    assert params['output']['kernel'].shape == (32, 13)


def test_precision():
    """A network of dtype 'bfloat16' has float32 parameters and output, and stages in bfloat16."""
    x, model = (
        jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32),
        models.make_model('yolo.yolo', **SMALL, dtype='bfloat16'),
    )
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves((output, variables))} == {np.dtype(np.float32)}
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
    assert {s.dtype for s in stages.values()} == {np.dtype(jnp.bfloat16)}


def test_a_backbone_is_read_at_one_stage():
    """The stage of stride 8 gives 64 / 8 cells; the layers after it have the count of their widths."""
    arguments = dict(backbone=dict(name='vgg.vgg11', width=0.125), stage='conv4', num_classes=3, size=64)
    model = models.make_model('yolo.backbone_yolo', **arguments, channels=(24, 16), hidden=(32,), per_cell=True)
    x = np.zeros((2, 64, 64, 3), np.float32)
    output, variables = jax.eval_shape(lambda k: model.init_with_output(k, x), jax.random.key(0))
    assert output.shape == (2, 8, 8, 13)
    own = {name: layer for name, layer in variables['params'].items() if name != 'backbone'}
    widths = [512 // 8, 24, 16]
    total = sum(9 * a * b + b for a, b in itertools.pairwise(widths)) + (16 * 32 + 32) + (32 * 13 + 13)
    assert count(own) == total
    maps = jax.eval_shape(lambda v: model.apply(v, x, method='features'), variables)
    assert maps['conv4'].shape == (2, 8, 8, 64)
    assert maps['extra1'].shape == (2, 8, 8, 16)
    with pytest.raises(UsageError, match="no stage 'conv9'"):
        models.make_model('yolo.backbone_yolo', **arguments | dict(stage='conv9'))
    with pytest.raises(UsageError, match='size=60 must be a multiple of 8'):
        models.make_model('yolo.backbone_yolo', **arguments | dict(size=60))


def test_the_output_is_separated_in_its_documented_order():
    """A cell's values in order: C class scores, N confidences, N boxes of four."""
    output = jnp.arange(2 * 3 * 3 * 13.0).reshape(2, 3, 3, 13)
    parts = split_output(output, 3)
    assert {k: v.shape for k, v in parts.items()} == {
        'class_scores': (2, 3, 3, 3), 'confidence': (2, 3, 3, 2), 'boxes': (2, 3, 3, 2, 4)
    }  # fmt: skip
    assert parts['class_scores'][0, 0, 0].tolist() == [0, 1, 2]
    assert parts['confidence'][0, 0, 0].tolist() == [3, 4]
    assert parts['boxes'][0, 0, 0].tolist() == [[5, 6, 7, 8], [9, 10, 11, 12]]
    model = models.make_model('yolo.yolo', **SMALL)
    assert jax.tree.all(jax.tree.map(np.array_equal, model.split_output(output), parts))


def test_boxes_are_those_of_the_equations():
    """Cell (row 1, column 2) of 4 x 3 on an image of 80 x 90: cells of 20 rows and 30 columns."""
    relative = np.zeros((4, 3, 1, 4), np.float32)
    relative[1, 2, 0] = 0.5, 0.25, np.sqrt(0.2), -np.sqrt(0.5)
    boxes = decode_boxes(relative, (80, 90))
    x, y, width, height = (2 + 0.5) * 30, (1 + 0.25) * 20, 0.2 * 90, 0.5 * 80
    expected = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_allclose(boxes[1, 2, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(boxes[3, 0, 0], [0, 60, 0, 60])  # the corner of its cell, without a size
    gradient = jax.grad(lambda b: decode_boxes(b, (80, 90)).sum())(relative)
    np.testing.assert_allclose(gradient[1, 2, 0], [60, 40, 0, 0], atol=1e-3)  # each centre moves two corners


def test_bad_input_is_one_clear_line():
    with pytest.raises(UsageError, match=r'this YOLO takes images \[B, 64, 64, C\], not \(1, 96, 96, 3\)'):
        shapes_of(models.make_model('yolo.yolo', **SMALL), (1, 96, 96, 3))
    with pytest.raises(UsageError, match=r'model\.stride=24 must be a power of 2'):
        models.make_model('yolo.yolo', stride=24)
    with pytest.raises(UsageError, match=r'model\.size=100 a multiple of it'):
        models.make_model('yolo.fast_yolo', size=100)
    with pytest.raises(UsageError, match=r'does not have 20 class scores and 5 values for each of 2'):
        split_output(np.zeros((1, 7, 7, 13)), 20)
