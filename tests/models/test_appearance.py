"""The networks of appearance: the published count, the layers of the paper's table, and unit vectors."""

import jax
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models.appearance import CosineClassifier
from canon.nn.trace import trace_stages
from tests.models.drawn import images
from tests.models.goldens import shapes_of
from tests.quick import quick_jit


def test_the_layers_of_the_paper():
    """Wojke et al. 2017, Table 1, and its 2,800,864 parameters."""
    model = models.make_model('appearance.deep_sort_network')
    layers = shapes_of(model, (1, 128, 64, 3))['params']
    blocks = {name: [layers[name][f'conv{i}']['kernel'].shape for i in (1, 2)] for name in layers if 'res' in name}
    assert blocks == {
        'residual4': [(3, 3, 32, 32), (3, 3, 32, 32)], 'residual5': [(3, 3, 32, 32), (3, 3, 32, 32)],
        'residual6': [(3, 3, 32, 64), (3, 3, 64, 64)], 'residual7': [(3, 3, 64, 64), (3, 3, 64, 64)],
        'residual8': [(3, 3, 64, 128), (3, 3, 128, 128)], 'residual9': [(3, 3, 128, 128), (3, 3, 128, 128)],
    }  # fmt: skip
    assert layers['projection']['kernel'].shape == (128 * 16 * 8, 128)
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(layers)) == 2_800_864
    stages = trace_stages(model, (128, 64))
    assert {name: (stage.stride, stage.channels) for name, stage in stages.items()} == {
        'conv2': ((1, 1), 32), 'residual5': ((2, 2), 32), 'residual7': ((4, 4), 64), 'residual9': ((8, 8), 128),
    }  # fmt: skip


NETWORKS = {
    'deep_sort_network': dict(width=0.25, units=16),
    'backbone_embedding': dict(backbone=dict(name='resnet.resnet20_cifar'), units=16, stage='conv2_x'),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_embeddings_are_unit_vectors_of_each_image_alone(name):
    model = models.make_model(f'appearance.{name}', **NETWORKS[name])
    crops = images(3, 16, 16)
    variables = quick_jit(model.init)(jax.random.key(0), crops)
    apply = quick_jit(model.apply)
    vectors = apply(variables, crops)
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-4)
    np.testing.assert_allclose(apply(variables, crops[::-1])[::-1], vectors, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_the_cosine_classifier():
    """kappa times the cosine with each direction, by numpy."""
    vectors = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    head = CosineClassifier(5, scale=7.0)
    params = head.init(jax.random.key(1), vectors)
    directions = np.asarray(params['params']['directions'], np.float64)
    expected = 7 * vectors @ (directions / np.linalg.norm(directions, axis=0))
    np.testing.assert_allclose(head.apply(params, vectors), expected, rtol=1e-4)


def test_crops_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match='the appearance network takes images of at least 8x8, not 4x4'):
        jax.eval_shape(
            models.make_model('appearance.deep_sort_network').init, jax.random.key(0), np.zeros((1, 4, 4, 3))
        )
