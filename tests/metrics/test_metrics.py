"""Accumulators: the sum does not depend on how a set is cut into batches, padded or masked."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canon import losses
from canon.errors import UsageError
from canon.metrics import (
    Mean,
    Reliability,
    Rows,
    accuracy,
    add,
    brier,
    class_accuracy,
    classification,
    confusion,
    mean,
    top_k,
    valid_labels,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40), st.integers(1, 9))
def test_means_add_over_any_cut_and_padding(values, size):
    values, n = np.array(values, np.float32), len(values)
    total = None
    for i in range(0, n, size):
        part = values[i : i + size]
        padded = np.full(size, np.nan, np.float32)
        padded[: len(part)] = part
        mean = Mean.of(padded, np.arange(size) < len(part))
        total = mean if total is None else total + mean
    np.testing.assert_allclose(total.value, values.mean(dtype=np.float64), rtol=1e-5, atol=1e-5)
    assert float(total.weight) == n


def test_a_mean_over_trailing_axes_weighs_every_element():
    mean = Mean.of(jnp.ones((3, 4)), jnp.array([True, False, True]))
    assert (float(mean.total), float(mean.weight)) == (8, 8)


def test_the_sum_of_two_trees():
    a = {'m': Mean(jnp.float32(1), jnp.float32(2)), 'c': jnp.eye(2)}
    total = add(a, a)
    assert isinstance(total['m'], Mean)
    assert float(total['m'].value) == 0.5
    np.testing.assert_array_equal(total['c'], 2 * np.eye(2))
    assert jax.tree.structure(total) == jax.tree.structure(a)


def test_classification_against_sklearn():
    from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 9)).astype(np.float32), rng.integers(9, size=200)
    mask = rng.random(200) < 0.8
    valid = logits[mask], labels[mask]
    guess = valid[0].argmax(-1)
    np.testing.assert_allclose(accuracy(logits, labels, mask).value, accuracy_score(valid[1], guess), rtol=1e-6)
    np.testing.assert_array_equal(confusion(logits, labels, mask), confusion_matrix(valid[1], guess, labels=range(9)))
    for k in (1, 3, 9):
        expected = top_k_accuracy_score(valid[1], valid[0], k=k, labels=range(9)) if k < 9 else 1.0
        np.testing.assert_allclose(top_k(logits, labels, k, mask).value, expected, rtol=1e-6)


def test_a_tie_is_not_a_hit():
    assert float(top_k(jnp.zeros((2, 5)), jnp.array([0, 4]), 1).value) == 0


@pytest.mark.parametrize('k', [1, 2, 5, 6])
def test_a_prediction_scores_its_probability_under_a_distribution(k):
    """Against a loop in float64; one-hot distributions count as their labels."""
    rng = np.random.default_rng(k)
    logits = rng.normal(size=(40, 6)).astype(np.float32)
    logits[3] = 1.0  # all equal
    soft = rng.dirichlet(np.ones(6), size=40)
    rows = list(zip(soft, logits, strict=True))
    expected = [sum(p for p, z in zip(q, row, strict=True) if (row >= z).sum() <= k) for q, row in rows]
    np.testing.assert_allclose(top_k(logits, soft, k, soft_labels=True).value, np.mean(expected), rtol=1e-5)
    labels = rng.integers(6, size=40)
    np.testing.assert_allclose(
        top_k(logits, np.eye(6)[labels], k, soft_labels=True).value, top_k(logits, labels, k).value, rtol=1e-6
    )
    best = [q[row.argmax()] for q, row in rows]
    np.testing.assert_allclose(accuracy(logits, soft, soft_labels=True).value, np.mean(best), rtol=1e-5)


def test_a_nan_logit_is_not_a_hit():
    logits = jnp.full((4, 6), jnp.nan)
    for k in (1, 5, 6):
        assert float(top_k(logits, jnp.arange(4), k).value) == 0


@pytest.mark.filterwarnings('ignore:y_pred contains')
def test_class_accuracy_against_sklearn():
    from sklearn.metrics import balanced_accuracy_score, recall_score

    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(300, 7)), rng.integers(6, size=300)  # no example of class 6
    actual = class_accuracy(confusion(logits, labels))
    assert np.isnan(actual[6])
    guess = logits.argmax(-1)
    np.testing.assert_allclose(actual[:6], recall_score(labels, guess, labels=range(6), average=None), rtol=1e-12)
    np.testing.assert_allclose(np.nanmean(actual), balanced_accuracy_score(labels, guess), rtol=1e-12)


def expected_calibration_error(probabilities, labels, bins):
    """Guo et al. 2017, eqs. 2 and 3, as they stand; and the largest gap, eq. 5."""
    confidence, right, gaps, error = probabilities.max(-1), probabilities.argmax(-1) == labels, [], 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
            error += inside.sum() / len(labels) * gaps[-1]
    return error, max(gaps)


@pytest.mark.parametrize(('bins', 'scale'), [(15, 1.0), (15, 6.0), (10, 3.0), (1, 2.0)])
def test_calibration_against_its_definition(bins, scale):
    rng = np.random.default_rng(bins)
    logits = rng.normal(scale=scale, size=(500, 8))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.where(rng.random(500) < 0.5, logits.argmax(-1), rng.integers(8, size=500))
    mask = rng.random(500) < 0.7
    padded = np.where(mask[:, None], probabilities, np.nan).astype(np.float32)
    halves = [Reliability.of(padded[part], labels[part], mask[part], bins) for part in (slice(200), slice(200, 500))]
    reliability = halves[0] + halves[1]
    expected = expected_calibration_error(probabilities[mask], labels[mask], bins)
    np.testing.assert_allclose((reliability.error, reliability.worst), expected, rtol=1e-4)
    np.testing.assert_array_equal(add(*halves).count, reliability.count)
    assert float(np.sum(reliability.count)) == mask.sum()


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    """((m - 1) / M, m / M]: 0.5 of two classes in the first of two bins, 1.0 in the last."""
    reliability = Reliability.of(
        np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], np.float32), np.array([0, 0, 0]), bins=4
    )
    np.testing.assert_array_equal(reliability.count, [0, 1, 1, 1])
    np.testing.assert_array_equal(reliability.right, [0, 1, 0, 1])


def test_brier_score_against_sklearn_and_its_bounds():
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(4)
    distributions, labels = rng.dirichlet(np.ones(5), size=100), rng.integers(5, size=100)
    probabilities = distributions.astype(np.float32)
    expected = brier_score_loss(labels, distributions, labels=range(5), scale_by_half=False)
    np.testing.assert_allclose(brier(probabilities, labels).value, expected, rtol=1e-5)
    eye = np.eye(5, dtype=np.float32)
    assert float(brier(eye[(labels + 1) % 5], labels).value) == 2
    assert float(brier(eye[labels], labels).value) == 0


def test_rows_are_kept_in_order_without_padding_whatever_the_batches_shapes():
    first = Rows.of({'x': np.array([[1, 2], [3, 4]]), 'n': np.array([5, 6])}, np.array([True, False]))
    second = Rows.of({'x': np.array([[7, 8, 9]]), 'n': np.array([10])}, np.array([True]))
    total = add({'rows': first, 'mean': Mean(1.0, 2.0)}, {'rows': second, 'mean': Mean(3.0, 4.0)})
    assert total['mean'] == Mean(4.0, 6.0)
    rows = list(total['rows'].each())
    assert [row['x'].tolist() for row in rows] == [[1, 2], [7, 8, 9]]
    assert [int(row['n']) for row in rows] == [5, 10]


def test_a_mask_of_rows_masks_their_label_maps():
    """B = W on purpose: plain broadcasting would align the mask's rows with the columns of the map."""
    rng = np.random.default_rng(0)
    logits, labels, mask = rng.normal(size=(3, 4, 3, 2)), rng.integers(0, 2, (3, 4, 3)), np.array([True, False, True])
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (labels[mask], logits[mask].argmax(-1)), 1)
    np.testing.assert_array_equal(confusion(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask)), expected)
    with pytest.raises(ValueError, match='leading axes'):
        confusion(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(4, bool))


def test_float_weights_weigh_the_mean():
    """sum w v / sum w, rows with several values included; a weight of zero hides even a NaN."""
    rng = np.random.default_rng(5)
    values, weights = rng.normal(size=(7, 3)).astype(np.float32), rng.uniform(0.1, 3, 7).astype(np.float32)
    mean = Mean.of(values, weights)
    np.testing.assert_allclose(mean.value, np.average(values.mean(1), weights=weights), rtol=1e-6)
    np.testing.assert_allclose(mean.weight, 3 * weights.sum(), rtol=1e-6)
    hidden = np.append(weights, np.float32(0)), np.concatenate([values, np.full((1, 3), np.nan, np.float32)])
    np.testing.assert_allclose(Mean.of(hidden[1], hidden[0]).value, mean.value, rtol=1e-6)


CLASSES, VOID = 5, 255


@pytest.fixture(params=[(6,), (3, 4), (2, 3, 3), (3, 2, 2, 3)], ids=lambda shape: 'x'.join(map(str, shape)))
def labelled(request):
    """(logits [..., C], labels [...] with void ones, mask [B], the indices of the labels that count)."""
    shape, rng = request.param, np.random.default_rng(len(request.param))
    logits = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
    labels = np.where(rng.random(shape) < 0.3, VOID, rng.integers(CLASSES, size=shape)).astype(np.uint8)
    labels.flat[0], labels.flat[-1] = 1, VOID
    mask = np.arange(shape[0]) != 1
    return logits, labels, mask, [at for at in np.ndindex(shape) if mask[at[0]] and labels[at] != VOID]


def test_void_labels_and_masked_rows_of_any_leading_shape_against_loops(labelled):
    """Float64 loops over the labels that count, and scikit-learn's confusion matrix."""
    from sklearn.metrics import confusion_matrix

    logits, labels, mask, counted = labelled
    rows = np.array([logits[at] for at in counted], np.float64)
    truth = np.array([labels[at] for at in counted], int)
    scores = jax.jit(lambda *a: _scores(*a, VOID))(logits, labels, mask)
    np.testing.assert_array_equal(scores['confusion'], confusion_matrix(truth, rows.argmax(-1), labels=range(CLASSES)))
    p = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    expected = {
        'loss': sum(-np.log(q[t]) for q, t in zip(p, truth, strict=True)) / len(truth),
        'accuracy': sum(z.argmax() == t for z, t in zip(rows, truth, strict=True)) / len(truth),
        'top2': sum((z > z[t]).sum() < 2 for z, t in zip(rows, truth, strict=True)) / len(truth),
        'brier': sum(((q - np.eye(CLASSES)[t]) ** 2).sum() for q, t in zip(p, truth, strict=True)) / len(truth),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name].value, value, rtol=1e-5, err_msg=name)
        assert float(scores[name].weight) == len(truth)
    reliability = Reliability(*(np.asarray(x) for x in scores['reliability']))
    np.testing.assert_allclose(reliability.error, expected_calibration_error(p, truth, 15)[0], rtol=1e-5)


def _scores(logits, labels, mask, ignore_label=None):
    probabilities = jax.nn.softmax(logits)
    nats = losses.softmax_cross_entropy(logits, labels, ignore_label=ignore_label)
    return {
        'loss': Mean.of(nats, valid_labels(labels, mask, ignore_label)),
        'accuracy': accuracy(logits, labels, mask, ignore_label=ignore_label),
        'top2': top_k(logits, labels, 2, mask, ignore_label=ignore_label),
        'brier': brier(probabilities, labels, mask, ignore_label=ignore_label),
        'confusion': confusion(logits, labels, mask, ignore_label=ignore_label),
        'reliability': Reliability.of(probabilities, labels, mask, ignore_label=ignore_label),
    }


@pytest.mark.parametrize('mask', [(3,), (2, 3), (2, 4, 1), (2, 1), (4, 4), (2, 4, 4, 3)])
def test_a_mask_without_the_leading_axes_of_the_labels_is_refused(mask):
    """[B] of label maps [B, H, W] broadcasts along trailing axes; whatever NumPy would align otherwise is an error."""
    logits, labels, mask = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 4, 4), jnp.int32), jnp.ones(mask, bool)
    for measure in (
        lambda: Mean.of(labels, mask),
        lambda: accuracy(logits, labels, mask),
        lambda: top_k(logits, labels, 2, mask),
        lambda: confusion(logits, labels, mask),
        lambda: brier(logits, labels, mask),
        lambda: Reliability.of(logits, labels, mask),
    ):
        with pytest.raises(UsageError, match=r'must have the leading axes of .* \[2, 4, 4\]'):
            measure()


def test_distributions_of_any_leading_shape():
    """[B, H, W, C] with `soft_labels`: against a loop; one-hot distributions count as their labels."""
    rng = np.random.default_rng(3)
    logits, soft = rng.normal(size=(3, 2, 3, 4)).astype(np.float32), rng.dirichlet(np.ones(4), size=(3, 2, 3))
    mask = np.array([True, False, True])
    counted = [index for index in np.ndindex(3, 2, 3) if mask[index[0]]]
    actual = accuracy(logits, soft, mask, soft_labels=True)
    np.testing.assert_allclose(
        actual.value, np.mean([soft[index][logits[index].argmax()] for index in counted]), rtol=1e-5
    )
    assert float(actual.weight) == len(counted)
    labels = rng.integers(4, size=(3, 2, 3))
    for score in (accuracy, confusion, lambda *a, **k: top_k(*a[:2], 2, *a[2:], **k)):
        jax.tree.map(
            np.testing.assert_array_equal,
            score(logits, np.eye(4)[labels], mask, soft_labels=True),
            score(logits, labels, mask),
        )


def test_the_examples_of_accuracy_and_mean():
    assert doctest.testmod(classification) == (0, 2)
    assert doctest.testmod(mean) == (0, 1)


def test_a_mean_is_a_number():
    logits, labels = [[0.0, 1.0], [1.0, 0.0]], [1, 1]
    total = accuracy(logits, labels) + accuracy(np.asarray(logits), np.asarray(labels), mask=[True, False])
    assert float(total) == float(total.value) == np.float32(2 / 3)
