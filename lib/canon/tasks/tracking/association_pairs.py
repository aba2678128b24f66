"""Tracks of one frame and detections of a later one, with their true matches: examples for a learnt affinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from canon import named
from canon.data import Generated
from canon.data.pipeline import keys
from canon.data.tracking import TrackSequence, TrackTable, pad_frames
from canon.errors import UsageError
from canon.tasks.tracking.embedding import Embedder, add_embeddings
from canon.tracking import affinity, association, kalman

_MIN_IOU = 0.5  # of a detection and the object that it is of, as in the metrics


@dataclass(frozen=True)
class PairSettings:
    """config.data.pairs: how tracks and detections are paired.

    Attributes:
      slots: of tracks and of detections; frames with more are refused.
      max_gap: frames between the last update of the tracks and the detections, at most, in training.
      max_age: tracks that were not seen for more frames are left out.
    """

    slots: named.Count = 32
    max_gap: named.Count = 10
    max_age: named.Count = 30


class FollowedSequence(NamedTuple):
    """A sequence in which a filter has followed every object by its own detections, as a perfect tracker would.

    Attributes:
      detections: padded, [T, D, ...]: `boxes`, `scores`, `valid` and perhaps `embeddings`.
      objects: int [T, D], the object that each detection is of, 0 ... I - 1; -1 for clutter.
      mean: [T, I, 2, 4] and covariance [T, I, 3, 4] of the filter after each frame.
      covariance: of it.
      last_seen: int [T, I], the last frame with a detection, that frame included; -1 before the first one.
      last_slot: int [T, I], the slot of that detection.
    """

    detections: dict[str, np.ndarray]
    objects: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    last_seen: np.ndarray
    last_slot: np.ndarray


def follow_objects(
    sequence: TrackSequence, settings: PairSettings, motion: kalman.MotionModel, embedder: Embedder | None = None
) -> FollowedSequence:
    """Follows every object of the truth by its detections, with a Kalman filter.

    Args:
      sequence: with truth and detections.
      settings: slots.
      motion: of the filter, that of the tracker which will use the affinity.
      embedder: adds embeddings to the detections; None: there are none.

    Raises:
      UsageError: truth or detections are missing, or a frame has more detections than slots.
    """
    truth, table, length = sequence.truth, sequence.detections, sequence.info.length
    if truth is None or table is None:
        missing = 'truth' if truth is None else 'detections'
        raise UsageError(f'the sequence {sequence.info.name} has no {missing}; an affinity is learnt from both')
    detections = pad_frames(table, length, settings.slots)
    detections = {name: detections[name] for name in ('boxes', 'scores', 'valid')}
    if embedder is not None:
        detections = add_embeddings(embedder, sequence, detections)
    objects = name_detections(truth, detections)
    count = int(objects.max(initial=-1)) + 1
    estimate = kalman.initiate(motion, np.tile(np.array([0.0, 0, 1, 1]), (count, 1)))
    seen, slot, history = np.full(count, -1), np.zeros(count, int), []
    for t in range(length):
        present = objects[t][objects[t] >= 0]
        slots = np.flatnonzero(objects[t] >= 0)
        boxes = np.tile(np.array([0.0, 0, 1, 1]), (count, 1))
        boxes[present] = detections['boxes'][t, slots]
        observed = np.zeros(count, bool)
        observed[present] = True
        begun = kalman.initiate(motion, boxes)
        updated = kalman.update(motion, kalman.predict(motion, estimate), boxes, observed)
        new = (observed & (seen < 0))[:, None, None]
        estimate = kalman.TrackEstimate(*(np.where(new, a, b) for a, b in zip(begun, updated, strict=True)))
        seen, slot = np.where(observed, t, seen), slot.copy()
        slot[present] = slots
        history.append((estimate.mean, estimate.covariance, seen, slot))
    return FollowedSequence(detections, objects, *(np.stack(part) for part in zip(*history, strict=True)))


def name_detections(truth: TrackTable, detections: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the object that each detection is of, int [T, D]: the assignment of the largest IoU; -1 for clutter.

    Objects are numbered from 0 in the order of their ids. Ignored boxes of the truth are objects too.
    """
    valid = detections['valid']
    objects = np.full(valid.shape, -1)
    ids = np.unique(truth.ids)
    for t in range(len(valid)):
        rows = truth.frames == t
        iou = affinity.compute_iou(truth.boxes[rows], detections['boxes'][t].astype(np.float64))
        columns = association.assign_max_weight(np.where(valid[t] & (iou >= _MIN_IOU), iou, 0))
        numbers = np.searchsorted(ids, truth.ids[rows])
        objects[t, columns[columns >= 0]] = numbers[columns >= 0]
    return objects


def make_pair(
    followed: FollowedSequence, frame: int, gap: int, settings: PairSettings, motion: kalman.MotionModel
) -> dict[str, Any]:
    """Makes one example: the tracks after frame - gap, predicted for `frame`, and the detections of `frame`.

    Returns:
      'tracks': `boxes` and `observed` float32 [N, 4], `gaps` int32 [N], `valid` bool [N]; 'detections': `boxes` float32
      [N, 4], `scores` float32 [N], `valid` bool [N]; both with `embeddings` float32 [N, E] if there are any; 'matches'
      int32 [N], the detection of each track, -1 if it has none; 'gap' int32. N is the number of slots.

    Raises:
      UsageError: there are more tracks than slots.
    """
    start = frame - gap
    seen = followed.last_seen[start]
    alive = np.flatnonzero((seen >= 0) & (start - seen < settings.max_age))
    if len(alive) > settings.slots:
        raise UsageError(f'{len(alive)} tracks in one frame and data.pairs.slots={settings.slots}; raise the slots')
    estimate = kalman.TrackEstimate(followed.mean[start, alive], followed.covariance[start, alive])
    for _ in range(gap):
        estimate = kalman.predict(motion, estimate)
    source = seen[alive], followed.last_slot[start, alive]
    predicted, observed = kalman.to_boxes(motion, estimate), followed.detections['boxes'][source]
    # A filter of areas may predict none: what is left is where the object was.
    predicted = np.where(np.isfinite(predicted).all(-1, keepdims=True), predicted, observed)
    tracks = {
        'boxes': predicted.astype(np.float32),
        'observed': observed,
        'gaps': (frame - seen[alive]).astype(np.int32),
        'valid': np.ones(len(alive), bool),
    }
    if 'embeddings' in followed.detections:
        tracks['embeddings'] = followed.detections['embeddings'][source]
    same = followed.objects[frame] == alive[:, None]
    matches = np.where(same.any(1), same.argmax(1), -1).astype(np.int32)
    padding = settings.slots - len(alive)
    return {
        'tracks': {name: _pad(values, padding, 0) for name, values in tracks.items()},
        'detections': {name: values[frame] for name, values in followed.detections.items()},
        'matches': _pad(matches, padding, -1),
        'gap': np.int32(gap),
    }


class PairBatches:
    """Batches of examples of `make_pair`, from sequences that are followed when they are first needed."""

    def __init__(
        self,
        sequences: Sequence[TrackSequence],
        batch_size: int,
        settings: PairSettings,
        motion: kalman.MotionModel,
        embedder: Embedder | None = None,
    ):
        """Arguments are those of `follow_objects`; `batch_size` is B.

        Raises:
          UsageError: a sequence is no longer than the largest gap.
        """
        self.sequences, self.batch_size, self.settings, self.motion = sequences, batch_size, settings, motion
        self.embedder, self._followed = embedder, {}

    def follow(self, index: int) -> FollowedSequence:
        """Returns a followed sequence, computed once."""
        if index not in self._followed:
            made = follow_objects(self.sequences[index], self.settings, self.motion, self.embedder)
            if len(made.objects) <= self.settings.max_gap:
                raise UsageError(
                    f'a sequence has {len(made.objects)} frames, too few for data.pairs.max_gap='
                    f'{self.settings.max_gap}; lower it'
                )
            self._followed[index] = made
        return self._followed[index]

    def draw(self, seed: int) -> Generated:
        """Returns endless batches: sequence, gap (1 ... max_gap) and frame of each example are drawn uniformly."""

        def make_batch(step: int) -> dict[str, Any]:
            rng, examples = keys.stream('association pairs', seed, step), []
            for _ in range(self.batch_size):
                followed = self.follow(int(rng.integers(len(self.sequences))))
                gap = int(rng.integers(1, self.settings.max_gap + 1))
                examples.append(self._make(followed, int(rng.integers(gap, len(followed.objects))), gap))
            return _stack(examples, self.batch_size)

        return Generated(make_batch, self.batch_size)

    def list(self, gaps: Sequence[int], every: int) -> Generated:
        """Returns finite batches of every n-th frame of each sequence, once per gap."""
        lengths = [sequence.info.length for sequence in self.sequences]
        places = [
            (index, frame, gap)
            for index, length in enumerate(lengths)
            for gap in gaps
            for frame in range(gap, length, every)
        ]
        if not places:
            raise UsageError(f'gaps={tuple(gaps)} are longer than the {len(lengths)} sequences; lower them')

        def make_batch(number: int) -> dict[str, Any]:
            part = places[number * self.batch_size : (number + 1) * self.batch_size]
            return _stack([self._make(self.follow(i), frame, gap) for i, frame, gap in part], self.batch_size)

        length = -(-len(places) // self.batch_size)
        return Generated(make_batch, self.batch_size, len(places), length)

    def _make(self, followed: FollowedSequence, frame: int, gap: int) -> dict[str, Any]:
        return make_pair(followed, frame, gap, self.settings, self.motion)


def _pad(values: np.ndarray, count: int, fill: int) -> np.ndarray:
    return np.concatenate([values, np.full((count, *values.shape[1:]), fill, values.dtype)])


def _stack(examples: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    """Stacks examples to a batch whose last rows repeat the last example, with a false 'mask', if there are too few."""
    mask = np.arange(batch_size) < len(examples)
    examples = examples + [examples[-1]] * (batch_size - len(examples))

    def stack(values: list[Any]) -> Any:
        return (
            {k: stack([v[k] for v in values]) for k in values[0]} if isinstance(values[0], dict) else np.stack(values)
        )

    return {**stack(examples), 'mask': mask}
