"""Sequences of moving digits as the files of a benchmark: readers, rules and writers run without a download."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from canon.data.pipeline import splits
from canon.data.tracking.digit_sequences import digit_sequences
from canon.data.tracking.kitti_tracking import KITTI_CLASSES, kitti_tracking
from canon.data.tracking.layouts import Layout, write_sequences
from canon.data.tracking.mot_challenge import MOT_CLASSES, mot_challenge
from canon.data.tracking.tables import IgnoredRegions, SequenceInfo, TrackSequence, TrackTable
from canon.data.tracking.track_sequences import TrackSequences
from canon.data.tracking.ua_detrac import DETRAC_CLASSES, DETRAC_SIZE, ua_detrac
from canon.errors import UsageError
from canon.named import Count, suggest

_REGION = 'dontcare'  # in place of a class: the digit is a region that is not scored


class _Benchmark(NamedTuple):
    """A rule by which digits become the objects of a benchmark.

    Attributes:
      reader: reads the files.
      rule: returns the truth as the benchmark flags it, and the regions that it does not score.
      splits: the names of the folders of the digits of 'train' and of 'test'.
      name: of sequence i, a format.
      class_names: of the benchmark.
      classes: the class of each digit in the truth.
      detected: the class of each digit in the detections.
      detectors: arguments of `digit_sequences`, which say how good a detector is, by its name. Where there are several,
        each sequence is there once for each of them, as in MOT17.
      raw: the detectors whose scores are log-odds and so of both signs, as those of a support vector machine.
      scene: further arguments of `digit_sequences`.
    """

    reader: Callable[..., TrackSequences]
    rule: Callable[[TrackTable, SequenceInfo], tuple[TrackTable, IgnoredRegions | None]]
    splits: tuple[str, str]
    name: str
    class_names: tuple[str, ...]
    classes: tuple[str, ...]
    detected: tuple[str, ...]
    detectors: Mapping[str, Mapping[str, float]]
    raw: tuple[str, ...] = ()
    scene: Mapping[str, Any] = {}


def _flag_pedestrians(truth: TrackTable, info: SequenceInfo) -> tuple[TrackTable, None]:
    """Flags all other classes as MOT17 does: its flag is 1 for pedestrians alone."""
    return truth._replace(ignored=truth.labels != MOT_CLASSES.index('pedestrian')), None


def _cut_regions(truth: TrackTable, info: SequenceInfo) -> tuple[TrackTable, IgnoredRegions]:
    """Takes the regions out of the truth, and ignores what the edge of the picture cuts, as KITTI does."""
    region, boxes = truth.labels < 0, truth.boxes
    assert info.width is not None
    assert info.height is not None
    cut = (boxes[:, :2] <= 0).any(1) | (boxes[:, 2:] >= (info.width, info.height)).any(1)
    regions = IgnoredRegions(truth.frames[region], boxes[region])
    return truth._replace(ignored=np.asarray(cut)).select(~region), regions


def _mark_top(truth: TrackTable, info: SequenceInfo) -> tuple[TrackTable, IgnoredRegions]:
    """Removes the truth whose middle lies in the upper tenth of the picture, which is a region in all frames."""
    height, width = DETRAC_SIZE
    low = truth.boxes[:, [1, 3]].mean(1) >= height // 10
    return truth.select(low), IgnoredRegions(np.full(1, -1, np.int32), np.array([[0.0, 0, width, height // 10]]))


_BENCHMARKS: dict[str, _Benchmark] = {
    # The detectors see that something stands there, and the benchmark drops results upon the last three classes.
    'mot_challenge': _Benchmark(
        mot_challenge,
        _flag_pedestrians,
        ('train', 'test'),
        'DIGITS-{:02d}-{}',
        MOT_CLASSES,
        ('pedestrian',) * 7 + ('static_person', 'distractor', 'reflection'),
        ('pedestrian',) * 10,
        {'DPM': dict(miss=0.3, clutter=1.0, jitter=0.06), 'FRCNN': {}, 'SDP': dict(miss=0.05, clutter=1.0)},
        raw=('DPM',),
    ),
    # A van is taken for a car as often as not, and digits of less than 25 pixels are too low to count as errors.
    'kitti_tracking': _Benchmark(
        kitti_tracking,
        _cut_regions,
        ('training', 'testing'),
        '{:04d}',
        KITTI_CLASSES,
        ('car',) * 5 + ('van', 'van', 'pedestrian', 'cyclist', _REGION),
        ('car',) * 6 + ('van', 'pedestrian', 'cyclist', 'car'),
        {'SVM': {}},
        raw=('SVM',),
    ),
    # The upper tenth of the picture is a region, whose objects have no truth and are detected all the same.
    'ua_detrac': _Benchmark(
        ua_detrac,
        _mark_top,
        ('train', 'test'),
        'DIGITS_{:05d}',
        DETRAC_CLASSES,
        ('car',) * 5 + ('van', 'van', 'van', 'bus', 'others'),
        ('car',) * 10,
        {'R-CNN': {}},
        scene=dict(height=DETRAC_SIZE[0], width=DETRAC_SIZE[1], sizes=(60, 120), speed=6.0, sway=24.0, shake=2.0),
    ),
}


def digit_benchmark(
    layout: Layout,
    split: str = 'train',
    num_sequences: Count = 4,
    length: Count = 60,
    detector: str | None = None,
    pictures: bool = True,
    seed: int = 0,
) -> TrackSequences:
    """Makes sequences of moving digits, writes them as the files of a benchmark, and reads these by its reader.

    Digits take the classes of the benchmark, some of them those that its rules treat apart: distractors of
    MOTChallenge; vans, DontCare regions and objects cut by the picture's edge of KITTI; ignored regions of UA-DETRAC.
    Unlike those of the benchmarks, the test sequences have truth. The files are a function of the arguments. Each
    process writes its own into a temporary folder, once, and removes it when it ends.

    Args:
      layout: 'mot_challenge' (each sequence three times, with the detections of DPM, FRCNN and SDP), 'kitti_tracking'
        or 'ua_detrac'.
      split: 'train' or 'test'; 'training' or 'testing' of KITTI. May be sliced.
      num_sequences: of the whole split, of each detector.
      length: frames per sequence.
      detector: of MOTChallenge: only the sequences with its detections.
      pictures: whether the frames are files, too; otherwise sequences have no pictures.
      seed: of the sequences.

    Raises:
      UsageError: there is no such layout, split or detector.

    >>> digit_benchmark('mot_challenge', 'train', 2, length=3, detector='FRCNN')[1].info[:3]
    ('DIGITS-01-FRCNN', 3, 25.0)
    """
    if layout not in _BENCHMARKS:
        raise UsageError(f'digit_benchmark: layout={layout!r} must be one of {", ".join(_BENCHMARKS)}')
    benchmark, base = _BENCHMARKS[layout], splits.parse_split(split)[0]
    if base not in benchmark.splits:
        raise UsageError(f'digit_benchmark: {layout} has no split {base!r}{suggest(base, benchmark.splits)}')
    if detector is not None and layout != 'mot_challenge':
        raise UsageError(f'digit_benchmark: detector={detector!r} selects sequences of mot_challenge, not {layout}')
    arguments = dict(_write_files(layout, base, num_sequences, length, pictures, seed))
    if detector is not None:
        arguments['detector'] = detector
    return benchmark.reader(split=split, **arguments)


@cache
def _write_files(
    layout: Layout, split: str, num_sequences: int, length: int, pictures: bool, seed: int
) -> dict[str, str]:
    """Returns the arguments of the reader. Sequences read their pictures late, so the folder stays until the end."""
    folder = tempfile.mkdtemp(prefix=f'canon-{layout}-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sequences = _make_sequences(_BENCHMARKS[layout], split, num_sequences, length, seed)
    return write_sequences(folder, layout, sequences, split, pictures)


def _make_sequences(
    benchmark: _Benchmark, split: str, num_sequences: int, length: int, seed: int
) -> Iterator[TrackSequence]:
    digits = ('train', 'test')[benchmark.splits.index(split)]
    for detector, quality in benchmark.detectors.items():
        arguments: dict[str, Any] = dict(
            num_sequences=num_sequences, length=length, seed=seed, **benchmark.scene, **quality
        )
        for number, sequence in enumerate(digit_sequences(digits, **arguments)):
            name = benchmark.name.format(number, detector)
            yield _rename_classes(sequence, benchmark, name, detector in benchmark.raw)


def _rename_classes(sequence: TrackSequence, benchmark: _Benchmark, name: str, raw: bool) -> TrackSequence:
    """Returns a sequence of digits as one of the benchmark."""
    info = sequence.info._replace(name=name, class_names=benchmark.class_names)
    truth, detections = sequence.truth, sequence.detections
    assert truth is not None
    assert detections is not None
    detections = detections._replace(labels=_number_classes(benchmark.detected, benchmark)[detections.labels])
    if raw:
        share = np.clip(detections.scores, 1e-3, 1 - 1e-3)
        detections = detections._replace(scores=np.log(share / (1 - share)))
    truth = truth._replace(labels=_number_classes(benchmark.classes, benchmark)[truth.labels])
    truth, regions = benchmark.rule(truth, info)
    return TrackSequence(info, truth, detections, sequence.frames, regions)


def _number_classes(names: tuple[str, ...], benchmark: _Benchmark) -> np.ndarray:
    """Returns the label of each digit, int32 [10]; -1 for a region."""
    known = {_REGION: -1} | {name: label for label, name in enumerate(benchmark.class_names)}
    return np.array([known[name] for name in names], np.int32)
