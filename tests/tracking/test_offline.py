"""Batch trackers: min-cost flow against all sets of paths, and linking, interpolation and smoothing of known scenes."""

import itertools

import numpy as np
import pytest

from canon.errors import UsageError
from canon.tracking import interpolate_gaps, link_tracklets, list_rows, run, smooth_tracks, sort, track_by_flow
from canon.tracking.offline import solve_min_cost_flow
from tests.tracking.drawn import draw_detections


def partition(ids):
    """The groups of rows with the same id, whatever its name; unused rows (id 0) are left out."""
    return {frozenset(np.flatnonzero(ids == i).tolist()) for i in set(ids.tolist()) - {0}}


def list_costs(count, links, detection, entry, exits):
    """Costs of all ways to use a subset of detections and links; each has one successor and one predecessor at most."""
    for used in itertools.product((False, True), repeat=count):
        usable = [link for link in links if used[link[0]] and used[link[1]]]
        for size in range(len(usable) + 1):
            for chosen in itertools.combinations(usable, size):
                tails, heads = [c[0] for c in chosen], [c[1] for c in chosen]
                if len(set(tails)) < size or len(set(heads)) < size:
                    continue
                rows = [i for i in range(count) if used[i]]
                ends = sum(entry[i] for i in rows if i not in heads) + sum(exits[i] for i in rows if i not in tails)
                yield ends + sum(detection[i] for i in rows) + sum(c[2] for c in chosen)


def flow_cost(ids, links, detection, entry, exits):
    cost = 0.0
    for rows in partition(ids):
        rows = sorted(rows)
        cost += entry[rows[0]] + exits[rows[-1]] + sum(detection[i] for i in rows)
        cost += sum(next(c for a, b, c in links if (a, b) == pair) for pair in itertools.pairwise(rows))
    return cost


@pytest.mark.parametrize('seed', range(12))
def test_the_flow_is_the_best_of_all_sets_of_paths(seed):
    """Detections in the order of time, so that rows of a track are ascending."""
    rng = np.random.default_rng(seed)
    count = 6
    pairs = [pair for pair in itertools.combinations(range(count), 2) if rng.random() < 0.5]
    links = [(a, b, rng.normal(0.2, 1)) for a, b in pairs]
    detection, entry, exits = rng.normal(-1.5, 1.5, count), rng.uniform(0, 2, count), rng.uniform(0, 2, count)
    tails, heads, costs = (np.array(column) for column in zip(*links, strict=True))
    ids = solve_min_cost_flow(detection, tails, heads, costs, entry, exits)
    best = min(list_costs(count, links, detection, entry, exits))
    assert flow_cost(ids, links, detection, entry, exits) == pytest.approx(best, abs=1e-9)


def test_the_ends_of_the_flow():
    nothing = np.zeros(0, int)
    assert solve_min_cost_flow(np.zeros(0), nothing, nothing, np.zeros(0), 1.0, 1.0).shape == (0,)
    assert solve_min_cost_flow(np.array([-5.0, 5]), nothing, nothing, np.zeros(0), 1.0, 1.0).tolist() == [1, 0]
    with pytest.raises(UsageError, match='must be finite'):
        solve_min_cost_flow(np.array([np.inf]), nothing, nothing, np.zeros(0), 1.0, 1.0)


def draw_rows(seed=2):
    """Detections as columns (frames, boxes, scores)."""
    sequence = draw_detections(seed, frames=30, objects=6)
    frames, slots = np.nonzero(sequence['valid'])
    return frames, sequence['boxes'][frames, slots].astype(float), sequence['scores'][frames, slots]


def test_flow_does_not_depend_on_time_order_or_labels():
    """Shifted frames, permuted rows and reversed time give the same tracks; ids go by the first frame."""
    frames, boxes, scores = draw_rows()
    ids = track_by_flow(frames, boxes, scores)
    groups = partition(ids)
    assert 5 <= len(groups) <= 20
    assert max(map(len, groups)) > 10
    np.testing.assert_array_equal(track_by_flow(frames + 1000, boxes, scores), ids)
    assert partition(track_by_flow(29 - frames, boxes, scores)) == groups
    order = np.random.default_rng(0).permutation(len(frames))
    permuted = np.empty_like(ids)
    permuted[order] = track_by_flow(frames[order], boxes[order], scores[order])
    assert partition(permuted) == groups
    firsts = [frames[ids == i].min() for i in range(1, ids.max() + 1)]
    assert firsts == sorted(firsts)
    assert track_by_flow(frames[:0], boxes[:0], scores[:0]).shape == (0,)


def test_the_future_tells_a_detection_from_clutter():
    """Online every detection starts a track; the flow drops the one that nothing continues."""
    frames = np.array([0, 1, 2, 3, 4, 2])
    boxes = np.array([[3.0 * t, 0, 20 + 3 * t, 40] for t in range(5)] + [[200, 0, 220, 40]])
    assert track_by_flow(frames, boxes, np.full(6, 0.9)).tolist() == [1, 1, 1, 1, 1, 0]


def test_tracklets_are_linked_across_gaps():
    """Two objects cross while both are hidden; a third begins elsewhere and a fourth after too long a gap."""
    times = np.array([0, 1, 2, 3, 4, 11, 12, 13, 14])
    forwards = np.stack([10.0 * times, 0 * times, 10.0 * times + 40, 0 * times + 40], -1)
    backwards = np.stack([150 - 10.0 * times, 0 * times, 190 - 10.0 * times, 0 * times + 40], -1)
    frames = np.concatenate([times, times, [40, 41]])
    boxes = np.concatenate([forwards, backwards, [[500.0, 0, 540, 40], [510, 0, 550, 40]]])
    ids = np.concatenate([np.repeat([7, 3], [5, 4]), np.repeat([9, 1], [5, 4]), [5, 5]])
    linked = link_tracklets(frames, ids, boxes)
    assert linked.tolist() == [1] * 9 + [2] * 9 + [3] * 2
    assert len(set(link_tracklets(frames, ids, boxes, max_gap=5).tolist())) == 5
    renamed = link_tracklets(frames + 3, 100 - ids, boxes)
    np.testing.assert_array_equal(renamed, linked)
    assert partition(link_tracklets(41 - frames, ids, boxes)) == partition(linked)
    assert link_tracklets(frames[:0], ids[:0], boxes[:0]).shape == (0,)


def test_gaps_are_filled_on_straight_lines():
    frames, ids = np.array([0, 4, 2, 3, 30]), np.array([1, 1, 2, 2, 1])
    boxes = np.array([[0.0, 0, 10, 10], [8, 4, 18, 14], [5, 5, 6, 6], [6, 5, 7, 6], [0, 0, 1, 1]])
    for reverse in (False, True):
        rows = slice(None, None, -1) if reverse else slice(None)
        full_frames, full_ids, full_boxes, added = interpolate_gaps(frames[rows], ids[rows], boxes[rows], max_gap=5)
        assert full_frames.tolist() == [0, 1, 2, 2, 3, 3, 4, 30]
        assert full_ids.tolist() == [1, 1, 1, 2, 1, 2, 1, 1]
        assert added.tolist() == [False, True, True, False, True, False, False, False]
        np.testing.assert_allclose(full_boxes[[1, 2, 4], 0], [2, 4, 6])
    assert len(interpolate_gaps(frames, ids, boxes, max_gap=0)[0]) == 5
    assert [len(column) for column in interpolate_gaps(frames[:0], ids[:0], boxes[:0])] == [0] * 4


def test_smoothing_reduces_jitter():
    """Tracks of different beginnings, ends and gaps are smoothed as each would be alone."""
    rng = np.random.default_rng(0)
    columns, truth = [], []
    for id_, (begin, end) in enumerate([(0, 30), (5, 21), (9, 40), (3, 4)], 1):
        times = np.array([t for t in range(begin, end) if t % 7 or t == begin])
        clean = np.stack([2.0 * times, times, 2.0 * times + 30, times + 50], -1) + 50 * id_
        columns.append((times, np.full(len(times), id_), clean + rng.normal(0, 3, clean.shape)))
        truth.append(clean)
    frames, ids, boxes = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    smoothed = smooth_tracks(frames, ids, boxes)
    errors = [np.abs(values - np.concatenate(truth)).mean() for values in (boxes, smoothed)]
    assert errors[1] < 0.8 * errors[0]
    for i, column in enumerate(columns, 1):
        np.testing.assert_allclose(smooth_tracks(*column), smoothed[ids == i], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(smooth_tracks(frames + 9, 50 - ids, boxes), smoothed)
    assert smooth_tracks(frames[:0], ids[:0], boxes[:0]).shape == (0, 4)


def test_rows_of_an_online_tracker():
    tracks = run(sort(form='numpy'), draw_detections(0, frames=12))[1]
    frames, ids, boxes, scores = list_rows(tracks)
    assert len(frames) == len(ids) == len(boxes) == len(scores) == tracks['valid'].sum()
    assert (np.diff(frames) >= 0).all()
    np.testing.assert_array_equal(boxes[frames == 5], tracks['boxes'][5][tracks['valid'][5]])
