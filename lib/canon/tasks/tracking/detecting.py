"""Detections of the frames of a sequence by a trained detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from canon import data
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.source import Info
from canon.data.tracking import SequenceInfo, TrackSequence, TrackTable, make_table
from canon.data.transforms import record_placement
from canon.errors import UsageError
from canon.tasks.detection import detect_images


def detect_frames(
    predict: Callable,
    params: Any,
    mutable: Any,
    sequence: TrackSequence,
    transforms: Sequence[Transform] = (),
    batch_size: int = 16,
    class_names: Sequence[str] = (),
    min_score: float = 0.05,
) -> TrackTable:
    """Detects the objects of every frame.

    Args:
      predict: as `Task.predict` of a detector.
      params: its first argument.
      mutable: its second.
      sequence: with pictures.
      transforms: which give frames the size that the detector takes; boxes are mapped back to the frames.
      batch_size: frames per call of `predict`.
      class_names: of the detector; its labels become those of the sequence's classes of the same names, and objects of
        other classes are left out. None are given: labels stay as they are.
      min_score: detections of lower scores are left out; trackers have thresholds of their own.

    Raises:
      UsageError: the sequence has no pictures, or no class of the detector.
    """
    if sequence.frames is None:
        raise UsageError(f'{sequence.info.name} has no pictures to detect objects in; give the folder of its frames')
    labels = map_classes(class_names, sequence.info) if class_names else None
    # Frames are read as they are needed, so that one batch of them is in memory.
    chain = (record_placement(), *transforms)
    batches = data.Once(_Frames(sequence), batch_size, chain, threads=0, memory_limit=0)
    found = list(detect_images(predict, params, mutable, batches.iterate(), min_score))
    frames = np.repeat(np.arange(len(found)), [len(image.scores) for image in found])
    columns = {
        name: np.concatenate([getattr(image, name) for image in found]) for name in ('boxes', 'scores', 'labels')
    }
    table = make_table(frames, **columns)
    return table if labels is None else table._replace(labels=labels[table.labels]).select(labels[table.labels] >= 0)


def map_classes(names: Sequence[str], info: SequenceInfo) -> np.ndarray:
    """Returns the label that each class of a detector has in a sequence, int32 [N]; -1 for what the sequence has not.

    Upper and lower case are alike, and a `person` of VOC or COCO is a `pedestrian` where there are no other persons.

    Raises:
      UsageError: no class is in both.
    """
    known = {name.lower(): label for label, name in enumerate(info.class_names)}
    if 'pedestrian' in known:
        known.setdefault('person', known['pedestrian'])
    labels = np.array([known.get(name.lower(), -1) for name in names], np.int32)
    if (labels < 0).all():
        raise UsageError(
            f'the detector has no class of {info.name} ({_list(info.class_names)}), only {_list(names)}; give the run '
            'of another detector'
        )
    return labels


def _list(names: Sequence[str]) -> str:
    return ', '.join(names[:8]) + (', ...' if len(names) > 8 else '')


class _Frames:
    """The pictures of a sequence as a source of images."""

    def __init__(self, sequence: TrackSequence):
        self.sequence, self.info = sequence, Info(sequence.info.name, total=sequence.info.length)

    def __len__(self) -> int:
        return self.sequence.info.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {'image': self.sequence.read_frame(index)}
