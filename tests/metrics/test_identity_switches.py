"""Causes of identity switches on cases made by hand, and their number against CLEAR's."""

import numpy as np
import pytest

from canon.data.tracking import make_table
from canon.metrics.tracking import SWITCH_CAUSES, find_switches, overlap_frames, score_clear

PLACES = {'left': [0.0, 0, 10, 20], 'right': [50.0, 0, 60, 20], 'nowhere': [200.0, 0, 210, 20]}


def overlap(results, length=4):
    """Overlaps of objects 1 (left) and 2 (right), which stay, and of results {frame: {id: place}}."""
    truth = [(t, i, PLACES[place]) for t in range(length) for i, place in ((1, 'left'), (2, 'right'))]
    rows = [(t, i, PLACES[place]) for t, frame in sorted(results.items()) for i, place in frame.items()]
    return overlap_frames(make_table(*zip(*truth, strict=True)), make_table(*zip(*rows, strict=True)), length)


CASES = {
    # Both tracks change their objects at once.
    'swapped': ({0: {7: 'left', 8: 'right'}, 1: {7: 'right', 8: 'left'}}, [(1, 'swapped'), (1, 'swapped')]),
    # The track of the right object moves to the left one, whose own track has ended.
    'merged': ({0: {7: 'left', 8: 'right'}, 1: {8: 'left'}}, [(1, 'merged')]),
    # The same, but the old track goes on elsewhere, on no object.
    'drifted': ({0: {7: 'left', 8: 'right'}, 1: {7: 'nowhere', 8: 'left'}}, [(1, 'merged')]),
    # A frame without a match, then a track that has been on no object.
    'missed': ({0: {7: 'left', 8: 'right'}, 1: {8: 'right'}, 2: {9: 'left', 8: 'right'}}, [(2, 'missed')]),
    'restarted': ({0: {7: 'left'}, 1: {9: 'left'}}, [(1, 'restarted')]),
    # The first object's track goes to the second after a miss of the first: its new track comes after a gap.
    'taken': ({0: {7: 'left'}, 1: {7: 'right'}, 2: {7: 'right', 9: 'left'}}, [(2, 'swapped')]),
    'continued': ({0: {7: 'left'}, 1: {8: 'right'}, 2: {7: 'left', 8: 'right'}}, []),
}


@pytest.mark.parametrize('name', CASES)
def test_causes_of_switches_are_those_of_cases_made_by_hand(name):
    results, expected = CASES[name]
    switches = find_switches(overlap(results))
    assert [(int(t), SWITCH_CAUSES[c]) for t, c in zip(switches.frames, switches.causes, strict=True)] == expected
    assert sum(switches.count_causes().values()) == len(expected)


def test_switches_name_the_frames_and_the_tracks_on_both_sides():
    switches = find_switches(overlap(CASES['missed'][0]))
    fields = [column.tolist() for column in switches[:5]]
    assert fields == [[2], [0], [0], [0], [2]]  # ids are numbered from 0: 7, 8, 9 are 0, 1, 2


def test_there_are_as_many_switches_as_clear_counts():
    rng, total = np.random.default_rng(0), 0
    for _ in range(20):
        results = {}
        for t in range(12):
            places = rng.permutation(['left', 'right', 'nowhere'])[:2].tolist()
            results[t] = dict(zip(rng.permutation(4)[:2].tolist(), places, strict=True))
        overlaps = overlap(results, 12)
        switches = find_switches(overlaps)
        assert len(switches.frames) == score_clear(overlaps)['IDSW']
        total += len(switches.frames)
    assert total > 50
