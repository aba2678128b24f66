"""Sequences that are written in the layouts of benchmarks are what their readers read; digits follow their rules."""

import doctest
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from canon.data import tracking
from canon.errors import UsageError
from canon.metrics.tracking import overlap_frames
from canon.metrics.tracking.presets import find_preset
from tests.data.test_tracking_data import check_equal, draw_table

SPLITS = {'mot_challenge': 'train', 'kitti_tracking': 'training', 'ua_detrac': 'train'}
CLASSES = {
    'mot_challenge': ('pedestrian', 'distractor', 'car'),
    'kitti_tracking': ('van', 'pedestrian', 'car'),
    'ua_detrac': ('bus', 'car', 'van'),
}
BENCHMARKS = {
    'mot_challenge': tracking.MOT_CLASSES,
    'kitti_tracking': tracking.KITTI_CLASSES,
    'ua_detrac': tracking.DETRAC_CLASSES,
}
layouts = pytest.mark.parametrize('layout', SPLITS)


def draw_sequence(layout, seed=0, **info) -> Any:
    """A sequence of random boxes at multiples of 1/4, with what its benchmark can state."""
    truth, detections = draw_table(seed), draw_table(seed + 1)
    detections = detections._replace(ids=0 * detections.ids - 1, ignored=detections.ignored & False)
    truth = truth._replace(scores=0 * truth.scores + 1)
    if layout == 'ua_detrac':
        truth = truth._replace(ignored=truth.ignored & False)
    if layout != 'kitti_tracking':  # detections of the other two have no classes
        detections = detections._replace(labels=0 * detections.labels)
    own = tracking.IgnoredRegions(np.array([2, 7], np.int32), np.array([[0.0, 1, 9, 8.5], [1, 2, 3, 4]]))
    shared = tracking.IgnoredRegions(np.array([-1], np.int32), np.array([[0.0, 0, 960, 40.25]]))
    regions = {'kitti_tracking': own, 'ua_detrac': shared}
    about = tracking.SequenceInfo(f'S-{seed}', 12, class_names=CLASSES[layout])._replace(**info)
    return tracking.TrackSequence(about, truth, detections, ignored_regions=regions.get(layout))


@layouts
def test_what_is_written_is_read_again(layout, tmp_path):
    sequences = [draw_sequence(layout, seed) for seed in (0, 10)]
    arguments = tracking.write_sequences(tmp_path, layout, sequences, 'own')
    again: list[Any] = list(tracking.load_sequences(layout, 'own', **arguments))
    assert len(again) == 2
    numbers = np.array([BENCHMARKS[layout].index(name) for name in CLASSES[layout]], np.int32)
    for before, after in zip(sequences, again, strict=True):
        assert after.info[:2] == before.info[:2]
        assert after.info.class_names == BENCHMARKS[layout]
        check_equal(before.truth._replace(labels=numbers[before.truth.labels]), after.truth)
        labels = numbers[before.detections.labels] if layout == 'kitti_tracking' else before.detections.labels
        check_equal(before.detections._replace(labels=labels), after.detections)
        if before.ignored_regions is not None:
            check_equal(before.ignored_regions, after.ignored_regions)
        assert after.frames is None


@layouts
def test_pictures_are_written_by_the_frame(layout, tmp_path):
    """Each frame has a level of its own, which JPEG keeps, and orange stays orange."""
    size = (540, 960) if layout == 'ua_detrac' else (48, 64)
    levels = np.array([[[200, 120, 40]]]) - 3 * np.arange(12)[:, None, None]

    def read(frame):
        return np.broadcast_to(levels[frame], (*size, 3)).astype(np.uint8)

    sequence = draw_sequence(layout, height=size[0], width=size[1], frame_rate=12.5)._replace(frames=read)
    again = tracking.load_sequences(layout, 'own', **tracking.write_sequences(tmp_path, layout, [sequence], 'own'))[0]
    assert isinstance(again.frames, list)
    assert len(again.frames) == 12
    for t in (0, 5, 11):
        np.testing.assert_allclose(again.read_frame(t).astype(int), read(t), atol=3)
    if layout == 'mot_challenge':
        assert again.info[1:5] == (12, 12.5, *size)


@pytest.mark.parametrize(
    ('layout', 'change', 'message'),
    [
        ('mot', {}, "there is no layout 'mot'; there are mot_challenge, kitti_tracking, ua_detrac"),
        ('mot_challenge', dict(class_names=('pedestrian', 'x', 'car')), "S-0: MOTChallenge has no class 'x'; give"),
        ('kitti_tracking', dict(class_names=('bus', 'van', 'car')), "S-0: KITTI has no class 'bus'"),
        ('ua_detrac', dict(height=1080, width=1920), 'S-0 has frames of 1080x1920; those of UA-DETRAC are 540x960'),
    ],
)  # fmt: skip
def test_what_a_benchmark_cannot_state_is_named(layout, change, message, tmp_path):
    sequence = draw_sequence(layout if layout in SPLITS else 'mot_challenge', **change)
    with pytest.raises(UsageError, match=message):
        tracking.write_sequences(tmp_path, layout, [sequence])


def test_flags_and_regions_that_a_benchmark_lacks_are_named(tmp_path):
    kitti, mot, detrac = (draw_sequence(name) for name in ('kitti_tracking', 'mot_challenge', 'ua_detrac'))
    cases: list[tuple[Any, tracking.TrackSequence, str]] = [
        (
            'mot_challenge',
            mot._replace(ignored_regions=kitti.ignored_regions),
            'has no ignored regions; mark the truth',
        ),
        ('ua_detrac', detrac._replace(ignored_regions=kitti.ignored_regions), 'and one is of a single frame'),
        ('ua_detrac', detrac._replace(truth=mot.truth), 'has no flag for ignored truth'),
    ]
    for layout, sequence, message in cases:
        with pytest.raises(UsageError, match=message):
            tracking.write_sequences(tmp_path, layout, [sequence])
    with pytest.raises(UsageError, match='no sequences to write'):
        tracking.write_sequences(tmp_path, 'ua_detrac', [])


def load_digits(layout: Any, **arguments: Any) -> list[Any]:
    return list(tracking.load_sequences('digit_benchmark', layout=layout, split=SPLITS[layout], **arguments))


# --- digits as a benchmark -------------------------------------------------------------------------------------------


@layouts
def test_files_of_digits_are_a_function_of_the_arguments(layout):
    arguments = dict(num_sequences=2, length=8, pictures=False)
    first = load_digits(layout, **arguments)
    import_module('canon.data.tracking.digit_benchmark')._write_files.cache_clear()  # as another process
    again = load_digits(layout, **arguments)
    assert len(first) == (6 if layout == 'mot_challenge' else 2)
    for a, b in zip(first, again, strict=True):
        assert a.info == b.info
        check_equal(a.truth, b.truth)
        check_equal(a.detections, b.detections)
    sliced: Any = tracking.digit_benchmark(layout, f'{SPLITS[layout]}[1:]', 2, 8, pictures=False)
    check_equal(sliced[0].truth, first[1].truth)
    other = load_digits(layout, **arguments, seed=1)[0]
    assert other.truth.boxes.tolist() != first[0].truth.boxes.tolist()


@pytest.mark.parametrize(
    ('layout', 'preset'), [('mot_challenge', 'mot17'), ('kitti_tracking', 'kitti_car'), ('ua_detrac', 'ua_detrac')]
)
def test_the_rules_of_the_benchmark_find_something_to_drop(layout, preset):
    """The rules of each benchmark drop some of the detections and keep most."""
    dropped = kept = hidden = 0
    for sequence in load_digits(layout, num_sequences=2, length=20, pictures=False):
        truth, length = sequence.truth, sequence.info.length
        detections = sequence.detections.select(sequence.detections.labels == 0)  # pedestrians, cars, all
        numbered = detections._replace(ids=np.arange(len(detections.frames), dtype=np.int32))
        overlaps = overlap_frames(truth, numbered, length)
        keep_truth, keep = find_preset(preset)(truth, numbered, overlaps, sequence.ignored_regions)
        dropped, kept, hidden = dropped + (~keep).sum(), kept + keep.sum(), hidden + (~keep_truth).sum()
    assert 0.05 * kept < dropped < kept
    assert layout == 'ua_detrac' or hidden > 0  # UA-DETRAC has no truth within its regions


def test_digits_of_kitti_are_vans_regions_and_cut_by_the_edge():
    sequences = load_digits('kitti_tracking', num_sequences=4, length=20, pictures=False)
    labels = np.concatenate([s.truth.labels for s in sequences])
    assert set(labels.tolist()) == {
        tracking.KITTI_CLASSES.index(name) for name in ('car', 'van', 'pedestrian', 'cyclist')
    }
    cut = np.concatenate([(s.truth.boxes[:, :2] <= 0).any(1) | (s.truth.boxes[:, 2:] >= (240, 160)).any(1)
                          for s in sequences])  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([s.truth.ignored for s in sequences]), cut)
    scores = np.concatenate([s.detections.scores for s in sequences])
    assert (scores < 0).mean() > 0.05
    assert (scores > 0).mean() > 0.5
    assert sum(len(s.ignored_regions.frames) for s in sequences) > 20
    # They are the digits of `digit_sequences`: their boxes are those of its truth, regions included.
    whole: list[Any] = list(tracking.digit_sequences('train', 4, 20))
    for own, digits in zip(sequences, whole, strict=True):
        rows = np.concatenate([own.truth.boxes, own.ignored_regions.boxes])
        assert sorted(rows.tolist()) == sorted(digits.truth.boxes.tolist())


def test_detectors_of_mot_differ_in_quality_upon_the_same_pictures():
    sets = {name: tracking.digit_benchmark('mot_challenge', 'test', 2, 10, detector=name) for name in ('DPM', 'SDP')}
    dpm, sdp = (one[1] for one in sets.values())
    assert dpm.detections is not None
    assert sdp.detections is not None
    assert (dpm.info.name, sdp.info.name) == ('DIGITS-01-DPM', 'DIGITS-01-SDP')
    check_equal(dpm.truth, sdp.truth)
    np.testing.assert_array_equal(dpm.read_frame(7), sdp.read_frame(7))
    assert dpm.detections.scores.min() < 0 <= sdp.detections.scores.min()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(layout='mot'), "layout='mot' must be one of mot_challenge, kitti_tracking, ua_detrac"),
        (dict(layout='kitti_tracking', split='train'), "kitti_tracking has no split 'train'; did you mean 'training'"),
        (dict(layout='ua_detrac', detector='DPM'), "detector='DPM' selects sequences of mot_challenge, not ua_detrac"),
        (dict(layout='mot_challenge', detector='ACF', length=2, pictures=False), "ends with detector='ACF'"),
    ],
)
def test_a_benchmark_of_digits_that_there_is_not_is_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        tracking.digit_benchmark(**arguments)


def test_examples_of_the_benchmark():
    assert doctest.testmod(import_module('canon.data.tracking.digit_benchmark')) == (0, 1)
