"""A learnt affinity: its examples against a filter per object, its pairs against loops, links, and trackers with it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models, tracking
from canon.data.tracking import digit_sequences, make_table
from canon.errors import UsageError
from canon.models.pair_affinity import describe_pairs
from canon.tasks import tracking as tasks
from canon.tracking import kalman
from canon.train import At
from tests.tracking.drawn import assert_equal_tracks, draw_detections, table_of
from tests.tracking.loops import iou

SETTINGS = tasks.PairSettings(slots=16, max_gap=6, max_age=8)
MOTION = kalman.deep_sort_motion()


@pytest.fixture(scope='module')
def sequence():
    return digit_sequences('test[:1]', num_sequences=1, length=24, objects=(9, 9), miss=0.3)[0]


@pytest.fixture(scope='module')
def followed(sequence):
    return tasks.follow_objects(sequence, SETTINGS, MOTION)


def test_detections_are_of_the_object_that_they_overlap_most():
    """Ids 9 and 4, of which only 4 is near two detections; one is clutter, and one is nearer to nothing."""
    truth = make_table([0, 0, 1], [9, 4, 9], [[0, 0, 10, 10], [30, 0, 40, 10], [2, 0, 12, 10]])
    boxes = np.array([[[31, 0, 41, 10], [30, 1, 40, 10], [0, 0, 10, 11]], [[8, 0, 18, 10], [90, 90, 99, 99], [0] * 4]])
    detections = {'boxes': boxes.astype(np.float32), 'valid': np.array([[1, 1, 1], [1, 1, 0]], bool)}
    assert tasks.name_detections(truth, detections).tolist() == [[-1, 0, 1], [-1, -1, -1]]


def test_tracks_are_those_of_a_filter_per_object(sequence, followed):
    """Each object by itself, from its first detection on: predicted boxes, last detections, gaps and matches."""
    boxes, objects = followed.detections['boxes'], followed.objects
    checked = 0
    for frame, gap in [(9, 1), (15, 4), (23, 6)]:
        pair = tasks.make_pair(followed, frame, gap, SETTINGS, MOTION)
        row = 0
        for number in range(objects.max() + 1):
            seen = [t for t in range(frame - gap + 1) if number in objects[t]]
            if not seen or frame - gap - seen[-1] >= SETTINGS.max_age:
                continue
            track = None
            for t in range(seen[0], frame + 1):
                track = kalman.predict(MOTION, track) if track else None
                if t in seen:
                    box = boxes[t, objects[t].tolist().index(number)].astype(np.float64)
                    track = kalman.update(MOTION, track, box) if track else kalman.initiate(MOTION, box)
            np.testing.assert_allclose(pair['tracks']['boxes'][row], kalman.to_boxes(MOTION, track), rtol=1e-5)
            np.testing.assert_allclose(pair['tracks']['observed'][row], box, rtol=1e-6)
            assert pair['tracks']['gaps'][row] == frame - seen[-1]
            present = objects[frame].tolist()
            assert pair['matches'][row] == (present.index(number) if number in present else -1)
            row += 1
        assert pair['tracks']['valid'].tolist() == [i < row for i in range(16)]
        assert (pair['matches'][row:] == -1).all()
        assert (pair['matches'][:row] < 0).any() or gap == 1
        checked += row
    assert checked > 10


def test_pairs_are_described_one_by_one():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (2, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, (2, 5, 2))], -1).astype(np.float32)
    vectors = rng.normal(size=(2, 4, 6)).astype(np.float32)
    tracks = {
        'boxes': boxes[0, :3],
        'observed': boxes[0, 1:4],
        'gaps': np.array([1, 4, 9]),
        'embeddings': vectors[0, :3],
    }
    detections = {'boxes': boxes[1, :4], 'scores': rng.random(4).astype(np.float32), 'embeddings': vectors[1]}
    found = np.asarray(describe_pairs(tracks, detections, appearance=True))
    for i in range(3):
        for j in range(4):
            b, expected = detections['boxes'][j].astype(float), []
            for a in (tracks['boxes'][i].astype(float), tracks['observed'][i].astype(float)):
                size_a, size_b = a[2:] - a[:2], b[2:] - b[:2]
                moved = ((b[:2] + b[2:]) - (a[:2] + a[2:])) / 2 / np.sqrt(size_a.prod())
                expected += [*(np.sign(moved) * np.log(1 + abs(moved))), *np.log(size_b / size_a), iou(a, b)]
            gap = tracks['gaps'][i]
            expected += [np.log(1 + gap), 1 / (1 + gap), detections['scores'][j]]
            expected.append(vectors[0, i].astype(float) @ vectors[1, j])
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-5)
    assert describe_pairs(tracks, detections).shape == (3, 4, 13)


def test_batches_are_a_function_of_seed_and_step(sequence):
    make = functools.partial(tasks.PairBatches, [sequence], 4, SETTINGS, MOTION)
    first, again = make().draw(3), make().draw(3)
    again[0]
    jax.tree.map(np.testing.assert_array_equal, first[5], again[5])
    assert not np.array_equal(first[5]['tracks']['boxes'], first[6]['tracks']['boxes'])
    assert {int(g) for step in range(12) for g in first[step]['gap']} == set(range(1, 7))
    halves = [first.for_process(i, 2)[5]['matches'] for i in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), first[5]['matches'])
    # Frames 1, 11 and 21 after a gap of 1, and 5 and 15 after one of 5.
    finite = make().list((1, 5), 10)
    assert len(finite) == 2
    assert [b['gap'][b['mask']].tolist() for b in finite.iterate()] == [[1, 1, 1, 5], [5]]


@pytest.mark.parametrize(
    ('change', 'settings', 'message'),
    [
        (dict(detections=None), SETTINGS, 'has no detections; an affinity is learnt from both'),
        ({}, tasks.PairSettings(slots=2), 'raise slots to'),
        ({}, tasks.PairSettings(slots=16, max_gap=24), 'has 24 frames, too few for data.pairs.max_gap=24'),
    ],
)
def test_what_cannot_be_paired_is_refused(change, settings, message, sequence):
    batches = tasks.PairBatches([sequence._replace(**change)], 2, settings, MOTION)
    with pytest.raises(UsageError, match=message):
        batches.draw(0)[0]


class ByOverlap(nn.Module):
    """The overlap of the predicted boxes as the score, times a parameter, against 0.3."""

    @nn.compact
    def __call__(self, tracks, detections):
        scale = self.param('scale', nn.initializers.constant(40.0), (), jnp.float32)
        return scale * describe_pairs(tracks, detections)[..., 4], scale * 0.3


def test_links_are_counted_by_gap(sequence):
    """Scores that are large multiples of the overlap link as the overlap does, and both as in a loop over examples."""
    batches = tasks.PairBatches([sequence], 4, SETTINGS, MOTION).list((1, 5), 3)
    task = tasks.affinity_task(ByOverlap(), tasks.AffinitySettings(iterations=100))
    params = task.init(jax.random.key(0), batches[0])['params']
    evaluator = tasks.link_evaluator(task, batches, tasks.LinkEvaluation(split='test', gaps=(1, 5), every=3))
    parts = [evaluator.measure(params, {}, batch) for batch in batches.iterate()]
    counts = {key: sum(part['counts'][key] for part in parts) for key in parts[0]['counts']}
    rows = parts[0]['first']
    for part in parts[1:]:
        rows = rows + part['first']
    scores = evaluator.finish({'counts': counts, 'first': rows})
    expected = {(kind, gap): np.zeros(3) for kind in ('', 'iou_') for gap in (1, 5)}
    for batch in batches.iterate():
        plans = np.exp(np.asarray(task.predict(params, {}, batch)))[:, :-1, :-1]
        for b in np.flatnonzero(batch['mask']):
            tracks, detections = (batch[side]['boxes'][b] for side in ('tracks', 'detections'))
            overlaps = np.array([[iou(x, y) for y in detections] for x in tracks])
            overlaps *= batch['tracks']['valid'][b][:, None] & batch['detections']['valid'][b]
            for kind, weights, gate in (('', plans[b], 0.2), ('iou_', overlaps, 0.3)):
                columns, matches = tracking.assign_then_gate(weights, gate), batch['matches'][b]
                right = sum(c >= 0 and c == m for c, m in zip(columns, matches, strict=True))
                expected[kind, int(batch['gap'][b])] += [right, (columns >= 0).sum(), (matches >= 0).sum()]
    for (kind, gap), (right, linked, true) in expected.items():
        assert scores[f'{kind}f1_gap_{gap}'] == pytest.approx(2 * right / (linked + true))
        assert right > 10
    # The plan of large multiples of the overlap is nearly the assignment by the overlap.
    assert scores['f1'] == pytest.approx(scores['iou_f1'], abs=0.05)
    right, linked, true = expected['iou_', 1] + expected['iou_', 5]
    assert scores['iou_precision'] == pytest.approx(right / linked)
    assert scores['iou_recall'] == pytest.approx(right / true)
    (figure,) = evaluator.draw(params, {}, {'counts': counts, 'first': rows}).values()
    assert figure.axes[0].get_ylabel() == 'track'


def test_links_without_any():
    assert tasks.count_links(np.array([2, -1, 0]), np.array([2, 1, -1])).tolist() == [1, 2, 2]
    assert tasks.score_links(np.zeros(3)) == {'precision': 1, 'recall': 1, 'f1': 1}


@pytest.fixture(scope='module')
def learnt(sequence):
    """An untrained network with embeddings, which links by its chance weights."""
    task = tasks.affinity_task(
        models.make_model('pair_affinity.pair_affinity', units=(8,), appearance=True), tasks.AffinitySettings(10)
    )
    boxes = np.zeros((1, 3, 4), np.float32)
    side = {'boxes': boxes, 'valid': np.ones((1, 3), bool), 'embeddings': np.zeros((1, 3, 8), np.float32)}
    tracks = {**side, 'observed': boxes, 'gaps': np.ones((1, 3), np.int32)}
    batch = {'tracks': tracks, 'detections': {**side, 'scores': np.ones((1, 3), np.float32)}}
    params = task.init(jax.random.key(0), batch)['params']
    return task, params


def test_padding_changes_neither_the_loss_nor_its_gradient(sequence, learnt):
    task = tasks.affinity_task(models.make_model('pair_affinity.pair_affinity', units=(8,)), tasks.AffinitySettings(20))
    batch = tasks.PairBatches([sequence], 3, SETTINGS, MOTION).draw(1)[0]
    params = task.init(jax.random.key(0), batch)['params']

    def total(params, batch):
        mean, _ = task.loss(params, {}, batch, At(None, 0))
        return mean.total, mean.weight

    value = jax.jit(jax.value_and_grad(total, has_aux=True))
    expected, slopes = value(params, batch)
    padded = {side: dict(batch[side]) for side in ('tracks', 'detections')}
    for side in padded.values():
        boxes = np.where(side['valid'][..., None], side['boxes'], [7, 1, 90, 3]).astype(np.float32)
        side['boxes'] = boxes
    found, found_slopes = value(params, {**batch, **padded})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found_slopes, slopes)
    assert expected[1] == batch['tracks']['valid'].sum() + (
        batch['detections']['valid'].sum() - (batch['matches'] >= 0).sum()
    )


def track(learnt, form):
    """Runs SORT with the affinity; returns its tracks, and (tracks, detections, affinity) of all frames by numpy."""
    affinity, seen = tasks.learnt_affinity(*learnt), []

    def record(tracks, detections):
        weights = affinity(tracks, detections)
        seen.append((tracks, detections, weights))
        return weights

    tracker = tracking.sort(form=form, slots=12, min_iou=0.05, affinity=record, embedding_size=8)
    run = functools.partial(tracking.run, tracker)
    return (jax.jit(run) if form == 'jax' else run)(draw_detections(0, frames=6))[1], seen


def test_a_learnt_affinity_is_the_same_for_both_kinds_of_arrays(learnt):
    affinity = tasks.learnt_affinity(*learnt)
    for tracks, detections, weights in track(learnt, 'numpy')[1][2:4]:
        assert isinstance(weights, np.ndarray)
        compiled = affinity(*({k: jnp.asarray(v) for k, v in side.items()} for side in (tracks, detections)))
        assert isinstance(compiled, jax.Array)
        np.testing.assert_allclose(compiled, weights, atol=1e-5)
        assert 0 <= weights.min() <= weights.max() <= 1.001
        np.testing.assert_allclose(weights.sum(1)[tracks['valid']] <= 1.001, True)


@pytest.mark.slow
def test_a_tracker_with_a_learnt_affinity_may_be_scanned(learnt):
    tracks, _ = track(learnt, 'numpy')
    compiled, _ = track(learnt, 'jax')
    assert_equal_tracks(table_of(jax.tree.map(np.asarray, compiled)), table_of(tracks))
