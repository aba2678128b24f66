"""Synthetic sequences of moving digits with truth and detections: trackers run and are compared without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from canon.data.detection.digit_scenes import CLASS_NAMES, draw_ink, load_cut_digits, paint_ground
from canon.data.images.colour import LUMA
from canon.data.pipeline import keys, splits
from canon.data.tracking.tables import SequenceInfo, TrackSequence, TrackTable, concatenate_tables, make_table
from canon.data.tracking.track_sequences import TrackSequences
from canon.errors import UsageError
from canon.named import Count, NonNegative, Probability

_SPLITS = ('train', 'test')
_CONTRAST = 60  # levels of luma between a digit and the mean of the ground


def digit_sequences(
    split: str = 'train',
    num_sequences: Count = 64,
    length: Count = 90,
    height: Count = 160,
    width: Count = 240,
    objects: tuple[int, int] = (8, 12),
    sizes: tuple[int, int] = (20, 40),
    speed: NonNegative = 2.0,
    sway: NonNegative = 8.0,
    occluders: int = 2,
    shake: NonNegative = 1.0,
    noise: int = 16,
    min_visible: Probability = 0.25,
    miss: Probability = 0.1,
    clutter: NonNegative = 0.5,
    jitter: NonNegative = 0.04,
    seed: int = 0,
) -> TrackSequences:
    """Makes sequences of handwritten digits that move, cross, hide and reappear over a textured ground.

    All of sequence i is a function of (seed, split, i), and a frame and its detections also of their number, so that
    frames may be read in any order. The sequences of 'test' are made of the digits that the data set `digits` holds
    out.

    Digits move in straight lines that sway, and turn back at the edges of the picture. They keep their size and
    colour; those drawn later hide parts of earlier ones, and upright pillars, which are part of the scene, hide all of
    them. Some digits appear late or leave early. The camera shakes; its motion is in all boxes. The truth has the
    whole box of a digit, clipped to the picture, in the frames in which it shows at least `min_visible` of its pixels:
    a digit that hides has no row, and has its old id when it reappears.

    A detection of an object is missed with probability `miss` at full visibility, and more often the less of it is
    visible; its score is about the visible share. Detections of another quality are of the same pictures and of the
    same random numbers: a larger `miss` removes some detections and leaves the others in place.

    Args:
      split: 'train' or 'test'; may be sliced, 'test[:8]'.
      num_sequences: of the whole split.
      length: frames per sequence, at 25 per second.
      height: of the frames, in pixels.
      width: of the frames, in pixels.
      objects: the least and the greatest number of digits of a sequence.
      sizes: the least and the greatest height of a digit, in pixels.
      speed: mean of the speeds, in pixels per frame.
      sway: amplitude of the sway, in pixels.
      occluders: number of pillars.
      shake: standard deviation of the camera's position, in pixels.
      noise: of the pictures, in levels from 0 to 255.
      min_visible: the share of its pixels that an object of the truth shows.
      miss: probability that a fully visible object is not detected.
      clutter: mean number of detections per frame that are of no object.
      jitter: standard deviation of the edges of detections, as a share of the size of the box.
      seed: of the sequences; it is not the seed of the run, so that all runs share them.

    Raises:
      UsageError: there is no such split, or the digits do not fit into the picture.

    >>> sequence = digit_sequences('test', length=5)[0]
    >>> sequence.info.name, sequence.read_frame(4).shape, sequence.truth.boxes.shape
    ('test-0000', (160, 240, 3), (35, 4))
    """
    base, first, last = splits.parse_split(split)
    if base not in _SPLITS:
        raise UsageError(f"digit_sequences has no split {base!r}; there are 'train' and 'test', which may be sliced")
    largest = min(height, width) // 2
    if not 8 <= sizes[0] <= sizes[1] <= largest:
        raise UsageError(f'digit_sequences: 8 <= sizes {tuple(sizes)} <= {largest}, half of the picture, must hold')
    if not 0 <= objects[0] <= objects[1] or min(occluders, noise, seed) < 0:
        raise UsageError(
            f'digit_sequences: objects={tuple(objects)} must ascend, and objects, occluders={occluders}, '
            f'noise={noise} and seed={seed} must not be negative'
        )
    ids = range(num_sequences)[splits.to_slice(first, last, num_sequences)]
    if not ids:
        raise UsageError(f'digit_sequences: {split!r} of num_sequences={num_sequences} has no sequences')
    settings = _Settings(
        *(length, height, width, tuple(objects), tuple(sizes), speed, sway, occluders, shake, noise, min_visible),
        *(miss, clutter, jitter),
    )
    makers = [lambda i=i: _make_sequence(settings, base, (seed, _SPLITS.index(base), i)) for i in ids]
    return TrackSequences('digit_sequences', split, makers)


class _Settings(NamedTuple):
    """Arguments of `digit_sequences`."""

    length: int
    height: int
    width: int
    objects: tuple[int, ...]
    sizes: tuple[int, ...]
    speed: float
    sway: float
    occluders: int
    shake: float
    noise: int
    min_visible: float
    miss: float
    clutter: float
    jitter: float


def _make_sequence(settings: _Settings, base: str, numbers: tuple[int, int, int]) -> TrackSequence:
    scene = _MovingScene(settings, base == 'test', numbers)
    truth, visible = scene.bound_objects()
    detections = [_detect(settings, numbers, t, truth, visible) for t in range(settings.length)]
    name = f'{base}-{numbers[2]:04d}'
    info = SequenceInfo(name, settings.length, 25.0, settings.height, settings.width, CLASS_NAMES)
    shown = truth.select(visible >= settings.min_visible)
    return TrackSequence(info, shown, concatenate_tables(detections), scene.draw_frame)


class _MovingScene:
    """The digits, pillars and ground of a sequence, and where they are in each frame."""

    def __init__(self, settings: _Settings, held_out: bool, numbers: tuple[int, int, int]):
        rng = keys.stream('digit sequences', *numbers)
        self.settings, self.numbers = settings, numbers
        length, height, width = settings[:3]
        # The camera moves by a filtered random walk of whole pixels, within the margin of the ground.
        shake = np.reshape(cv2.GaussianBlur(rng.normal(0, 1, (length, 2)), (1, 0), 0, sigmaY=2.0), (length, 2))
        shake = shake * settings.shake / max(float(shake.std()), 1e-9)
        self.margin = int(np.ceil(3 * settings.shake)) + 1
        self.camera = np.clip(np.round(shake), -self.margin, self.margin).astype(int) * (settings.shake > 0)
        self.ground = paint_ground(rng, (height + 2 * self.margin, width + 2 * self.margin))
        self.pillars = [_make_pillar(rng, settings, self.ground) for _ in range(settings.occluders)]
        # Last, so that neither the number nor the kind of objects changes the rest of the scene.
        count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
        digits, classes = load_cut_digits(held_out)
        chosen = rng.integers(len(digits), size=count)
        inks = [draw_ink(rng, digits[i], settings.sizes) for i in chosen]
        # Without the margin of the ink, so that a box bounds the digit.
        self.inks = [ink[_span(ink.max(1))][:, _span(ink.max(0))] for ink in inks]
        self.labels = classes[chosen].astype(np.int32)
        self.colours = [_choose_colour(rng, self.ground) for _ in range(count)]
        self.corners = np.round([_move(rng, settings, ink.shape) for ink in self.inks]).astype(int)
        self.corners = self.corners.reshape(count, length, 2) - self.camera  # in the picture
        begins = np.where(rng.random(count) < 0.6, 0, rng.integers(0, length // 2 + 1, count))
        ends = np.where(rng.random(count) < 0.6, length, rng.integers(length // 2, length + 1, count))
        frames = np.arange(length)
        self.alive = (begins[:, None] <= frames) & (frames < ends[:, None])

    def bound_objects(self) -> tuple[TrackTable, np.ndarray]:
        """Returns all objects in all frames, and the share of its pixels that each shows, [N]."""
        height, width = self.settings.height, self.settings.width
        frames, ids, boxes, shares = [], [], [], []
        for t in range(self.settings.length):
            owner = np.zeros((height, width), np.uint8)
            for k in np.flatnonzero(self.alive[:, t]).tolist():
                window, part = self._place(k, t)
                owner[window][self.inks[k][part] > 0.5] = k + 1
            for x0, x1, _ in self._locate_pillars(t):
                owner[:, x0:x1] = 0
            counts = np.bincount(owner.reshape(-1), minlength=len(self.inks) + 1)
            for k in np.flatnonzero(self.alive[:, t]).tolist():
                x, y = self.corners[k, t].tolist()
                h, w = self.inks[k].shape
                box = [max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)]
                if box[0] < box[2] and box[1] < box[3]:
                    frames.append(t)
                    ids.append(k + 1)
                    boxes.append(box)
                    shares.append(counts[k + 1] / max(np.count_nonzero(self.inks[k] > 0.5), 1))
        table = make_table(frames, ids, boxes, labels=self.labels[np.array(ids, int) - 1])
        return table, np.array(shares, np.float64)

    def draw_frame(self, frame: int) -> np.ndarray:
        """Returns the picture of a frame, uint8 [H, W, 3]."""
        if not 0 <= frame < self.settings.length:
            raise IndexError(f'frame {frame} of {self.settings.length}')
        height, width = self.settings.height, self.settings.width
        x, y = (self.margin + self.camera[frame]).tolist()
        picture = self.ground[y : y + height, x : x + width].copy()
        for k in np.flatnonzero(self.alive[:, frame]).tolist():
            window, part = self._place(k, frame)
            opacity = self.inks[k][part][..., None]
            picture[window] = picture[window] + opacity * (self.colours[k] - picture[window])
        for x0, x1, texture in self._locate_pillars(frame):
            picture[:, x0:x1] = texture[y : y + height]
        if self.settings.noise:
            rng = keys.stream('sequence frames', *self.numbers, frame)
            # The ground and the colours end at 232, so that this much does not saturate.
            picture = cv2.add(picture, rng.integers(0, min(self.settings.noise, 22) + 1, picture.shape, np.uint8))
        return picture

    def _place(self, k: int, frame: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Returns the window of an object in the picture, and the part of it that lies within."""
        x, y = self.corners[k, frame].tolist()
        h, w = self.inks[k].shape
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = max(min(x + w, self.settings.width), x0), max(min(y + h, self.settings.height), y0)
        return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]

    def _locate_pillars(self, frame: int) -> list[tuple[int, int, np.ndarray]]:
        """Returns the columns (first, last) of the pillars in the picture, and their texture within them."""
        shift, located = int(self.camera[frame, 0]), []
        for left, texture in self.pillars:
            x0, x1 = max(left - shift, 0), min(left - shift + texture.shape[1], self.settings.width)
            if x0 < x1:
                located.append((x0, x1, texture[:, x0 - left + shift : x1 - left + shift]))
        return located


def _span(profile: np.ndarray) -> slice:
    """Returns the range of a profile above 1/2, and at least one entry."""
    solid = np.flatnonzero(profile > 0.5)
    return slice(int(solid[0]), int(solid[-1]) + 1) if len(solid) else slice(0, 1)


def _move(rng: np.random.Generator, settings: _Settings, shape: Sequence[int]) -> np.ndarray:
    """Draws the path of an object's upper left corner, [T, 2] of (x, y)."""
    room = np.array([settings.width, settings.height]) - 1.0
    extent = np.array(shape[::-1], np.float64)
    frames = np.arange(settings.length)[:, None]
    angle, speed = rng.uniform(0, 2 * np.pi), settings.speed * rng.uniform(0.3, 1.7)
    velocity = speed * np.array([np.cos(angle), 0.6 * np.sin(angle)])  # pictures are wider than high
    period, phase = rng.uniform(40, 120, 2), rng.uniform(0, 2 * np.pi, 2)
    sway = settings.sway * rng.uniform(0, 1, 2) * np.sin(2 * np.pi * frames / period + phase)
    centre = rng.uniform(0, room, 2) + velocity * frames + sway
    # Mirrored at the edges: the centre stays in the picture, and an object may leave it by a half.
    centre = room - np.abs(centre % (2 * room) - room)
    return centre - extent / 2


def _make_pillar(rng: np.random.Generator, settings: _Settings, ground: np.ndarray) -> tuple[int, np.ndarray]:
    """Draws a pillar: its left edge, and its texture uint8 [H + 2 margin, w, 3]."""
    width = int(rng.integers(settings.sizes[0] // 2, settings.sizes[1] + 1))
    left = int(rng.integers(0, max(settings.width - width, 0) + 1))
    return left, paint_ground(rng, (len(ground), width))


def _choose_colour(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Draws a colour of enough contrast to the mean of the ground, float32 [3]."""
    mean = float(np.dot(cv2.mean(ground)[:3], LUMA))
    for _ in range(16):
        colour = rng.integers(0, 233, 3).astype(np.float32)
        if abs(float(colour @ LUMA) - mean) >= _CONTRAST:
            return colour
    return np.full(3, 0 if mean > 116 else 232, np.float32)


def _detect(
    settings: _Settings, numbers: tuple[int, int, int], frame: int, truth: TrackTable, visible: np.ndarray
) -> TrackTable:
    """Draws the detections of one frame."""
    rng = keys.stream('sequence detections', *numbers, frame)
    rows = slice(*np.searchsorted(truth.frames, (frame, frame + 1)))
    boxes, share = truth.boxes[rows], visible[rows]
    # One row of numbers per object, whether it is detected or not, so that quality changes no other detection.
    draws = rng.random(len(share))
    normal = rng.normal(size=(len(share), 5))
    shown = (share >= min(settings.min_visible, 0.1)) & (draws < (1 - settings.miss) * np.minimum(1, 1.5 * share))
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    limits = np.array([settings.width, settings.height] * 2)
    moved = np.clip(boxes + settings.jitter * sizes * normal[:, :4], 0, limits)
    moved[:, 2:] = np.maximum(moved[:, 2:], np.minimum(moved[:, :2] + 1, limits[:2]))
    scores = np.clip(0.95 * share + 0.05 * normal[:, 4], 0.05, 1)
    labels = truth.labels[rows]
    # A fixed number of candidates for clutter: a larger mean adds to those of a smaller one.
    most = 32
    candidates = rng.random((most, 7))
    false = candidates[:, 0] < settings.clutter / most
    extent = settings.sizes[0] + candidates[false, 1:3] * (settings.sizes[1] - settings.sizes[0])
    low = candidates[false, 3:5] * np.maximum(limits[:2] - extent, 1)
    wrong = np.concatenate([low, np.minimum(low + extent, limits[:2])], 1)
    return make_table(
        np.full(int(shown.sum() + false.sum()), frame),
        boxes=np.concatenate([moved[shown], wrong]),
        scores=np.concatenate([scores[shown], 0.05 + 0.6 * candidates[false, 5]]),
        labels=np.concatenate([labels[shown], (10 * candidates[false, 6]).astype(np.int32)]),
    )
