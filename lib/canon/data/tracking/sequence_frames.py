"""The frames of sequences as images with boxes, from which detectors learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.tracking.digit_sequences import digit_sequences
from canon.data.tracking.tables import TrackSequence, TrackTable
from canon.errors import UsageError
from canon.named import Count, takes_arguments_of


@takes_arguments_of(digit_sequences)
def digit_frames(split: str = 'train', every: Count = 1, **arguments: Any) -> SequenceFrames:
    """Makes the frames of `digit_sequences` with the boxes of their truth: detection on the pictures that are tracked.

    An example is a function of (seed, split, sequence, frame): neither the order of reading nor a slice changes it.

    Args:
      split: 'train' or 'test'; a slice selects sequences, not frames, so that no sequence is on both sides of it.
      every: takes every n-th frame of each sequence; frames that follow each other hardly differ.
      **arguments: see `digit_sequences`.

    >>> frames = digit_frames('test[:2]', every=4, length=6)
    >>> len(frames), frames[3]['image'].shape, frames[3]['boxes'].shape
    (4, (160, 240, 3), (7, 4))
    """
    # What a slice counts is sequences, and so is the total with which two slices are compared.
    total = len(digit_sequences(splits.parse_split(split)[0], **arguments))
    return SequenceFrames(list(digit_sequences(split, **arguments)), every, Info('digit_frames', split, total=total))


class SequenceFrames:
    """A source of one example per frame of sequences with truth and pictures, in their order.

    An example has 'image', uint8 [H, W, 3]; 'image_id', its number; 'original_size', int32 [2]; and the objects that
    the truth has in the frame: 'boxes', float32 [K, 4], 'labels', int32 [K], 'difficult', bool [K], those that the
    benchmark does not score, and 'crowd', false.

    Attributes:
      names: 'SEQUENCE/FRAME' of each example; frames count from 0.
    """

    def __init__(self, sequences: Sequence[TrackSequence], every: int = 1, info: Info = Info()):
        """
        Args:
          sequences: with truth and pictures; a picture is read when its example is.
          every: takes every n-th frame of each sequence.
          info: of the data set; the class names are those of the sequences.

        Raises:
          UsageError: a sequence has no truth or no pictures.
        """
        for sequence in sequences:
            if sequence.truth is None or sequence.frames is None:
                missing = 'truth' if sequence.truth is None else 'pictures'
                raise UsageError(f'the sequence {sequence.info.name} has no {missing}; a detector learns from both')
        self.sequences = list(sequences)
        frames = [range(0, sequence.info.length, every) for sequence in self.sequences]
        self._places = [(i, frame) for i, own in enumerate(frames) for frame in own]
        self.names = [f'{self.sequences[i].info.name}/{frame}' for i, frame in self._places]
        classes = self.sequences[0].info.class_names
        self.info = info._replace(num_classes=len(classes), class_names=classes)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        number, frame = self._places[index]
        sequence, objects = self.sequences[number], self._select_objects(index)
        image = sequence.read_frame(frame)
        return {
            'image': image,
            'image_id': np.int64(index % len(self)),
            'original_size': np.array(image.shape[:2], np.int32),
            'boxes': objects.boxes.astype(np.float32),
            'labels': objects.labels,
            'difficult': objects.ignored,
            'crowd': np.zeros(len(objects.labels), bool),
        }

    def __repr__(self) -> str:
        return f'SequenceFrames({len(self)} frames of {len(self.sequences)} sequences)'

    def count_per_image(self) -> np.ndarray:
        """Returns the number of objects of each frame, int [n]."""
        return np.array([len(self._select_objects(i).labels) for i in range(len(self))])

    def _select_objects(self, index: int) -> TrackTable:
        number, frame = self._places[index]
        truth = self.sequences[number].truth
        assert truth is not None
        # Tables are in the order of frames.
        return TrackTable(*(column[slice(*np.searchsorted(truth.frames, (frame, frame + 1)))] for column in truth))
