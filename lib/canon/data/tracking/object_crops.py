"""Crops of the objects of sequences: examples of identities for training, and the boxes of a frame for a tracker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canon.data.images import geometry
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.data.pipeline.source import Example, Info
from canon.data.tracking.tables import TrackSequence
from canon.errors import UsageError
from canon.named import Count, NonNegative

_MARGIN = 0.5  # of a patch around its box, in shares of the box: room for jitter and context


@dataclass(frozen=True)
class CropSettings:
    """Settings of the crops of boxes.

    Attributes:
      height: of a crop in pixels.
      width: of a crop in pixels; the aspect of the box is not kept.
      context: by how much a box is enlarged on each side, as a share of its size.
      jitter: standard deviation of the edges of boxes in training and in retrieval, as a share of their size: detectors
        are not exact.
    """

    height: Count = 32
    width: Count = 32
    context: NonNegative = 0.1
    jitter: NonNegative = 0.04


def crop_box(image: np.ndarray, box: Sequence[float] | np.ndarray, settings: CropSettings) -> np.ndarray:
    """Cuts a box [x0, y0, x1, y1] with its context out of a picture, resized to [height, width, C] with antialiasing.

    What lies outside of the picture is left out: the rest is stretched.
    """
    height, width = image.shape[:2]
    box = np.asarray(box, np.float64)
    margin = settings.context * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = np.clip(box + margin, 0, [width, height, width, height])
    # At least one pixel, within the picture: a box may lie outside of it, or have no area.
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    left, top = int(x0), int(y0)
    part = image[top : int(np.ceil(y1)), left : int(np.ceil(x1))]  # Pillow would copy the whole picture
    inner = (x0 - left, y0 - top, x1 - left, y1 - top)
    return geometry.resample(part, (settings.height, settings.width), 'bilinear', inner)


def crop_object(settings: CropSettings) -> Transform:
    """Makes the transform that replaces the patch of an example of `ObjectCrops` by its jittered crop."""

    def apply(example: Example, key: Any) -> Example:
        example = dict(example)
        box = example.pop('box').astype(np.float64)
        size = np.tile(box[2:] - box[:2], 2)
        moved = box + settings.jitter * size * borrowed_rng(key).normal(size=4)
        moved = np.where(moved[2:] > moved[:2], moved.reshape(2, 2), box.reshape(2, 2)).reshape(4)
        return {**example, 'image': crop_box(example['image'], moved, settings)}

    return Transform(apply, random=settings.jitter > 0)


class ObjectCrops:
    """The objects of the truth of sequences: a source of one example per box.

    An example has 'image', the patch of the frame around the box, uint8 [h, w, 3]; 'box', float32 [4], the box in it;
    'label', int64, the identity, numbered over all sequences; 'sequence', int32, and 'frame', int32. `crop_object`
    makes crops of one size. Frames are read when they are first needed, each once as long as the memory lasts.

    Attributes:
      columns: 'label', 'sequence' and 'frame' of all examples, [n].
      num_identities: number of different labels.
    """

    in_memory = True  # patches are kept here, by frame

    def __init__(
        self,
        sequences: Iterable[TrackSequence],
        every: int = 1,
        min_size: float = 8.0,
        memory_limit: float = 1 << 30,
        info: Info = Info(),
    ):
        """
        Args:
          sequences: with truth and pictures; all truth is read here, but no picture.
          every: takes every n-th frame of each sequence.
          min_size: boxes with a shorter side, in pixels, are left out, as are ignored ones.
          memory_limit: bytes of patches that are kept.
          info: of the data set.

        Raises:
          UsageError: a sequence has no truth or no pictures, or no boxes are left.
        """
        self.sequences, self.info, self._limit = list(sequences), info, memory_limit
        self._patches: dict[tuple[int, int], dict[int, Example]] = {}
        self._bytes = 0
        tables = [_select_boxes(sequence, every, min_size) for sequence in self.sequences]
        counts = [len(table.frames) for table in tables]
        if not sum(counts):
            raise UsageError(f'no boxes of at least {min_size:g} pixels in {len(tables)} sequences with every={every}')
        self.boxes = np.concatenate([table.boxes for table in tables])
        sequence_ids = np.repeat(np.arange(len(tables), dtype=np.int32), counts)
        pairs = np.stack([sequence_ids, np.concatenate([table.ids for table in tables])], 1)
        identities, labels = np.unique(pairs, axis=0, return_inverse=True)
        self.num_identities = len(identities)
        self.columns = {
            'label': labels.reshape(-1).astype(np.int64),
            'sequence': sequence_ids,
            'frame': np.concatenate([table.frames for table in tables]),
        }

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> Example:
        frame = int(self.columns['sequence'][index]), int(self.columns['frame'][index])
        patches = self._patches.get(frame)
        if patches is None:
            patches = self._read_frame(*frame)
            size = sum(patch['image'].nbytes for patch in patches.values())
            if self._bytes + size <= self._limit:
                self._patches[frame] = patches
                self._bytes += size
        return patches[index]

    def __repr__(self) -> str:
        return f'ObjectCrops({len(self)} boxes of {self.num_identities} identities in {len(self.sequences)} sequences)'

    def labels(self) -> np.ndarray:
        """Returns the identity of each example, int64 [n]."""
        return self.columns['label']

    def _read_frame(self, sequence: int, frame: int) -> dict[int, Example]:
        """Returns the examples of a frame by their index."""
        picture = self.sequences[sequence].read_frame(frame)
        height, width = picture.shape[:2]
        examples = {}
        within = (self.columns['sequence'] == sequence) & (self.columns['frame'] == frame)
        for index in np.flatnonzero(within).tolist():
            box = self.boxes[index]
            margin = _MARGIN * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
            x0, y0, x1, y1 = np.clip(np.round(box + margin), 0, [width, height, width, height]).astype(int).tolist()
            examples[index] = {
                'image': picture[y0:y1, x0:x1].copy(),  # a view would keep the whole picture
                'box': (box - [x0, y0, x0, y0]).astype(np.float32),
                **{name: values[index] for name, values in self.columns.items()},
            }
        return examples


def _select_boxes(sequence: TrackSequence, every: int, min_size: float) -> Any:
    name = sequence.info.name
    table = sequence.truth
    if table is None or sequence.frames is None:
        missing = 'truth' if table is None else 'pictures'
        raise UsageError(f'the sequence {name} has no {missing}; identities are learnt from sequences with both')
    low, high = np.maximum(table.boxes[:, :2], 0), table.boxes[:, 2:]
    if sequence.info.width and sequence.info.height:
        high = np.minimum(high, [sequence.info.width, sequence.info.height])
    # A box that leaves the picture counts by what is inside.
    large = (high - low).min(1, initial=np.inf) >= min_size
    return table.select(large & ~table.ignored & (table.frames % every == 0))
