"""DeepSORT and OC-SORT, all tracks batched, equal loops over tracks that are written from the papers alone."""

import pytest

from canon.tracking import deep_sort, oc_sort, run
from tests.tracking.drawn import assert_equal_tracks, canonical_ids, draw_detections, table_of
from tests.tracking.paper_loops import loop_deep_sort, loop_oc_sort


@pytest.mark.parametrize('seed', [0, 1])
def test_deep_sort_equals_a_loop_over_tracks(seed):
    sequence = draw_detections(seed, miss=0.1)
    expected = canonical_ids(loop_deep_sort(sequence, max_age=8, gallery_size=5))
    tracks = run(deep_sort(8, max_age=8, gallery_size=5, form='numpy'), sequence)[1]
    assert_equal_tracks(canonical_ids(table_of(tracks)), expected, atol=1e-6)
    assert len({id_ for _, id_ in expected}) >= 8


@pytest.mark.parametrize('seed', [0, 1])
def test_oc_sort_equals_a_loop_over_tracks(seed):
    sequence = draw_detections(seed, miss=0.15)
    expected = canonical_ids(loop_oc_sort(sequence, min_score=0.3, max_age=8))
    tracks = run(oc_sort(min_score=0.3, max_age=8, form='numpy'), sequence)[1]
    assert_equal_tracks(canonical_ids(table_of(tracks)), expected, atol=1e-6)
    assert len({id_ for _, id_ in expected}) >= 8
