"""Online trackers: both forms, loops over tracks as the papers describe them, and scenes with a known answer."""

import doctest
import functools

import jax
import numpy as np
import pytest

from canon import tracking
from canon.errors import UsageError
from canon.tracking import byte_track, deep_sort, oc_sort, run, sort
from canon.tracking import kalman as kalman_filters
from canon.tracking.oc_sort import compare_directions
from tests.tracking.drawn import assert_equal_tracks, canonical_ids, draw_detections, table_of
from tests.tracking.loops import loop_byte_track, loop_sort
from tests.tracking.matrix_filter import MatrixFilter

SEEDS = range(4)
TRACKERS = {
    'sort': functools.partial(sort, max_age=3, slots=24),
    'byte_track': functools.partial(byte_track, slots=32, max_lost=12),
    'oc_sort': functools.partial(oc_sort, slots=32, max_age=12, min_score=0.3),
    'deep_sort': functools.partial(deep_sort, 8, slots=24, gallery_size=6, max_age=12),
}


def stack(sequences):
    return {key: np.stack([sequence[key] for sequence in sequences]) for key in sequences[0]}


def scene(paths, scores=None, embeddings=None, size=(20, 40)):
    """Detections of objects at paths [T, N, 2], NaN where hidden; sizes are constant."""
    paths = np.asarray(paths, float)
    valid = np.isfinite(paths).all(-1)
    corners = np.nan_to_num(paths)
    detections = {
        'boxes': np.concatenate([corners, corners + size], -1),
        'scores': np.ones(valid.shape) if scores is None else np.broadcast_to(scores, valid.shape),
        'labels': np.zeros(valid.shape, np.int32),
        'valid': valid,
    }
    if embeddings is not None:
        detections['embeddings'] = np.broadcast_to(embeddings, (*valid.shape, np.shape(embeddings)[-1]))
    return detections


def ids_of(tracks):
    return [sorted(ids[valid].tolist()) for ids, valid in zip(tracks['ids'], tracks['valid'], strict=True)]


@pytest.mark.parametrize(
    'name',
    ['sort', *(pytest.param(name, marks=pytest.mark.slow) for name in ('byte_track', 'oc_sort', 'deep_sort'))],
)
def test_the_scanned_form_equals_the_numpy_form(name):
    """Of several sequences at once, by vmap: ids, boxes, scores and labels."""
    sequences = [draw_detections(seed) for seed in SEEDS]
    compiled = jax.jit(jax.vmap(functools.partial(run, TRACKERS[name]())))
    state, tracks = jax.tree.map(np.asarray, compiled(stack(sequences)))
    assert not state.dropped.any()
    host = TRACKERS[name](form='numpy')
    for i, sequence in enumerate(sequences):
        expected_state, expected = run(host, sequence)
        assert_equal_tracks(table_of({key: value[i] for key, value in tracks.items()}), table_of(expected))
        for key in ('ids', 'labels', 'valid'):
            np.testing.assert_array_equal(tracks[key][i], expected[key])
        np.testing.assert_allclose(tracks['scores'][i], expected['scores'], rtol=1e-6)
        assert state.next_id[i] == expected_state.next_id > 9


@pytest.mark.parametrize(('seed', 'max_age'), [(0, 1), (1, 4), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_sort_equals_a_loop_over_tracks(seed, max_age):
    sequence = draw_detections(seed)
    expected = canonical_ids(loop_sort(sequence, max_age=max_age))
    tracks = run(sort(max_age=max_age, form='numpy'), sequence)[1]
    assert_equal_tracks(canonical_ids(table_of(tracks)), expected, atol=1e-6)


@pytest.mark.parametrize('seed', [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_byte_track_equals_a_loop_over_tracks(seed):
    sequence = draw_detections(seed, miss=0.1, clutter=0.02)
    expected = canonical_ids(loop_byte_track(sequence, max_lost=8))
    tracks = run(byte_track(max_lost=8, form='numpy'), sequence)[1]
    assert_equal_tracks(canonical_ids(table_of(tracks)), expected, atol=1e-6)
    assert len({id_ for _, id_ in expected}) >= 8


def test_low_scores_continue_tracks_but_start_none():
    path = np.arange(12)[:, None, None] * np.array([4.0, 0])
    scores = np.ones((12, 1))
    scores[5:9] = 0.3
    tracks = run(byte_track(form='numpy'), scene(path, scores))[1]
    assert ids_of(tracks) == [[1]] * 12
    assert not run(byte_track(form='numpy'), scene(path, 0.3))[1]['valid'].any()
    tracks = run(byte_track(form='numpy', max_aspect=0.4), scene(path))[1]  # the boxes are 20 wide and 40 high
    assert not tracks['valid'].any()
    assert not run(byte_track(form='numpy', min_area=900), scene(path))[1]['valid'].any()


def test_observation_centric_update_filters_a_virtual_path():
    """After a gap the estimate is that of a filter which saw detections on the straight line between both sides."""
    path = np.array([[0.0, 0], [3, 0], [6, 0], [9, 0], *[[np.nan] * 2] * 4, [17.0, 6]])[:, None]
    detections = scene(path)
    state, tracks = run(oc_sort(form='numpy'), detections)
    assert ids_of(tracks)[-1] == []  # found again, and counted anew until it is reported
    boxes = detections['boxes'][:, 0]
    virtual = [boxes[3] + (boxes[8] - boxes[3]) * i / 5 for i in range(1, 6)]
    reference = MatrixFilter('sort', boxes[0])
    for box in [*boxes[1:4], *virtual]:
        reference.predict()
        reference.update(box)
    np.testing.assert_allclose(state.estimate.mean[0].reshape(8), reference.x, atol=1e-8)
    plain = run(oc_sort(form='numpy', reupdate=False), detections)[0]
    assert np.abs(plain.estimate.mean[0] - state.estimate.mean[0]).max() > 0.01


def test_recovery_looks_where_a_track_was_last_seen():
    """An object that stops while it is hidden is far from its prediction but close to its last detection."""
    x = np.array([0.0, 8, 16, 24, 32, 40, *[np.nan] * 5, 42, 42, 42, 42])
    paths = np.stack([x, 0 * x], -1)[:, None]
    for recover, last_id in ((True, 1), (False, 2)):
        state, tracks = run(oc_sort(form='numpy', recover=recover, min_hits=1), scene(paths))
        assert tracks['ids'][-1].max() == last_id == state.next_id - 1


def test_momentum_prefers_the_direction_of_motion():
    memory = {
        'last': np.array([[10.0, 0, 12, 2], [10, 0, 12, 2]]), 'history': np.zeros((2, 3, 4)),
        'seen': np.zeros((2, 3), bool), 'direction': np.array([[1.0, 0], [0, 0]]),
    }  # fmt: skip
    boxes = np.array([[20.0, 0, 22, 2], [0, 0, 2, 2], [10, 9, 12, 11]])
    np.testing.assert_allclose(compare_directions(memory, boxes), [[0.5, -0.5, 0], [0, 0, 0]], atol=1e-12)


def test_appearance_carries_a_track_through_occlusion():
    x = np.array([0.0, 3, 6, 9, 12, *[np.nan] * 10, 45, 48, 51, 54])
    paths = np.stack([x, 0 * x], -1)[:, None]
    codes = np.tile([1.0, 0, 0], (len(x), 1, 1))
    tracker = deep_sort(3, form='numpy')
    assert ids_of(run(tracker, scene(paths, embeddings=codes))[1])[-1] == [1]
    codes[12:] = [0, 1, 0]  # somebody else comes out
    assert ids_of(run(tracker, scene(paths, embeddings=codes))[1])[-1] == [2]
    # A tentative track that misses a frame is forgotten, so that the next detection starts another one.
    flicker = paths.copy()
    flicker[1::2] = np.nan
    state, tracks = run(tracker, scene(flicker, embeddings=codes))
    assert not tracks['valid'].any()
    assert state.next_id == 1 + np.isfinite(flicker[:, 0, 0]).sum()


@pytest.mark.parametrize('form', ['numpy', pytest.param('jax', marks=pytest.mark.slow)])
def test_an_affinity_of_the_users(form):
    """The IoU as an affinity is SORT; the cosine with the last embedding is DeepSORT with galleries of one."""
    sequence = draw_detections(1)

    def compute_iou(tracks, detections):
        return tracking.affinity.compute_iou(tracks['boxes'], detections['boxes'])

    def compute_cosine(tracks, detections):
        return tracking.affinity.compute_cosine_similarity(tracks['embeddings'], detections['embeddings'])

    pairs = [
        (sort(max_age=3, slots=24, form=form), sort(max_age=3, slots=24, form=form, affinity=compute_iou)),
        (
            deep_sort(8, slots=24, max_age=12, gallery_size=1, form=form),
            deep_sort(8, slots=24, max_age=12, affinity=compute_cosine, form=form),
        ),
    ]
    for plain, given in pairs:
        expected, found = (run(tracker, sequence)[1] for tracker in (plain, given))
        assert expected['ids'].max() > 7
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-4)


def test_an_affinity_reads_gaps_and_what_was_last_seen():
    """An object that hides for two frames: its box then is the last detection, and its gap is three frames."""
    seen = []

    def record(tracks, detections):
        seen.append((tracks['gaps'][tracks['valid']].tolist(), tracks['observed'][tracks['valid']].tolist()))
        return tracking.affinity.compute_iou(tracks['boxes'], detections['boxes'])

    paths = np.stack([np.arange(6.0) * 2, np.zeros(6)], -1)[:, None]
    paths[3:5] = np.nan
    run(sort(max_age=9, form='numpy', affinity=record), scene(paths))
    gaps, observed = zip(*seen[1:], strict=True)
    assert gaps == ([1], [1], [1], [2], [3])
    assert observed == ([[0, 0, 20, 40]], [[2, 0, 22, 40]], [[4, 0, 24, 40]], [[4, 0, 24, 40]], [[4, 0, 24, 40]])


def test_recently_seen_tracks_choose_first():
    """Two tracks that look alike: the detection goes to the one that was seen last, though the other is as near."""
    x = np.array([[0.0, 6]] * 6 + [[0, np.nan]] * 3 + [[3, np.nan]])
    paths = np.stack([x, 0 * x], -1)
    codes = np.array([1.0, 0, 0])
    tracks = run(deep_sort(3, form='numpy'), scene(paths, embeddings=codes))[1]
    assert ids_of(tracks)[-1] == [1]


@pytest.mark.parametrize('name', TRACKERS)
def test_tracks_do_not_depend_on_the_order_place_or_past(name):
    """Permuted detections and moved pictures give the same tracks; a state may be saved; ids begin at 1 again."""
    sequence, tracker = draw_detections(7, frames=24), TRACKERS[name](form='numpy')
    tracks = run(tracker, sequence)[1]
    expected = canonical_ids(table_of(tracks))
    order = np.random.default_rng(0).permutation(sequence['valid'].shape[1])
    permuted = run(tracker, {key: value[:, order] for key, value in sequence.items()})[1]
    assert_equal_tracks(canonical_ids(table_of(permuted)), expected, atol=1e-6)
    moved = run(tracker, sequence | {'boxes': sequence['boxes'].astype(np.float64) + 64})[1]
    shifted = {key: box + 64 for key, box in expected.items()}
    assert_equal_tracks(canonical_ids(table_of(moved)), shifted, atol=1e-6)
    state, first = run(tracker, {key: value[:9] for key, value in sequence.items()})
    rest = run(tracker, {key: value[9:] for key, value in sequence.items()}, state)[1]
    for key, value in tracks.items():
        np.testing.assert_array_equal(np.concatenate([first[key], rest[key]]), value)


@pytest.mark.parametrize('name', TRACKERS)
def test_empty_sequences_and_frames(name):
    tracker = TRACKERS[name](form='numpy')
    empty = {key: value[:0] for key, value in draw_detections(0, frames=2).items()}
    assert run(tracker, empty)[1]['boxes'].shape == (0, tracker.slots, 4)
    without = {key: value[:, :0] for key, value in draw_detections(0, frames=3).items()}
    assert not run(tracker, without)[1]['valid'].any()


def test_labels_slots_and_scores():
    sequence = draw_detections(3)
    tracks = run(sort(form='numpy', match_labels=True), sequence)[1]
    labels = {}
    for frame in zip(tracks['ids'], tracks['labels'], tracks['valid'], strict=True):
        for id_, label in zip(frame[0][frame[2]], frame[1][frame[2]], strict=True):
            assert labels.setdefault(id_, label) == label
    few = run(sort(form='numpy', slots=3), sequence)[0]
    assert few.dropped > 0
    assert run(sort(form='numpy', min_score=2.0), sequence)[0].next_id == 1


def test_what_is_not_valid_may_hold_anything():
    sequence = draw_detections(5, frames=12)
    hidden = {key: value.copy() for key, value in sequence.items()}
    hidden['boxes'][~sequence['valid']] = np.nan
    for name, make in TRACKERS.items():
        expected, tracks = (run(make(form='numpy'), s)[1] for s in (sequence, hidden))
        np.testing.assert_array_equal(tracks['boxes'], expected['boxes'], err_msg=name)


def test_messages():
    sequence, tracker = draw_detections(0, frames=3), sort(form='numpy')
    with pytest.raises(UsageError, match='scores missing'):
        run(tracker, {key: value for key, value in sequence.items() if key != 'scores'})
    with pytest.raises(UsageError, match=r'labels has the shape \[3\], expected \[T, D\]'):
        run(tracker, sequence | {'labels': np.zeros(3, int)})
    wrong = sequence['boxes'].copy()
    wrong[sequence['valid']] = [5, 5, 4, 9]
    with pytest.raises(UsageError, match=r'box \d+ of frame 0 is \[5.0, 5.0, 4.0, 9.0\]'):
        run(tracker, sequence | {'boxes': wrong})
    with pytest.raises(UsageError, match='embeddings missing'):
        run(deep_sort(8, form='numpy'), {k: v for k, v in sequence.items() if k != 'embeddings'})
    with pytest.raises(UsageError, match="form is 'jax' or 'numpy'"):
        sort(form='torch').init()  # ty: ignore[invalid-argument-type]
    with pytest.raises(UsageError, match='at least 1, not 0'):
        sort(slots=0).init()


def test_examples():
    for module in (tracking, kalman_filters, tracking.association):
        assert not doctest.testmod(module).failed
