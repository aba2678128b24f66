"""The embedded sequences: a pure function of their numbers, with truth that fits the pictures."""

import doctest
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from canon.data import tracking
from canon.data.detection.annotations import check_most
from canon.errors import UsageError
from canon.metrics.tracking import overlap_frames, score_tracks

PLAIN: dict[str, Any] = dict(num_sequences=4, length=40, noise=0, occluders=0, shake=0.0)


def get_truth(sequence: tracking.TrackSequence) -> tracking.TrackTable:
    assert sequence.truth is not None
    return sequence.truth


def get_detections(sequence: tracking.TrackSequence) -> tracking.TrackTable:
    assert sequence.detections is not None
    return sequence.detections


def check_equal(a, b):
    for name, x in a._asdict().items():
        np.testing.assert_array_equal(x, getattr(b, name), err_msg=name)


def test_a_sequence_is_a_function_of_its_numbers():
    a, b = (
        tracking.digit_sequences('test', 6, 20),
        tracking.load_sequences('digit_sequences', 'test[2:4]', num_sequences=6, length=20),
    )
    assert (len(a), len(b)) == (6, 2)
    late, again = a[3], b[1]
    assert late.info == again.info
    assert late.info.name == 'test-0003'
    check_equal(get_truth(late), get_truth(again))
    check_equal(get_detections(late), get_detections(again))
    # Frames in any order.
    backwards = [again.read_frame(t) for t in (19, 0, 7)]
    for picture, t in zip(backwards, (19, 0, 7), strict=True):
        np.testing.assert_array_equal(picture, late.read_frame(t))
        assert picture.shape == (160, 240, 3)
    assert (backwards[0] != backwards[1]).mean() > 0.5
    others = [tracking.digit_sequences('train', 6, 20)[3], a[2], tracking.digit_sequences('test', 6, 20, seed=1)[3]]
    for other in others:
        assert (other.read_frame(0) != late.read_frame(0)).mean() > 0.5
    with pytest.raises(IndexError):
        late.read_frame(20)


@pytest.mark.parametrize('occluders', [0, 1])
def test_boxes_bound_the_digits(occluders):
    """Where a picture differs from that of the scene without digits is within the boxes, and fills those that show."""
    settings: dict[str, Any] = PLAIN | dict(occluders=occluders, shake=2.0)
    empty = list(tracking.digit_sequences('train', **settings, objects=(0, 0)))
    for sequence, ground in zip(tracking.digit_sequences('train', **settings, min_visible=0), empty, strict=True):
        outside, bounded = [], 0
        for t in range(0, 40, 3):
            differs = (sequence.read_frame(t) != ground.read_frame(t)).any(-1)
            inside = np.zeros_like(differs)
            boxes = get_truth(sequence).boxes[get_truth(sequence).frames == t].astype(int)
            for x0, y0, x1, y1 in boxes:
                inside[y0:y1, x0:x1] = True
            outside.append((differs & ~inside).sum())
            within = (boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < [240, 160]).all(1)
            for i in np.flatnonzero(within if not occluders else within & False):
                x0, y0, x1, y1 = boxes[i]
                if not _touches(boxes[i], np.delete(boxes, i, 0)):
                    shown = differs[y0:y1, x0:x1]
                    assert all(shown[edge].any() for edge in (0, -1, np.s_[:, 0], np.s_[:, -1]))
                    bounded += 1
        assert not sum(outside)
        assert occluders or bounded > 5


def _touches(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return (low <= high).all(1).any()


def test_objects_hide_reappear_cross_and_keep_their_ids():
    gaps = crossings = late = 0
    for sequence in tracking.digit_sequences('train[:3]'):
        truth = get_truth(sequence)
        for number in np.unique(truth.ids):
            rows = truth.ids == number
            gaps += (np.diff(truth.frames[rows]) > 1).sum()
            late += truth.frames[rows][0] > 5
            assert len(np.unique(truth.labels[rows])) == 1
            middles = truth.boxes[rows].reshape(-1, 2, 2).mean(1)
            steps = np.abs(np.diff(middles, axis=0)).max(1) / np.diff(truth.frames[rows])
            assert steps.max(initial=0) < 12, 'nothing jumps'
        assert (truth.boxes >= 0).all()
        assert (truth.boxes <= [240, 160, 240, 160]).all()
        overlaps = overlap_frames(truth, truth, sequence.info.length)
        near = overlaps.pair_ids(np.flatnonzero((overlaps.iou > 0.2) & (overlaps.truth < overlaps.result)))
        crossings += len(np.unique(near))
        assert score_tracks(truth, truth, sequence.info.length).clear['MOTA'] == 1
    assert gaps >= 6
    assert crossings >= 3
    assert late >= 3


def test_the_quality_of_detections_is_adjusted():
    def read(**quality):
        return list(tracking.digit_sequences('train[:4]', **PLAIN, **quality))

    def list_rows(table):
        return {(int(t), *box) for t, box in zip(table.frames, table.boxes.tolist(), strict=True)}

    perfect = read(miss=0, clutter=0, jitter=0, min_visible=0.1)
    for sequence, clear in zip(perfect, read(min_visible=0.7), strict=True):
        assert set(get_detections(sequence).ids.tolist()) == {-1}
        assert list_rows(get_truth(clear)) <= list_rows(get_detections(sequence)) <= list_rows(get_truth(sequence))
        assert get_detections(sequence).scores.min() < 0.5 < get_detections(sequence).scores.max()
    counts = [sum(len(get_detections(s).frames) for s in read(miss=x, clutter=0)) for x in (0, 0.3, 0.6, 1)]
    np.testing.assert_allclose(np.array(counts) / counts[0], [1, 0.7, 0.4, 0], atol=0.05)
    # Fewer detections, but the same ones; more clutter, and the rest stays in place.
    few, many, cluttered = (get_detections(read(miss=m, clutter=c)[0]) for m, c in ((0.6, 0), (0.3, 0), (0.3, 2)))
    rows = [list_rows(table) for table in (few, many, cluttered)]
    assert rows[0] < rows[1] < rows[2]
    false = sum(len(get_detections(s).frames) for s in read(clutter=2, miss=1)) / (4 * 40)
    assert false == pytest.approx(2, abs=0.3)
    moved = read(miss=0, clutter=0, jitter=0.1, min_visible=0.1)
    errors = [
        (get_detections(a).boxes - get_detections(b).boxes)[:, 0] / np.diff(get_detections(b).boxes[:, ::2])[:, 0]
        for a, b in zip(moved, perfect, strict=True)
    ]
    assert np.concatenate(errors).std() == pytest.approx(0.1, rel=0.25)


def test_bad_settings_are_named():
    cases: list[tuple[dict[str, Any], str]] = [
        (dict(split='val'), "no split 'val'; there are 'train' and 'test'"),
        (dict(split='test[64:]'), 'has no sequences'),
        (dict(sizes=(20, 100)), r'8 <= sizes \(20, 100\) <= 80, half of the picture'),
        (dict(objects=(5, 2)), r'objects=\(5, 2\) must ascend'),
        (dict(noise=-1), 'noise=-1'),
    ]
    for arguments, message in cases:
        with pytest.raises(UsageError, match=message):
            tracking.digit_sequences(**arguments)
    alone = tracking.digit_sequences('train', 1, length=1, objects=(0, 0), clutter=0)[0]
    assert not len(get_truth(alone).frames)
    assert not len(get_detections(alone).frames)
    assert alone.read_frame(0).std() > 0


@pytest.mark.parametrize('module', ['digit_sequences', 'sequence_frames'])
def test_docstring(module):
    results = doctest.testmod(import_module(f'canon.data.tracking.{module}'))
    assert results.attempted
    assert not results.failed


def test_frames_for_detectors_are_those_of_the_sequences_in_any_order():
    arguments = dict(num_sequences=3, length=7)
    frames, part = (
        tracking.digit_frames('test', every=3, **arguments),
        tracking.digit_frames('test[1:2]', every=3, **arguments),
    )
    assert frames.names == [f'test-000{i}/{frame}' for i in range(3) for frame in (0, 3, 6)]
    sequence = tracking.digit_sequences('test', **arguments)[1]
    for index in (2, 0, 1):
        example, frame = part[index], 3 * index
        rows = sequence.truth.frames == frame
        np.testing.assert_array_equal(example['image'], sequence.read_frame(frame))
        np.testing.assert_array_equal(example['boxes'], sequence.truth.boxes[rows])
        assert example['labels'].tolist() == sequence.truth.labels[rows].tolist()
        np.testing.assert_array_equal(example['image'], frames[3 + index]['image'])
        assert part.count_per_image()[index] == rows.sum() > 0
    other = tracking.digit_frames('test[1:2]', every=3, seed=1, **arguments)
    assert (other[0]['image'] != part[0]['image']).any()


def test_a_frame_with_more_objects_than_batches_hold_is_named():
    with pytest.raises(UsageError, match=r'data.most=3, but test-0000/\d+ of SequenceFrames.* has \d+ objects'):
        check_most(tracking.digit_frames('test[:1]', length=3), 3)
