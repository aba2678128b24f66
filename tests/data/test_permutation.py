"""Permutations in constant memory: bijections, uniform by chi-squared tests, and the order of large sources."""

import numpy as np
import pytest
from scipy.stats import chisquare

from canon.data.pipeline import order
from canon.data.pipeline.permutation import KeyedPermutation


def permute(n: int, key: int) -> np.ndarray:
    return KeyedPermutation(n, np.random.default_rng(key))(np.arange(n))


@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4096, 99_991])
def test_every_element_has_one_place(n):
    assert sorted(permute(n, key=n)) == list(range(n))


def test_elements_places_and_neighbours_are_uniform():
    n, draws = 12, 4000
    counts, pairs = np.zeros((n, n)), np.zeros((n, n))
    for key in range(draws):
        elements = permute(n, key)
        counts[np.arange(n), elements] += 1
        pairs[elements[0], elements[1]] += 1
    assert chisquare(counts.ravel()).pvalue > 1e-3
    assert chisquare(pairs[~np.eye(n, dtype=bool)]).pvalue > 1e-3


def test_places_of_a_billion_are_computed_without_the_others():
    places = np.arange(123_456_789, 123_456_789 + 1000)
    elements = KeyedPermutation(10**9, np.random.default_rng(0))(places)
    assert elements.dtype == places.dtype
    assert len(set(elements.tolist())) == 1000
    assert 0 <= elements.min() < elements.max() < 10**9
    assert abs(elements.mean() / 10**9 - 0.5) < 0.05  # five deviations of the mean of as many uniform numbers


def test_large_sources_have_another_order_in_every_epoch(monkeypatch):
    monkeypatch.setattr(order, '_STORED', 10)
    draw = order.shuffled(25, seed=978)  # a seed of its own: permutations are kept
    ids, visits = draw(np.arange(60))
    assert sorted(ids[:25]) == sorted(ids[25:50]) == list(range(25))
    assert ids[:25].tolist() != ids[25:50].tolist()
    assert visits.tolist() == [0] * 25 + [1] * 25 + [2] * 10
    np.testing.assert_array_equal(draw(np.arange(40, 60))[0], ids[40:])
