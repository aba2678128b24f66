"""Transforms of images [H, W, C]: uint8 in 0..255, or float32 after `to_float`. Resize, pad and move before that.

Those that move pixels take boxes and masks along: `along` says which fields those are
(`canon.data.images.geometry.Along`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.images import geometry
from canon.data.images.geometry import Along
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import CanonError, UsageError

_Along = Along | Mapping[str, Any]


def resize(
    size: int | tuple[int, int], method: str = 'bilinear', field: str = 'image', along: _Along = Along()
) -> Transform:
    """To `size` (height, width), stretched, by Pillow, antialiased.

    method: nearest, bilinear, bicubic, area or lanczos.
    """
    size, along = geometry.pair(size, 'resize'), Along.of(along, 'resize')
    geometry.check_method(method, 'resize')

    def apply(example, key):
        image = geometry.pixels(example, field, key, 'resize')
        box = (0, 0, image.shape[1], image.shape[0])
        moved = geometry.resample(image, size, method)
        return geometry.carry(example, field, moved, geometry.window(box, size), along)

    return Transform(apply)


def pad(size: int | tuple[int, int], value: float = 0, field: str = 'image', along: _Along = Along()) -> Transform:
    """To `size` (height, width) with `value` on all sides, the image in the middle: LeNet-5 sees 28x28 as 32x32.

    Raises CanonError, when applied, for an image larger than `size`.
    """
    (height, width), along = geometry.pair(size, 'pad'), Along.of(along, 'pad')

    def apply(example, key):
        image = example[field]
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        if top < 0 or left < 0:
            told = f'{height}x{width}: example {key.id} is larger, {image.shape[0]}x{image.shape[1]}'
            raise CanonError(f'pad to {told}; resize it first')
        out = np.full((height, width, *image.shape[2:]), value, image.dtype)
        out[top : top + image.shape[0], left : left + image.shape[1]] = image
        return geometry.carry(example, field, out, geometry.translation(left, top), along)

    return Transform(apply)


def center_crop(size: int | tuple[int, int], field: str = 'image', along: _Along = Along()) -> Transform:
    """The middle `size` (height, width). Raises CanonError, when applied, for an image smaller than that."""
    (height, width), along = geometry.pair(size, 'center_crop'), Along.of(along, 'center_crop')

    def apply(example, key):
        image = example[field]
        geometry.check_fits((height, width), image, key)
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        part = image[top : top + height, left : left + width]
        return geometry.carry(example, field, part, geometry.translation(-left, -top), along)

    return Transform(apply)


def random_flip(p: named.Probability = 0.5, field: str = 'image', along: _Along = Along()) -> Transform:
    """Left and right exchanged with probability `p`."""
    along = Along.of(along, 'random_flip')

    def apply(example, key):
        if borrowed_rng(key).random() >= p:
            return example
        image, matrix = example[field], geometry.flipping(example[field].shape[1])
        return geometry.carry(example, field, image[:, ::-1], matrix, along)

    return Transform(apply, random=True)


def random_crop(
    size: int | tuple[int, int], padding: int = 0, value: float = 0, field: str = 'image', along: _Along = Along()
) -> Transform:
    """A window of `size` (height, width), uniformly placed over the image with `padding` pixels of `value` around it.

    `random_crop(32, padding=4)` is the CIFAR augmentation (ResNet, He et al. 2016, section 4.2).
    Raises CanonError, when applied, for an image smaller than the window.
    """
    (height, width), along = geometry.pair(size, 'random_crop'), Along.of(along, 'random_crop')

    def apply(example, key):
        image = example[field]
        geometry.check_fits((height, width), image, key, padding)
        spare = image.shape[0] + 2 * padding - height, image.shape[1] + 2 * padding - width
        generator = borrowed_rng(key)
        top, left = (int(generator.random() * (s + 1)) - padding for s in spare)
        part = _window(image, top, left, height, width, value)
        return geometry.carry(example, field, part, geometry.translation(-left, -top), along)

    return Transform(apply, random=True)


def random_shift(pixels: int, value: float = 0, field: str = 'image', along: _Along = Along()) -> Transform:
    """Moved by up to `pixels` either way, each axis uniformly by whole pixels; what comes in is `value`."""
    if pixels < 0:
        raise UsageError(f'random_shift: pixels={pixels} is negative')
    along = Along.of(along, 'random_shift')

    def apply(example, key):
        image, generator = example[field], borrowed_rng(key)
        top, left = (int(generator.random() * (2 * pixels + 1)) - pixels for _ in range(2))
        part = _window(image, top, left, *image.shape[:2], value)
        return geometry.carry(example, field, part, geometry.translation(-left, -top), along)

    return Transform(apply, random=True)


def to_float(field: str = 'image') -> Transform:
    """uint8 0..255 -> float32 0..1."""

    def apply(example, key):
        return {**example, field: np.multiply(example[field], np.float32(1 / 255), dtype=np.float32)}

    return Transform(apply)


def to_uint8(field: str = 'image') -> Transform:
    """float 0..1 -> uint8 0..255, rounded and clipped: the inverse of `to_float`."""

    def apply(example, key):
        return {**example, field: np.rint(np.clip(example[field], 0, 1) * 255).astype(np.uint8)}

    return Transform(apply)


def standardise(mean: float | tuple[float, ...], std: float | tuple[float, ...], field: str = 'image') -> Transform:
    """`(image - mean) / std` as float32; mean and std in the image's own units, one number or one a channel."""
    centre, deviation = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not (np.isfinite(centre).all() and (deviation > 0).all()):
        raise UsageError(f'standardise: mean={mean} must be finite and std={std} positive')
    scale = 1 / deviation

    def apply(example, key):
        return {**example, field: (example[field].astype(np.float32) - centre) * scale}

    return Transform(apply)


def _window(image, top, left, height, width, value):
    """image[top:top+height, left:left+width], where what lies outside the image is `value`."""
    if top >= 0 and left >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    out = np.full((height, width, *image.shape[2:]), value, image.dtype)
    seen = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return out
