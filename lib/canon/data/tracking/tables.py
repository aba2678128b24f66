"""Tables of boxes with identities, sequences, and frames padded to a fixed number of slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from canon.data.images import image_files
from canon.errors import UsageError

DETECTION = -1  # the id of a box that has no identity


class TrackTable(NamedTuple):
    """Boxes over the frames of one sequence: the truth, the detections or the result of a tracker.

    Rows are sorted by frame. A frame without rows is one without objects.

    Attributes:
      frames: int32 [N], counted from 0.
      ids: int32 [N], unique within a frame; -1 for a detection, which has no identity.
      boxes: float64 [N, 4] of [x0, y0, x1, y1] in pixels at pixel edges.
      scores: float64 [N]; 1 for truth.
      labels: int32 [N], index into the names of the classes.
      ignored: bool [N], truth that is not scored: of flag 0 in MOTChallenge, occluded or truncated too far in KITTI.
        Whether results upon it are dropped is a rule of the benchmark, see `canon.metrics.tracking`.
    """

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    def select(self, rows: np.ndarray | slice) -> TrackTable:
        """Returns the table of some rows: a mask, ascending indices or a slice."""
        return TrackTable(*(column[rows] for column in self))


class IgnoredRegions(NamedTuple):
    """Areas in which a benchmark does not score: those of UA-DETRAC, DontCare of KITTI.

    Attributes:
      frames: int32 [R], the frame of each region; -1 for all frames.
      boxes: float64 [R, 4].
    """

    frames: np.ndarray
    boxes: np.ndarray


class SequenceInfo(NamedTuple):
    """Facts about a sequence, without its boxes.

    Attributes:
      name: of the sequence, and of its file of results.
      length: number of frames.
      frame_rate: frames per second; None if it is not known.
      height: of the frames in pixels; None if it is not known.
      width: of the frames in pixels; None if it is not known.
      class_names: the names that `TrackTable.labels` counts.
    """

    name: str
    length: int
    frame_rate: float | None = None
    height: int | None = None
    width: int | None = None
    class_names: tuple[str, ...] = ('object',)


class TrackSequence(NamedTuple):
    """One sequence of a data set.

    Attributes:
      info: its name, length and size.
      truth: None if it is not public.
      detections: None if there are none.
      frames: paths of the image files by frame, or a function of the frame to uint8 [H, W, 3]; None without images.
        `read_frame` reads either.
      ignored_regions: None if there are none.
    """

    info: SequenceInfo
    truth: TrackTable | None = None
    detections: TrackTable | None = None
    frames: Sequence[Path] | Callable[[int], np.ndarray] | None = None
    ignored_regions: IgnoredRegions | None = None

    def read_frame(self, index: int) -> np.ndarray:
        """Returns the picture of a frame, uint8 [H, W, 3]. Raises UsageError if the sequence has no pictures."""
        if self.frames is None:
            raise UsageError(f'the sequence {self.info.name} has no pictures; give the folder of its frames')
        if isinstance(self.frames, Sequence):
            return image_files.read_image(self.frames[index])
        return self.frames(index)


def make_table(
    frames: Any,
    ids: Any = None,
    boxes: Any = (),
    scores: Any = None,
    labels: Any = None,
    ignored: Any = None,
) -> TrackTable:
    """Makes a table of columns in any order of frames; rows of one frame keep their order.

    Args:
      frames: [N], counted from 0.
      ids: [N]; -1, the id of detections, if None.
      boxes: [N, 4] of [x0, y0, x1, y1].
      scores: [N]; 1 if None.
      labels: [N]; 0 if None.
      ignored: [N]; False if None.

    Raises:
      UsageError: the columns have different lengths.

    >>> make_table([1, 0], [7, 7], [[0, 0, 4, 4], [1, 0, 5, 4]]).frames.tolist()
    [0, 1]
    """
    frames = np.asarray(frames, np.int32).reshape(-1)
    count = len(frames)
    columns = TrackTable(
        frames,
        np.full(count, DETECTION, np.int32) if ids is None else np.asarray(ids, np.int32).reshape(-1),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(-1),
        np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32).reshape(-1),
        np.zeros(count, bool) if ignored is None else np.asarray(ignored, bool).reshape(-1),
    )
    lengths = {name: len(column) for name, column in columns._asdict().items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f'make_table: columns of different lengths: {lengths}')
    # Most files are in order already.
    return columns if (np.diff(frames) >= 0).all() else columns.select(np.argsort(frames, kind='stable'))


def concatenate_tables(tables: Sequence[TrackTable]) -> TrackTable:
    """Joins tables of the same sequence, which may share frames."""
    if not tables:
        return make_table([])
    return make_table(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))


def count_rows(table: TrackTable, length: int) -> np.ndarray:
    """Counts the rows of each frame, int [T]."""
    return np.bincount(table.frames, minlength=length)


def pad_frames(
    table: TrackTable, length: int, slots: int | None = None, overflow: Literal['error', 'count'] = 'error'
) -> dict[str, np.ndarray]:
    """Arranges the rows of a table by frame in a fixed number of slots, as trackers of static shapes read them.

    Args:
      table: of detections, truth or results.
      length: number of frames T.
      slots: number of slots D per frame; None takes the most that a frame needs, at least 1.
      overflow: what happens to a frame of more than D rows. 'error' raises; 'count' keeps the D of the highest scores,
        in the order of the table, and adds `dropped` int32 [T] to the result.

    Returns:
      `boxes` float32 [T, D, 4], `scores` float32 [T, D], `labels` int32 [T, D], `ids` int32 [T, D] and `valid` bool
      [T, D]; empty slots are 0, of id -1, and last.

    Raises:
      UsageError: a row lies outside of the frames, or a frame has more rows than slots.

    >>> padded = pad_frames(make_table([0, 2, 2], boxes=[[0, 0, 4, 4], [1, 0, 5, 4], [8, 8, 9, 9]]), 3)
    >>> padded['valid'].tolist()
    [[True, False], [False, False], [True, True]]
    """
    if overflow not in ('error', 'count'):
        raise UsageError(f"pad_frames: overflow={overflow!r} must be 'error' or 'count'")
    if len(table.frames) and not 0 <= table.frames[0] <= table.frames[-1] < length:
        outside = int(table.frames[0] if table.frames[0] < 0 else table.frames[-1])
        raise UsageError(f'pad_frames: a row is of frame {outside}, and the frames are 0 to {length - 1}')
    counts = count_rows(table, length)
    needed = int(counts.max(initial=0))
    slots = max(needed, 1) if slots is None else slots
    if slots < 1:
        raise UsageError(f'pad_frames: slots={slots} must be at least 1')
    dropped = np.maximum(counts - slots, 0)
    if dropped.any():
        if overflow == 'error':
            frame = int(counts.argmax())
            raise UsageError(
                f'pad_frames: frame {frame} has {needed} rows and there are {slots} slots; raise slots to {needed}, '
                "or set overflow='count' to keep those of the highest scores"
            )
        by_score = np.lexsort((-table.scores, table.frames))
        rank = np.empty_like(by_score)
        rank[by_score] = np.arange(len(by_score)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = table.select(rank < slots)
        counts = counts - dropped
    slot = np.arange(len(table.frames)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = table.frames, slot
    padded = {
        'boxes': np.zeros((length, slots, 4), np.float32),
        'scores': np.zeros((length, slots), np.float32),
        'labels': np.zeros((length, slots), np.int32),
        'ids': np.full((length, slots), DETECTION, np.int32),
        'valid': np.zeros((length, slots), bool),
    }
    padded['valid'][place] = True
    for name in ('boxes', 'scores', 'labels', 'ids'):
        padded[name][place] = getattr(table, name)
    if overflow == 'count':
        padded['dropped'] = dropped.astype(np.int32)
    return padded


def flatten_frames(padded: Mapping[str, Any]) -> TrackTable:
    """Makes a table of padded frames, the inverse of `pad_frames`: of a tracker's output, or of detections.

    Args:
      padded: `boxes` [T, D, 4] and `valid` [T, D]; `ids`, `scores` and `labels` [T, D] if they are there.
    """
    valid = np.asarray(padded['valid'], bool)
    frames = np.broadcast_to(np.arange(len(valid))[:, None], valid.shape)[valid]
    columns = {name: np.asarray(padded[name])[valid] for name in ('ids', 'scores', 'labels') if name in padded}
    return make_table(frames, boxes=np.asarray(padded['boxes'])[valid], **columns)
