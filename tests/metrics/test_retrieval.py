"""Retrieval scores against a loop over queries and their sorted gallery."""

import doctest

import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import retrieval, score_retrieval


def score_by_loop(similarity, queries, gallery, excluded, ranks):
    hits, precisions = {k: [] for k in ranks}, []
    for q in range(len(queries)):
        entries = sorted((g for g in range(len(gallery)) if not excluded[q, g]), key=lambda g: -similarity[q, g])
        places = [place for place, g in enumerate(entries, 1) if gallery[g] == queries[q]]
        if places:
            precisions.append(np.mean([i / place for i, place in enumerate(places, 1)]))
            for k in ranks:
                hits[k].append(places[0] <= k)
    return {f'rank_{k}': np.mean(values) for k, values in hits.items()} | {
        'mAP': np.mean(precisions),
        'queries': len(precisions),
    }


@pytest.mark.parametrize('ties', [False, True])
def test_scores_are_those_of_a_loop(ties):
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(12, 40))
    similarity = np.round(similarity) if ties else similarity
    queries, gallery = rng.integers(6, size=12), rng.integers(6, size=40)
    queries[0] = 9  # an identity that the gallery does not have
    excluded = rng.random((12, 40)) < 0.3
    excluded[1] = True
    ranks = (1, 3, 5)
    found = score_retrieval(similarity, queries, gallery, excluded, ranks)
    assert found == pytest.approx(score_by_loop(similarity, queries, gallery, excluded, ranks), abs=1e-12)
    assert found['queries'] == 10


def test_shapes_that_disagree_and_queries_without_a_match():
    with pytest.raises(UsageError, match=r'similarity \[2, 3\].*expected \[2, 4\]'):
        score_retrieval(np.zeros((2, 3)), np.zeros(2), np.zeros(4))
    assert np.isnan(score_retrieval(np.zeros((1, 2)), np.array([1]), np.array([2, 3]))['mAP'])


def test_examples():
    assert doctest.testmod(retrieval) == (0, 1)
