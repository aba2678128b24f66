"""Fast R-CNN: counts of the paper, truncated SVD against numpy, and the folded normalisation of box targets."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from canon import models
from canon.errors import UsageError
from canon.models.fast_rcnn import DenseHead, fold_target_normalisation, truncate_svd
from canon.weights.faster_rcnn import region_reader
from tests.models.drawn import draw_parameter, images
from tests.models.goldens import count, draw_variables, shapes_of
from tests.quick import quick_jit

SMALL = dict(
    backbone=dict(name='zfnet.zfnet', width=0.0625, detection=True), num_classes=4, units=(24, 16), pool_size=3
)
BOXES = np.array([[[0, 0, 60, 40], [10, 5, 30, 38], [3, 3, 3, 3.0]]], np.float32)


@pytest.fixture(scope='module')
def small():
    """(model, variables, images, its outputs)"""
    model = models.make_model('fast_rcnn.fast_rcnn', **SMALL)
    variables, x = draw_variables(model, (1, 64, 64, 3)), images(1, 64, 64)
    return model, variables, x, quick_jit(model.apply)(variables, x, BOXES)


def test_counts_of_the_paper():
    """134,690,729 parameters of model L with 21 classes; of model S those of AlexNet's layers and of both outputs."""
    vgg = shapes_of(models.make_model('fast_rcnn.fast_rcnn_vgg16'), (1, 64, 64, 3))['params']
    assert count(vgg) == 134_690_729
    one = shapes_of(models.make_model('fast_rcnn.fast_rcnn_vgg16', class_agnostic=True), (1, 64, 64, 3))['params']
    assert count(vgg) - count(one) == 80 * 4097
    alexnet = shapes_of(models.make_model('fast_rcnn.fast_rcnn_alexnet'), (1, 224, 224, 3))['params']
    assert count(alexnet) == 60_965_224 - 4097 * 1000 + 4097 * (21 + 84)
    # fc6 and fc7 of ranks 1024 and 256: 87.6 million weights fewer.
    ranks = {'fc6': 1024, 'fc7': 256}
    truncated = shapes_of(models.make_model('fast_rcnn.fast_rcnn_vgg16', svd_ranks=ranks), (1, 64, 64, 3))['params']
    saved = 25088 * 4096 - 1024 * (25088 + 4096) + 4096 * 4096 - 256 * 2 * 4096
    assert count(vgg) - count(truncated) == saved
    assert round(saved / 1e6, 1) == 87.6


@pytest.mark.parametrize(
    ('name', 'form', 'reach'), [('zfnet.zfnet', 'detection', 3 + 2 + 8), ('alexnet.alexnet', 'centred', 5 + 4 + 16)]
)
def test_places_of_padded_backbones_lie_at_multiples_of_the_stride(name, form, reach):
    """Place 11 of conv5 sees the pixels around 176, as many to its left as to its right."""
    model = models.make_model(name, width=0.0625, **{form: True})
    reach += 8 + 3 * 16  # conv1, pool1 and conv2 of half their windows; pool2, conv3 .. conv5
    # Of ones everywhere and no biases: what a place sees is not 0.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full(x.shape, path[-1].key == 'kernel', np.float32), shapes_of(model, (1, 352, 352, 3))
    )
    x = np.zeros((4, 96, 352, 3), np.float32)
    for row, column in enumerate((-reach - 1, -reach, reach, reach + 1)):
        x[row, :, 176 + column] = 1
    stages = quick_jit(lambda v, x: model.apply(v, x, method='features'))(variables, x)
    assert (np.asarray(stages['conv5'][:, 3, 11, 0]) > 0).tolist() == [False, True, True, False]


def test_full_rank_changes_no_output(small):
    _, variables, x, expected = small
    ranks = {'fc6': 24, 'fc7': 16}
    factorised = models.make_model('fast_rcnn.fast_rcnn', **SMALL, svd_ranks=ranks)
    new = truncate_svd(variables, ranks)
    like = shapes_of(factorised, (1, 64, 64, 3))
    assert jax.tree.map(np.shape, new['params']) == jax.tree.map(np.shape, dict(like['params']))
    assert new['params']['backbone']['conv1']['kernel'] is variables['params']['backbone']['conv1']['kernel']
    outputs = quick_jit(factorised.apply)(new, x, BOXES)
    for name, value in outputs.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5 * np.abs(expected[name]).max())
    assert 'fc6' in variables['params']['head']  # the given variables are not changed


def test_truncation_is_the_best_of_its_rank(small):
    """The error is that of the discarded singular values (Eckart & Young), and the bias stays on the last factor."""
    _, variables, *_ = small
    head = variables['params']['head']
    for layer, rank in (('fc6', 5), ('fc7', 1)):
        new = truncate_svd(variables, {layer: rank})['params']['head']
        values = np.linalg.svd(np.float64(head[layer]['kernel']), compute_uv=False)
        product = np.float64(new[f'{layer}_v']['kernel']) @ np.float64(new[f'{layer}_u']['kernel'])
        error = np.linalg.norm(product - head[layer]['kernel'])
        np.testing.assert_allclose(error, np.linalg.norm(values[rank:]), rtol=1e-5)
        # Singular values on the first factor, as in the paper: its columns have them as lengths.
        np.testing.assert_allclose(np.linalg.norm(new[f'{layer}_v']['kernel'], axis=0), values[:rank], rtol=1e-5)
        assert set(new[f'{layer}_v']) == {'kernel'}
        np.testing.assert_array_equal(new[f'{layer}_u']['bias'], head[layer]['bias'])
    with pytest.raises(UsageError, match=r"the head has no layer 'fc8' to factorise"):
        truncate_svd(variables, {'fc8': 3})
    with pytest.raises(UsageError, match=r"the rank of 'fc7' must be 1 to 16, not 17"):
        truncate_svd(variables, {'fc7': 17})
    with pytest.raises(UsageError, match=r"model\.svd_ranks: the head has no layer 'fc9'"):
        models.make_model('fast_rcnn.fast_rcnn', **SMALL, svd_ranks={'fc9': 3})


@pytest.mark.parametrize('shape', [(4,), (4, 4)])
def test_folded_targets_are_the_plain_ones(small, shape):
    model, variables, x, expected = small
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=shape), rng.uniform(0.1, 0.3, shape)
    new = fold_target_normalisation(variables, mean, std)
    outputs = quick_jit(model.apply)(new, x, BOXES)
    np.testing.assert_allclose(outputs['offsets'], expected['offsets'] * std + mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs['logits'], expected['logits'])
    with pytest.raises(UsageError, match=r'mean and std must be \[4\] or \[4, 4\], not \(3, 4\) and \(3, 4\)'):
        fold_target_normalisation(variables, mean[:3] if len(shape) > 1 else np.ones((3, 4)), np.ones((3, 4)))


def test_head_is_two_layers_in_float64(small):
    """fc6 reads the pooled map row by row; dropout scales what it keeps, in training only."""
    rng = np.random.default_rng(1)
    x, head = rng.normal(size=(5, 2, 3, 4)).astype(np.float32), DenseHead((6, 7), 0.5, (), None)
    variables = quick_jit(head.init)(jax.random.key(0), x)
    layers = [{k: np.float64(v) for k, v in variables['params'][f'fc{i}'].items()} for i in (6, 7)]
    expected = x.reshape(5, 24)
    for layer in layers:
        expected = np.maximum(expected @ layer['kernel'] + layer['bias'], 0)
    key = jax.random.key(1)
    evaluated, trained = quick_jit(lambda v, x: (head.apply(v, x), head.apply(v, x, True, rngs={'dropout': key})))(
        variables, x
    )
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5, atol=1e-6)
    assert (np.asarray(trained) == 0).mean() > (expected == 0).mean()


def test_a_vgg_fills_backbone_and_head(tmp_path):
    """fc6 and fc7 of the file are the head's; fc8 and what the file has in addition are kept under their keys."""
    rows, tensors, number = (2, 2, 3, 3, 3), {}, 0
    leaves = {}
    for column, count_ in enumerate(rows, 1):
        for row in range(1, count_ + 1):
            tensors[f'features.{number}.bias'] = draw_parameter(f'{number}.bias', (3,))
            leaves[f'backbone/conv{column}_{row}/bias'] = np.zeros(3)
            number += 2
        number += 1
    tensors['classifier.0.weight'] = draw_parameter('fc6.weight', (5, 2 * 49))
    tensors['classifier.3.weight'] = draw_parameter('fc7.weight', (5, 5))
    leaves |= {'head/fc6/kernel': np.zeros((98, 5)), 'head/fc7/kernel': np.zeros((5, 5)), 'logits/bias': np.ones(4)}
    save_file(tensors, tmp_path / 'vgg.safetensors')
    arrays = region_reader('fast_rcnn.fast_rcnn_vgg16')(str(tmp_path / 'vgg.safetensors'), leaves)
    assert arrays is not None
    assert arrays.keys() == leaves.keys()
    np.testing.assert_array_equal(arrays['backbone/conv5_3/bias'], tensors['features.28.bias'])
    window = tensors['classifier.0.weight'].reshape(5, 2, 7, 7).transpose(2, 3, 1, 0).reshape(98, 5)
    np.testing.assert_array_equal(arrays['head/fc6/kernel'], window)
    np.testing.assert_array_equal(arrays['head/fc7/kernel'], tensors['classifier.3.weight'].T)
    assert arrays['logits/bias'] is leaves['logits/bias']
