"""Accumulators: however a set is cut into batches, padded or masked, the sum says the same."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from canon.metrics import Mean, accuracy, add, confusion, top_k


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
    both = add(a, a)
    assert isinstance(both['m'], Mean)
    assert float(both['m'].value) == 0.5
    np.testing.assert_array_equal(both['c'], 2 * np.eye(2))
    assert jax.tree.structure(both) == jax.tree.structure(a)


def test_classification_against_sklearn():
    from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 9)).astype(np.float32), rng.integers(9, size=200)
    mask = rng.random(200) < 0.8
    shown = logits[mask], labels[mask]
    guess = shown[0].argmax(-1)
    np.testing.assert_allclose(accuracy(logits, labels, mask).value, accuracy_score(shown[1], guess), rtol=1e-6)
    np.testing.assert_array_equal(confusion(logits, labels, mask), confusion_matrix(shown[1], guess, labels=range(9)))
    for k in (1, 3, 9):
        wanted = top_k_accuracy_score(shown[1], shown[0], k=k, labels=range(9)) if k < 9 else 1.0
        np.testing.assert_allclose(top_k(logits, labels, k, mask).value, wanted, rtol=1e-6)


def test_a_tie_is_no_hit():
    assert float(top_k(jnp.zeros((2, 5)), jnp.array([0, 4]), 1).value) == 0
