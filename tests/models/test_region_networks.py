"""The networks of R-CNN and SPP-net: counts, layers against a loop, and one set of weights for several sizes."""

import jax
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.ops import regions
from tests.models.drawn import images
from tests.models.goldens import count, draw_variables, shapes_of
from tests.quick import quick_jit

SMALL = dict(backbone=dict(name='zfnet.zfnet', width=0.0625, detection=True), num_classes=4, units=(12, 8))


def test_counts_of_the_papers():
    """R-CNN is AlexNet with an output per class; the vector that fc6 of SPP-net reads has 50 cells of 256 channels."""
    rcnn = shapes_of(models.make_model('rcnn.rcnn'), (1, 227, 227, 3))['params']
    alexnet = shapes_of(models.make_model('alexnet.alexnet', num_classes=21), (1, 227, 227, 3))['params']
    assert count(rcnn) == count(alexnet)
    for bins, cells in (((6, 3, 2, 1), 50), ((4, 3, 2, 1), 30)):
        like = shapes_of(models.make_model('spp_net.spp_net', bins=bins), (1, 180, 224, 3))['params']
        assert like['head']['fc6']['kernel'].shape == (cells * 256, 4096)


def test_features_of_rcnn_are_those_of_its_classifier():
    model = models.make_model('rcnn.rcnn', backbone=SMALL['backbone'], num_classes=4, units=(12, 8))
    variables, x = draw_variables(model, (2, 64, 64, 3)), images(2, 64, 64)

    @quick_jit
    def compute(v, x):
        return model.apply(v, x), model.apply(v, x, method='describe')

    logits, layers = compute(variables, x)
    assert {name: value.shape[1] for name, value in layers.items()} == {'pool5': 16 * 4 * 4 // 4, 'fc6': 12, 'fc7': 8}
    dense = {name: {k: np.float64(v) for k, v in variables['params']['head'][name].items()} for name in ('fc6', 'fc7')}
    for layer, before in (('fc6', 'pool5'), ('fc7', 'fc6')):
        expected = np.maximum(layers[before] @ dense[layer]['kernel'] + dense[layer]['bias'], 0)
        np.testing.assert_allclose(layers[layer], expected, rtol=1e-4, atol=1e-5)
    last = variables['params']['logits']
    np.testing.assert_allclose(logits, layers['fc7'] @ last['kernel'] + last['bias'], rtol=1e-4, atol=1e-5)


def test_spp_net_shares_weights_between_sizes_and_regions():
    """Parameters have the same shapes at all sizes; a region's vector is the pyramid of its part of the map."""
    model = models.make_model('spp_net.spp_net', **SMALL)
    variables = draw_variables(model, (1, 64, 64, 3))
    other = shapes_of(model, (1, 96, 80, 3))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, dict(other))
    x, boxes = images(1, 96, 80), np.array([[[0, 0, 80, 96], [20, 4, 60, 90], [90, 7, 300, 8.0]]], np.float32)

    @quick_jit
    def compute(v, x):
        (features,) = maps = model.apply(v, x, method='extract')
        pooled = regions.spatial_pyramid_pool_regions(features, boxes, (6, 3, 2, 1), 1 / 16)
        layers = model.apply(v, maps, boxes, method='describe')
        return model.apply(v, x), pooled, layers, model.apply(v, maps, boxes, (96, 80), method='classify')

    logits, pooled, layers, classified = compute(variables, x)
    assert logits.shape == (1, 4)
    np.testing.assert_array_equal(layers['pool5'], pooled)
    last = variables['params']['logits']
    expected = layers['fc7'] @ last['kernel'] + last['bias']
    np.testing.assert_allclose(classified['logits'], expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(classified['logits']).all()


def test_bad_input_is_one_clear_line():
    with pytest.raises(UsageError, match=r"model\.stage='pool6' is not one of the backbone; did you mean 'pool5'"):
        models.make_model('rcnn.rcnn', stage='pool6')
    with pytest.raises(UsageError, match=r'model\.stride=10: the backbone has stages of strides 2, 8, 16, 32'):
        models.make_model('spp_net.spp_net', stride=10)
    with pytest.raises(UsageError, match='SPP-net takes images of at least 32x32, not 20x40'):
        shapes_of(models.make_model('spp_net.spp_net', **SMALL), (1, 20, 40, 3))
