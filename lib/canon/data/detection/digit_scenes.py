"""Synthetic scenes of handwritten digits with boxes and label maps: detection and segmentation without a download."""

from __future__ import annotations

from functools import cache
from typing import Literal

import cv2
import numpy as np

from canon.data.images.colour import LUMA
from canon.data.pipeline import keys, splits
from canon.data.pipeline.source import Example, Info
from canon.errors import UsageError
from canon.named import Count, Probability

CLASS_NAMES = tuple('0123456789')
_SPLITS = ('train', 'test')
_ATTEMPTS = 12  # places that are tried for a digit before it is left out
_CONTRAST = 60  # levels of luma between a digit and the ground around it
_LIGHT, _DARKER = 160, 3  # least level of a light digit, and what the ground is divided by then
_MAX_IOU = 0.3  # of two boxes, so that non-maximum suppression at .45 loses no object
_TURNED = (2, 3, 4, 5, 6, 9)  # a turned 0, 1, 7 or 8 is too close to a digit


def digit_scenes(
    split: str = 'train',
    num_examples: Count = 4096,
    target: Literal['detection', 'segmentation', 'instances'] = 'detection',
    height: Count = 128,
    width: Count = 128,
    most: int = 12,
    sizes: tuple[int, int] = (8, 64),
    clutter: int = 6,
    min_visible: Probability = 0.7,
    colours: Literal['any', 'light'] = 'any',
    seed: int = 0,
) -> DigitScenes:
    """Makes scenes of 0 to `most` handwritten digits of scikit-learn's set on a textured, cluttered ground.

    Scene i is a function of (seed, split, i). The scenes of 'test' are made of the 360 digits that the data set
    `digits` holds out, those of 'train' of the 1,437 others, so that no handwritten digit is in both.

    Digits have a random colour, a height that is log-uniform in `sizes`, and a random aspect. They may overlap, and
    those drawn later hide parts of earlier ones. A digit is placed only where every digit keeps `min_visible` of its
    pixels visible and no two boxes, hidden parts included, have an IoU above 0.3; a digit that fits nowhere is left
    out. The box of a digit bounds its visible pixels, as those of Pascal VOC do. The clutter is lines, triangles, discs
    and digits that lie on their side, all below the digits.

    Args:
      split: 'train' or 'test'; may be sliced, 'test[:512]'.
      num_examples: scenes of the whole split.
      target: 'detection' gives the fields `boxes`, `labels`, `difficult` and `crowd` (both false); 'segmentation' gives
        `segmentation`, 0 for the ground and d + 1 for digit d; 'instances' gives all of these and `masks`.
      height: of the images, in pixels.
      width: of the images, in pixels.
      most: the largest number of digits; the numbers 0 to `most` are equally likely.
      sizes: the least and the greatest height of a digit, in pixels.
      clutter: the largest number of distracting shapes.
      min_visible: the share of its pixels that a digit keeps visible at least.
      colours: of the digits: 'any', or 'light' ones on a dark ground, for recipes that learn slowly: a network need not
        find out that colours do not tell digits apart.
      seed: of the scenes; it is not the seed of the run, so that all runs share them.

    Raises:
      UsageError: there is no such split, or the digits do not fit into the image.

    >>> scene = digit_scenes('test', target='instances')[0]
    >>> scene['image'].shape, scene['boxes'].shape, scene['masks'].shape
    ((128, 128, 3), (10, 4), (10, 128, 128))
    """
    return DigitScenes(split, num_examples, target, height, width, most, sizes, clutter, min_visible, colours, seed)


class DigitScenes:
    """The source of `digit_scenes`; its examples have `image`, `image_id`, `original_size` and the target's fields."""

    def __init__(
        self,
        split: str,
        num_examples: int,
        target: str,
        height: int,
        width: int,
        most: int,
        sizes: tuple[int, int],
        clutter: int,
        min_visible: float,
        colours: str,
        seed: int,
    ):
        """Arguments and errors as of `digit_scenes`."""
        base, first, last = splits.parse_split(split)
        if base not in _SPLITS:
            raise UsageError(f"digit_scenes has no split {base!r}; there are 'train' and 'test', which may be sliced")
        # A digit has 8 rows and a margin of one row on each side, see `draw_ink`.
        largest = min(height, width) * 8 // 10
        if not 4 <= sizes[0] <= sizes[1] <= largest:
            raise UsageError(f'digit_scenes: 4 <= sizes {tuple(sizes)} <= {largest}, 80 % of the image, must hold')
        if min(most, clutter, seed) < 0:
            raise UsageError(f'digit_scenes: most={most}, clutter={clutter} and seed={seed} must not be negative')
        if colours not in ('any', 'light'):
            raise UsageError(f"digit_scenes: colours={colours!r} must be 'any' or 'light'")
        self.ids = range(num_examples)[splits.to_slice(first, last, num_examples)]
        if not self.ids:
            raise UsageError(f'digit_scenes: {split!r} of num_examples={num_examples} has no scenes')
        self.base, self.target, self.shape, self.most = base, target, (height, width), most
        self.sizes, self.clutter, self.min_visible, self.seed = tuple(sizes), clutter, min_visible, seed
        self.light = colours == 'light'
        names = ('background', *CLASS_NAMES) if target == 'segmentation' else CLASS_NAMES
        self.info = Info('digit_scenes', split, len(names), names, total=num_examples)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        index = self.ids[index]
        # A generator per scene, so that neither the order of reading nor a slice of the split changes a scene.
        rng = keys.stream('digit scenes', self.seed, _SPLITS.index(self.base), index)
        ground = paint_ground(rng, self.shape)
        scene = _Scene(ground // _DARKER if self.light else ground)
        digits, classes = load_cut_digits(self.base == 'test')
        for _ in range(rng.integers(self.clutter + 1)):
            _paint_clutter(rng, scene.image, digits, classes)
        for _ in range(rng.integers(self.most + 1)):
            chosen = int(rng.integers(len(digits)))
            ink = draw_ink(rng, digits[chosen], self.sizes)
            scene.add(rng, ink, int(classes[chosen]), self.min_visible, self.light)
        # At most 22 levels above the 232 at which all colours end, so no pixel saturates.
        noise = rng.integers(0, int(rng.integers(1, 24)), scene.image.shape, np.uint8)
        example = {
            'image': cv2.add(scene.image, noise),
            'image_id': np.int64(index),
            'original_size': np.array(self.shape, np.int32),
        }
        if self.target != 'detection':
            classes = np.array([0, *(label + 1 for label in scene.labels)], np.uint8)
            example['segmentation'] = classes[scene.owner]
        if self.target != 'segmentation':
            example['boxes'] = scene.bound_objects()
            example['labels'] = np.array(scene.labels, np.int32)
            example['difficult'] = example['crowd'] = np.zeros(len(scene.labels), bool)
        if self.target == 'instances':
            example['masks'] = scene.owner == np.arange(1, len(scene.labels) + 1, dtype=np.uint8)[:, None, None]
        return example

    def __repr__(self) -> str:
        return f'DigitScenes({self.info.split}, {len(self)} scenes)'


class _Scene:
    """An image uint8 [H, W, 3] and its objects; `owner` numbers the one seen at each pixel from 1, 0 is the ground."""

    def __init__(self, image: np.ndarray):
        self.image, self.owner = image, np.zeros(image.shape[:2], np.uint8)
        self.labels: list[int] = []
        self.boxes = np.zeros((0, 4), np.float32)  # with what is hidden
        self.pixels = np.zeros(1, int)  # of the ground (not counted) and of each object, with what is hidden
        self.visible = np.zeros(1, int)

    def add(self, rng: np.random.Generator, ink: np.ndarray, label: int, min_visible: float, light: bool) -> None:
        """Draws an object of opacity `ink` [h, w] at a random place where it may be; none if there is no such place."""
        solid = ink > 0.5
        height, width = ink.shape
        x, y, w, h = cv2.boundingRect(solid.view(np.uint8))
        if not w:
            return
        for _ in range(_ATTEMPTS):
            top = int(rng.integers(self.owner.shape[0] - height + 1))
            left = int(rng.integers(self.owner.shape[1] - width + 1))
            box = np.array([left + x, top + y, left + x + w, top + y + h], np.float32)
            if _max_iou(box, self.boxes) > _MAX_IOU:
                continue
            window = np.s_[top : top + height, left : left + width]
            hidden = np.bincount(self.owner[window][solid], minlength=len(self.pixels))
            visible = self.visible - hidden
            # Compared with all pixels of each object: what earlier digits have hidden counts as well.
            if (visible >= min_visible * self.pixels)[1:].all():
                break
        else:
            return
        _blend(rng, self.image[window], ink, light)
        self.labels.append(label)
        self.owner[window][solid] = len(self.labels)
        count = np.count_nonzero(solid)
        self.boxes = np.concatenate([self.boxes, box[None]])
        self.pixels, self.visible = np.append(self.pixels, count), np.append(visible, count)

    def bound_objects(self) -> np.ndarray:
        """Returns the boxes of the visible pixels of the objects, float32 [K, 4]."""
        boxes = np.zeros_like(self.boxes)
        for k, (x0, y0, x1, y1) in enumerate(self.boxes.astype(int).tolist()):
            x, y, w, h = cv2.boundingRect((self.owner[y0:y1, x0:x1] == k + 1).view(np.uint8))
            boxes[k] = x0 + x, y0 + y, x0 + x + w, y0 + y + h
        return boxes


def paint_ground(rng, shape) -> np.ndarray:
    """Paints a smooth coloured texture of two scales, uint8 [H, W, 3]."""
    ground = np.empty((*shape, 3), np.float32)
    ground[:] = rng.uniform(30, 200, 3)
    for cells, strength in ((4, rng.uniform(5, 45)), (int(rng.integers(10, 40)), rng.uniform(0, 25))):
        grid = (strength * rng.uniform(-1, 1, (cells, cells, 3))).astype(np.float32)
        ground += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(ground, 0, 232, out=ground).astype(np.uint8)


def _paint_clutter(rng, image, digits, classes) -> None:
    """Paints a line, a triangle, a disc or a digit on its side into the image."""
    height, width = image.shape[:2]
    colour = tuple(map(int, rng.integers(0, 233, 3)))
    x, y = int(rng.integers(width)), int(rng.integers(height))
    kind = int(rng.integers(4))
    if kind == 0:
        end = int(rng.integers(width)), int(rng.integers(height))
        cv2.line(image, (x, y), end, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    elif kind == 1:
        corners = np.array((x, y)) + rng.integers(-32, 33, (3, 2))
        cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    elif kind == 2:
        cv2.circle(image, (x, y), int(rng.integers(2, 20)), colour, -1, cv2.LINE_AA)
    else:
        digit = digits[rng.choice(np.flatnonzero(np.isin(classes, _TURNED)))]
        ink = draw_ink(rng, np.rot90(digit, rng.choice((1, 3))), (10, 40))[: height - y, : width - x]
        _blend(rng, image[y : y + ink.shape[0], x : x + ink.shape[1]], ink)


def draw_ink(rng, digit, sizes) -> np.ndarray:
    """Scales a digit [h, w] to a random height and aspect: its opacity, float32 in 0..1."""
    size = float(np.exp(rng.uniform(*np.log(sizes))))
    aspect = digit.shape[1] / digit.shape[0] * rng.uniform(0.85, 1.2)
    padded = cv2.copyMakeBorder(digit, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)  # strokes fade out at the border
    margin = padded.shape[0] / digit.shape[0]
    shape = (round(np.clip(aspect * size, 3, sizes[1]) * margin), round(size * margin))
    scaled = cv2.resize(padded, shape, interpolation=cv2.INTER_CUBIC)
    sharpness = max(1.5, 0.15 * size)  # edges stay about one pixel wide at any size
    return np.clip(sharpness * (scaled - 0.4) + 0.5, 0, 1)


def _max_iou(box, boxes) -> float:
    """Returns the largest IoU of a box with others [K, 4], 0 if there are none."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    sides = np.maximum(high - low, 0)
    shared, sizes = sides[:, 0] * sides[:, 1], boxes[:, 2:] - boxes[:, :2]
    union = sizes[:, 0] * sizes[:, 1] + (box[2] - box[0]) * (box[3] - box[1]) - shared
    return float((shared / union).max(initial=0))


def _blend(rng, window, ink, light: bool = False) -> None:
    """Paints in a random colour of enough contrast, or a light one, over `window`, uint8 [h, w, 3], in place."""
    if not window.size:
        return
    ground = float(np.dot(cv2.mean(window)[:3], LUMA))
    for _ in range(8):
        colour = rng.integers(_LIGHT if light else 0, 233, 3).astype(np.float32)
        if abs(float(colour @ LUMA) - ground) >= _CONTRAST:
            break
    else:
        colour = np.full(3, 0 if ground > 116 else 232, np.float32)
    window[:] = window + ink[..., None] * (colour - window)


@cache
def load_cut_digits(held_out: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns digits float32 [8, w] in 0..1, cut to their columns with ink, and their classes."""
    from canon.data.images import digits  # imports tensorflow_datasets, which takes 0.6 s

    images, classes = digits.arrays()
    is_test = np.isin(np.arange(len(classes)), digits.held_out(classes))
    chosen = np.flatnonzero(is_test == held_out)
    cut = []
    for image in images[chosen, ..., 0].astype(np.float32) / 255:
        columns = np.flatnonzero(image.max(0) > 0.4)
        cut.append(np.ascontiguousarray(image[:, columns[0] : columns[-1] + 1]))
    return cut, classes[chosen]
