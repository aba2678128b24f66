"""Weighted sources: known ratios reach the batches, whatever holds the examples."""

import numpy as np
import pytest

from canon import transfer
from canon.data import Arrays, domains
from canon.data.pipeline.source import Info
from canon.errors import UsageError
from canon.tasks import adaptation
from canon.tasks.adaptation.instances import ModelOutputs, Weighted


def make_images(levels, seed=0):
    """Images of one grey level each, with a little noise in one pixel."""
    images = np.repeat(np.asarray(levels, np.uint8)[:, None, None, None], 4, axis=1)
    images[:, 1] += np.random.default_rng(seed).integers(0, 3, (len(levels), 1, 1)).astype(np.uint8)
    return Arrays({'image': images, 'label': np.arange(len(levels)) % 2}, Info(num_classes=2))


@pytest.fixture(scope='module')
def pair():
    """Dark and bright images are as many in the source; three quarters of the target are bright."""
    rng = np.random.default_rng(0)
    dark, bright = rng.normal(80, 10, 60), rng.normal(160, 10, 60)
    levels = np.stack([dark, bright], 1).ravel()
    target = rng.permutation(np.concatenate([rng.normal(160, 10, 120), rng.normal(80, 10, 40)]))
    return make_images(levels), make_images(target)


@pytest.mark.parametrize(
    'name', ['kmm', 'kliep', pytest.param('ulsif', marks=pytest.mark.slow), 'rulsif', 'discriminator']
)
def test_weights_recover_the_proportions_of_the_target(name, pair):
    source, target = pair
    weighted = adaptation.weigh_source(source, target, adaptation.make_ratio(name), dimensions=1)
    weights = np.array([weighted[i]['weight'] for i in range(len(weighted))])
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    bright = np.arange(120) % 2 == 1
    share = weights[bright].sum() / weights.sum()
    # The relative ratio w / (0.1 w + 0.9) is flatter by its definition.
    assert share == pytest.approx(0.75, abs=0.08)


def test_weights_are_fields_of_the_batches_of_the_source(pair):
    source, target = pair
    weights = np.linspace(0, 2, len(source))
    in_memory = adaptation.attach_weights(source, weights)
    wrapped = Weighted(source, np.asarray(weights, np.float32))
    for weighted in (in_memory, wrapped):
        made = domains.make_domain_batches({'source': weighted}, {'target': target}, 8, seed=1, threads=0)
        batch = made[2]
        assert batch['source']['weight'].shape == (8,)
        assert 'weight' not in batch['target']
        # The weight follows its example.
        for image, weight in zip(batch['source']['image'], batch['source']['weight'], strict=True):
            rows = np.flatnonzero((source.arrays['image'] == image).all((1, 2, 3)))
            assert np.float32(weight) in np.asarray(weights, np.float32)[rows]
    with pytest.raises(UsageError, match='120 examples, and the weights have the shape'):
        adaptation.attach_weights(source, weights[:3])


def test_weights_of_classes_from_any_classifier(pair):
    """A classifier that is right with probability 0.7: the confusion matrix is known, and w = (0.5, 1.5)."""
    confusion = np.array([[0.7, 0.3], [0.3, 0.7]])
    labels = np.repeat([0, 1], 100)
    predictions = np.concatenate([np.repeat([0, 1], (70, 30)), np.repeat([0, 1], (30, 70))])
    expected = confusion @ [0.25, 0.75] * 1000
    target = np.repeat([0, 1], expected.round().astype(int))
    np.testing.assert_allclose(transfer.estimate_class_weights(predictions, labels, target, 2), [0.5, 1.5], rtol=1e-9)
    logits = [np.eye(2)[p] for p in (predictions, target)]
    outputs = [ModelOutputs(np.zeros((len(z), 1)), z) for z in logits]
    weights = adaptation.make_ratio('label_shift')(*outputs, labels)
    np.testing.assert_allclose(weights, np.where(labels == 1, 1.5, 0.5))
    with pytest.raises(UsageError, match='reads the predictions of a finished run, not pixels'):
        adaptation.weigh_source(pair[0], pair[1], adaptation.make_ratio('label_shift'))
    with pytest.raises(UsageError, match='do not tell the classes apart'):
        transfer.estimate_class_weights(np.zeros(4), np.array([0, 1, 0, 1]), np.zeros(3), 2)
    with pytest.raises(UsageError, match='class 1 has no example'):
        transfer.estimate_class_weights(np.zeros(4), np.zeros(4), np.zeros(3), 2)
    with pytest.raises(UsageError, match=r"data.weights.name='ulsiff' is unknown.*ulsif"):
        adaptation.make_ratio('ulsiff')
