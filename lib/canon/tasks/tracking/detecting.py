"""Detections of the frames of a sequence by a trained detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from canon import data
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.source import Info
from canon.data.tracking import TrackSequence, TrackTable, make_table
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
      min_score: detections of lower scores are left out; trackers have thresholds of their own.

    Raises:
      UsageError: the sequence has no pictures.
    """
    if sequence.frames is None:
        raise UsageError(f'{sequence.info.name} has no pictures to detect objects in; give the folder of its frames')
    # Frames are read as they are needed, so that one batch of them is in memory.
    chain = (record_placement(), *transforms)
    batches = data.Once(_Frames(sequence), batch_size, chain, threads=0, memory_limit=0)
    found = list(detect_images(predict, params, mutable, batches.iterate(), min_score))
    frames = np.repeat(np.arange(len(found)), [len(image.scores) for image in found])
    columns = {
        name: np.concatenate([getattr(image, name) for image in found]) for name in ('boxes', 'scores', 'labels')
    }
    return make_table(frames, **columns)


class _Frames:
    """The pictures of a sequence as a source of images."""

    def __init__(self, sequence: TrackSequence):
        self.sequence, self.info = sequence, Info(sequence.info.name, total=sequence.info.length)

    def __len__(self) -> int:
        return self.sequence.info.length

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {'image': self.sequence.read_frame(index)}
