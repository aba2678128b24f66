"""The metrics of segmentation against scikit-learn's confusion matrix and Jaccard score, in float64."""

import doctest

import jax
import numpy as np
import pytest
from sklearn import metrics as peer

from canon import metrics
from canon.errors import UsageError
from canon.metrics import segmentation

CLASSES = 6


@pytest.fixture(scope='module')
def maps():
    """(predictions, labels) uint8 [3, 13, 17]: void pixels; class 4 is predicted but absent, class 5 is in neither."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, (3, 13, 17), p=[0.6, 0.2, 0.15, 0.05])
    predictions = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 5, labels.shape))
    labels[rng.random(labels.shape) < 0.2] = 255
    return predictions.astype(np.uint8), labels.astype(np.uint8)


@pytest.fixture(scope='module')
def counts(maps):
    return np.asarray(jax.jit(segmentation.count_pixels, static_argnums=2)(*maps, CLASSES))


def test_pixels_are_counted_as_scikit_learn_counts_them(maps, counts):
    predictions, labels = maps
    valid = labels != 255
    expected = peer.confusion_matrix(labels[valid], predictions[valid], labels=range(CLASSES))
    np.testing.assert_array_equal(counts, expected)
    logits = np.eye(CLASSES, dtype=np.float32)[predictions]
    np.testing.assert_array_equal(metrics.confusion(logits, labels.astype(np.int32), ignore_label=255), expected)


def test_masked_rows_do_not_count_and_batches_add(maps, counts):
    parts = [
        segmentation.count_pixels(*(x[[i, 0]] for x in maps), CLASSES, mask=np.array([True, False])) for i in range(3)
    ]
    np.testing.assert_array_equal(sum(parts), counts)


def test_the_four_metrics_are_scikit_learns(maps, counts):
    predictions, labels = (x[maps[1] != 255] for x in maps)
    scores = segmentation.score_segmentation(counts)
    assert scores['pixel_accuracy'] == pytest.approx(peer.accuracy_score(labels, predictions), rel=1e-12)
    present = np.unique(labels)
    recall = peer.recall_score(labels, predictions, labels=present, average='macro')
    assert scores['mean_accuracy'] == pytest.approx(recall, rel=1e-12)
    iu = peer.jaccard_score(labels, predictions, labels=range(5), average=None)
    np.testing.assert_allclose(segmentation.class_iu(counts), [*iu, np.nan], rtol=1e-12)
    assert iu[4] == 0, 'a class that is predicted but absent counts as 0'
    assert scores['mean_iu'] == pytest.approx(iu.mean(), rel=1e-12)
    weighted = peer.jaccard_score(labels, predictions, average='weighted', zero_division=0)
    assert scores['frequency_weighted_iu'] == pytest.approx(weighted, rel=1e-12)


def test_no_pixel_has_no_metric():
    assert np.isnan(list(segmentation.score_segmentation(np.zeros((3, 3))).values())).all()


def test_examples_of_docstrings():
    result = doctest.testmod(segmentation)
    assert result.attempted
    assert not result.failed


def test_bad_input_is_one_line(maps):
    predictions, labels = maps
    with pytest.raises(UsageError, match='differ in shape'):
        segmentation.count_pixels(predictions[:, :-1], labels, CLASSES)
    with pytest.raises(UsageError, match='take the argmax'):
        segmentation.count_pixels(predictions.astype(np.float32), labels, CLASSES)
    with pytest.raises(UsageError, match=r'\[C, C\]'):
        segmentation.score_segmentation(np.zeros(3))
