"""CLEAR, identity and HOTA against TrackEval, the rules of the benchmarks against its own, and laws that must hold."""

import doctest
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from canon.errors import UsageError
from canon.metrics import tracking
from canon.metrics.tracking import overlaps as overlap_module

GOLDEN = dict(np.load(Path(__file__).parent / 'golden/tracking.npz'))
CASES = [name.removesuffix('/truth') for name in GOLDEN if name.endswith('/truth')]
PLAIN = [name for name in CASES if not name.startswith(('mot', 'kitti'))]


def to_table(rows):
    """A table of the rows of the golden file: frame, id, x0, y0, x1, y1, label, ignored."""
    columns = dict(frames=rows[:, 0].astype(int), ids=rows[:, 1].astype(int), boxes=rows[:, 2:6])
    return SimpleNamespace(**columns, labels=rows[:, 6].astype(int), ignored=rows[:, 7].astype(bool))


def load(name):
    return to_table(GOLDEN[f'{name}/truth']), to_table(GOLDEN[f'{name}/result']), int(GOLDEN[f'{name}/length'])


def check(scores, name):
    """All metrics of TrackEval, and no others, to 1e-12."""
    joined = scores.clear | scores.identity | scores.hota
    names = GOLDEN[f'{name}/names'].tolist()
    assert set(names) == set(joined)
    values = np.concatenate([np.atleast_1d(np.asarray(joined[x], np.float64)) for x in names])
    np.testing.assert_allclose(values, GOLDEN[f'{name}/scores'], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize('name', PLAIN)
def test_scores_are_those_of_trackeval(name):
    check(tracking.score_tracks(*load(name)), name)


def test_the_cases_tell_right_from_wrong():
    values = {name: tracking.score_tracks(*load(name)).summarise() for name in PLAIN}
    assert 0.3 < values['crowd']['MOTA'] < 0.9
    assert values['poor']['MOTA'] < 0.3
    assert values['exact']['MOTA'] == values['exact']['IDF1'] == 1 > values['exact']['HOTA'] > 0.9
    assert values['swaps']['IDSW'] > 50
    assert values['swaps']['Frag'] > 5
    assert values['apart']['CLR_TP'] == values['apart']['HOTA'] == 0 > values['apart']['MOTA']
    assert values['no_result']['MLR'] == values['no_result']['LocA'] == 1


def test_combined_scores_are_those_of_trackeval():
    check(tracking.combine_scores([tracking.score_tracks(*load(name)) for name in PLAIN]), 'combined')
    with pytest.raises(UsageError, match='no sequences'):
        tracking.combine_scores([])


@pytest.mark.parametrize('preset', ['mot15', 'mot16', 'mot17', 'mot20', 'kitti_car', 'kitti_pedestrian'])
def test_benchmarks_drop_what_trackeval_drops(preset):
    truth, result, length = load('kitti' if 'kitti' in preset else preset)
    regions = None
    if 'kitti' in preset:
        rows = GOLDEN['kitti/regions']
        regions = SimpleNamespace(frames=rows[:, 0].astype(int), boxes=rows[:, 1:])
    scores = tracking.score_tracks(truth, result, length, preset, regions)
    check(scores, preset)
    plain = tracking.score_tracks(truth, result, length)
    assert preset == 'mot15' or scores.clear['CLR_FP'] != plain.clear['CLR_FP'], (
        'the rules of the benchmark drop nothing'
    )


@pytest.mark.parametrize('name', ['crowd', 'ties', 'twins'])
def test_matching_of_all_frames_is_that_of_scipy_in_each(name):
    """For random weights, and for equal ones, among which scipy's choice depends on positions."""
    overlaps = tracking.overlap_frames(*load(name))
    rng = np.random.default_rng(0)
    for scores in (overlaps.iou, rng.random(len(overlaps.iou)) ** 4 + 1e-6, np.ones(len(overlaps.iou))):
        pairs = np.arange(len(scores))
        matched = set(tracking.match_frames(overlaps, pairs, scores).tolist())
        expected = set()
        for t in range(overlaps.length):
            rows, columns = (np.flatnonzero(x == t) for x in (overlaps.truth_frames, overlaps.result_frames))
            part = np.flatnonzero(np.isin(overlaps.truth, rows))
            matrix, index = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
            place = np.searchsorted(rows, overlaps.truth[part]), np.searchsorted(columns, overlaps.result[part])
            matrix[place], index[place] = scores[part], part
            expected |= set(index[linear_sum_assignment(-matrix)].tolist()) - {-1}
        assert matched == expected


@pytest.mark.parametrize('chunk', [1, 1000])
def test_overlaps_do_not_depend_on_the_frames_compared_at_once(monkeypatch, chunk):
    expected = tracking.overlap_frames(*load('empty_frames'))
    monkeypatch.setattr(overlap_module, '_CHUNK', chunk)
    for a, b in zip(tracking.overlap_frames(*load('empty_frames')), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def compare(scores, expected, but=()):
    for a, b in zip(scores, expected, strict=True):
        for name in a.keys() - set(but):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize('name', ['usual', 'crowd', 'empty_frames', 'swaps'])
def test_laws(name):
    """Other ids, later frames, another place or size change nothing; two copies apart count twice."""
    truth, result, length = load(name)
    expected = tracking.score_tracks(truth, result, length)
    rng = np.random.default_rng(1)

    def change(table, **columns):
        return SimpleNamespace(**(vars(table) | columns))

    def relabel(table):
        values, numbers = np.unique(table.ids, return_inverse=True)
        return change(table, ids=rng.permutation(10 * len(values))[numbers])

    def shift(table, frames, pixels=0, scale=1):
        return change(table, frames=table.frames + frames, boxes=scale * table.boxes + pixels)

    # Numbers of ids order the rows of the identity metrics' assignment, so that only its optimum is invariant.
    compare(tracking.score_tracks(relabel(truth), relabel(result), length), expected)
    shifted = tracking.score_tracks(shift(truth, 5), shift(result, 5), length + 5)
    compare(shifted, expected, but=('CLR_Frames', 'FP_per_frame'))
    compare(tracking.score_tracks(shift(truth, 0, 64, 2), shift(result, 0, 64, 2), length), expected)
    first, second = [
        SimpleNamespace(
            **{
                field: np.concatenate([values, getattr(shift(table, length), field) + (10**6 if field == 'ids' else 0)])
                for field, values in vars(table).items()
            }
        )
        for table in (truth, result)
    ]
    doubled = tracking.score_tracks(first, second, 2 * length)
    compare(doubled, tracking.combine_scores([expected, expected]))
    # Against itself the truth is perfect; a perfect half is half as good.
    itself = tracking.score_tracks(truth, truth, length).summarise()
    assert itself['MOTA'] == itself['IDF1'] == itself['HOTA'] == 1
    half = length // 2
    begun = SimpleNamespace(**{field: values[truth.frames < half] for field, values in vars(truth).items()})
    part = tracking.score_tracks(truth, begun, length)
    assert part.clear['MOTA'] == part.identity['IDR'] == pytest.approx(len(begun.frames) / len(truth.frames))


def make(*rows):
    """A table of rows (frame, id, x0, y0, x1, y1)."""
    return to_table(np.array([(*row, 0, 0) for row in rows], float).reshape(-1, 8))


def test_ua_detrac_drops_what_lies_in_the_union_of_regions():
    boxes = [(0, 0, 10, 10), (0, 0, 40, 10), (20, 20, 30, 30), (12, 0, 32, 10), (6, 0, 16, 10)]
    table = make(*((0, i, *box) for i, box in enumerate(boxes)), (1, 0, *boxes[0]), (1, 1, 14, 0, 24, 10))
    # Two regions that overlap, in all frames, cover x < 12 above y = 10; a third covers x in 14..24, in frame 1 only.
    regions = SimpleNamespace(
        frames=np.array([-1, -1, 1]), boxes=np.array([[0, 0, 8, 10], [4, -5, 12, 10], [14, 0, 24, 10]])
    )
    masks = tracking.keep_ua_detrac(table, table, tracking.overlap_frames(table, table, 2), regions)
    for kept in masks:  # shares 1, 0.3, 0, 0, 0.6; 1, 1
        assert kept.tolist() == [False, True, True, True, False, False, False]
    table.ignored[1] = True
    keep_truth, keep_result = tracking.keep_ua_detrac(table, table, tracking.overlap_frames(table, table, 2))
    assert keep_truth.tolist() == [True, False, *[True] * 5]
    assert keep_result.all()


def test_pr_mota():
    """Along the longest curve a constant metric is itself; along a quarter of a circle it is pi / 4 of it."""
    assert tracking.integrate_along_pr([0.7] * 3, [1, 1, 0], [0, 1, 1]) == pytest.approx(0.7)
    angles = np.linspace(0, np.pi / 2, 2001)
    value = tracking.integrate_along_pr(np.cos(angles), np.cos(angles), np.sin(angles))
    assert value == pytest.approx(0.5, rel=1e-6)  # 1/2 int cos da
    with pytest.raises(UsageError, match=r'shapes \(\(2,\), \(3,\), \(2,\)\)'):
        tracking.integrate_along_pr([1, 1], [1, 1, 0], [0, 1])


def test_precision_and_recall_of_detections_by_threshold():
    """Against a loop over the detections above each threshold."""
    truth, result, length = load('crowd')
    scores = np.random.default_rng(0).random(len(result.frames)).round(2)
    thresholds = [0, 0.31, 0.5, 0.9, 1.5]
    precision, recall = tracking.trace_detections(truth, result, scores, length, thresholds, min_iou=0.5)
    overlaps = tracking.overlap_frames(truth, result, length)
    for k, threshold in enumerate(thresholds):
        taken, right = set(), 0
        for row in sorted(np.flatnonzero(scores >= threshold), key=lambda row: -scores[row]):
            pairs = np.flatnonzero(overlaps.result == row)
            if len(pairs) and (iou := overlaps.iou[pairs].max()) >= 0.5:
                best = {overlaps.truth[p] for p in pairs if overlaps.iou[p] == iou}
                right += not best & taken
                taken |= best
        count = (scores >= threshold).sum()
        assert precision[k] == (right / count if count else 1)
        assert recall[k] == right / len(truth.frames)
    assert 0.1 < recall[2] < recall[0] < 1
    assert tracking.trace_detections(truth, make(), [], length, [0.5])[0].tolist() == [1]


def test_bad_input():
    truth = make((0, 1, 0, 0, 4, 4), (1, 1, 0, 0, 4, 4))
    doubled = make((0, 3, 0, 0, 4, 4), (1, 8, 0, 0, 4, 4), (1, 8, 9, 9, 12, 12))
    with pytest.raises(UsageError, match=r'the result has id 8 twice in frame 1 \(from 0\)'):
        tracking.score_tracks(truth, doubled, 2)
    with pytest.raises(UsageError, match=r'the truth has frames 0 to 1, and 0 to 0 .* is it of another sequence'):
        tracking.score_tracks(truth, truth, 1)
    with pytest.raises(UsageError, match="no preset 'mot18'; did you mean"):
        tracking.score_tracks(truth, truth, 2, 'mot18')
    with pytest.raises(UsageError, match='min_iou=0 must be above 0'):
        tracking.score_tracks(truth, truth, 2, min_iou=0)
    other = make((0, 1, 0, 0, 4, 4))
    other.labels[:] = 2
    with pytest.raises(UsageError, match='the result has a box of class 2 in frame 0'):
        tracking.score_tracks(truth, other, 2, 'mot17')


@pytest.mark.parametrize('module', ['scores', 'pr_curves'])
def test_docstrings(module):
    results = doctest.testmod(import_module(f'canon.metrics.tracking.{module}'))
    assert results.attempted > 0
    assert not results.failed
