"""Transforms of images [H, W, C]: uint8 in 0..255, or float32 after `to_float`. Resize, pad and crop before that.

Those that move pixels transform boxes and masks along with them; `along` names those fields
(`canon.data.images.geometry.SpatialFields`).
"""

from typing import Literal

import numpy as np

from canon import named
from canon.data.images import geometry
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng, uniforms
from canon.errors import CanonError, UsageError


def resize(
    size: int | tuple[int, int],
    method: str | tuple[str, ...] = 'bilinear',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Resizes to `size` (height, width), whatever the aspect, with antialiasing.

    Args:
      size: one number for a square.
      method: nearest, bilinear, bicubic, area or lanczos, by Pillow. Of several, each image draws one.
      field: of the image.
      along: fields to transform along with it.
    """
    size, along = geometry.parse_size(size, 'resize'), SpatialFields.parse(along, 'resize')
    methods = (method,) if isinstance(method, str) else tuple(method)
    if not methods:
        raise UsageError(f'resize: method=() is empty; there are {", ".join(geometry.METHODS)}')
    for name in methods:
        geometry.check_method(name, 'resize')

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'resize')
        box = (0, 0, image.shape[1], image.shape[0])
        chosen = methods[0] if len(methods) == 1 else methods[borrowed_rng(key).integers(len(methods))]
        resized = geometry.resample(image, size, chosen)
        matrix = geometry.box_to_canvas(box, size)
        return geometry.transform_fields(example, field, resized, matrix, along, place=True)

    # What is not random is applied once, before examples are cached.
    return Transform(apply, random=len(methods) > 1)


def pad(
    size: int | tuple[int, int],
    value: float | tuple[float, ...] = 0,
    position: Literal['centre', 'corner'] = 'centre',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Pads to `size` (height, width) with `value`, the image in the middle: LeNet-5 takes 28x28 as 32x32.

    Args:
      size: one number for a square.
      value: of the new pixels, one number or one per channel, in the image's units.
      position: of the image, in the middle or in the upper left corner, as batches of detectors have it.
      field: of the image.
      along: fields to transform along with it.

    Raises CanonError, when applied, for an image larger than `size`.
    """
    (height, width), along = geometry.parse_size(size, 'pad'), SpatialFields.parse(along, 'pad')
    if position not in ('centre', 'corner'):
        raise UsageError(f"pad: position={position!r} is neither 'centre' nor 'corner'")

    def apply(example, key):
        image = example[field]
        # If the rest is odd, the extra row is below and the extra column at the right.
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        if position == 'corner':  # a negative one stays, so that a larger image is refused here, too
            top, left = min(top, 0), min(left, 0)
        if top < 0 or left < 0:
            sizes = f'{height}x{width}: example {key.id} is larger, {image.shape[0]}x{image.shape[1]}'
            raise CanonError(f'pad to {sizes}; resize it first')
        if np.ndim(value) and np.shape(value) != image.shape[2:]:
            raise CanonError(f'pad: value={value} does not fit example {key.id} of {image.shape[2:]} channels')
        out = np.full((height, width, *image.shape[2:]), value, image.dtype)
        out[top : top + image.shape[0], left : left + image.shape[1]] = image
        matrix = geometry.translation(left, top)
        return geometry.transform_fields(example, field, out, matrix, along, place=True)

    return Transform(apply)


def center_crop(size: int | tuple[int, int], field: str = 'image', along: SpatialSpec = None) -> Transform:
    """Crops the central window of `size` (height, width).

    Raises CanonError, when applied, for an image smaller than that.

    Args:
      size: one number for a square, or (height, width).
      field: of the image.
      along: fields to transform along with it.
    """
    (height, width), along = geometry.parse_size(size, 'center_crop'), SpatialFields.parse(along, 'center_crop')

    def apply(example, key):
        image = example[field]
        geometry.check_fits((height, width), image, key)
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        part = image[top : top + height, left : left + width]
        matrix = geometry.translation(-left, -top)
        return geometry.transform_fields(example, field, part, matrix, along, place=True)

    return Transform(apply)


def random_flip(p: named.Probability = 0.5, field: str = 'image', along: SpatialSpec = None) -> Transform:
    """Mirrors left to right with probability `p`."""
    along = SpatialFields.parse(along, 'random_flip')

    def apply(example, key):
        if borrowed_rng(key).random() >= p:
            return example
        image, matrix = example[field], geometry.horizontal_flip(example[field].shape[1])
        # A view: making a batch copies it anyway.
        return geometry.transform_fields(example, field, image[:, ::-1], matrix, along)

    def apply_to_batch(batch, keys):
        if not geometry.is_image_alone(batch, along):
            return None
        mirrored, images = uniforms(keys, 1)[:, 0] < p, batch[field].copy()
        images[mirrored] = images[mirrored, :, ::-1]
        return {**batch, field: images}

    return Transform(apply, random=True, apply_to_batch=apply_to_batch)


def random_crop(
    size: int | tuple[int, int], padding: int = 0, value: float = 0, field: str = 'image', along: SpatialSpec = None
) -> Transform:
    """Crops a window of `size` (height, width), uniformly placed in the image padded by `padding` pixels.

    `random_crop(32, padding=4)` is the augmentation of CIFAR (ResNet, He et al. 2016, section 4.2).

    Args:
      size: one number for a square.
      padding: pixels of `value` on each side.
      value: of the padding.
      field: of the image.
      along: fields to transform along with it.

    Raises CanonError, when applied, for a padded image smaller than the window.
    """
    return _make_random_window(geometry.parse_size(size, 'random_crop'), padding, value, field, along, 'random_crop')


def random_shift(pixels: int, value: float = 0, field: str = 'image', along: SpatialSpec = None) -> Transform:
    """Shifts by uniform whole numbers of pixels in [-pixels, pixels] along each axis; what enters is `value`.

    Args:
      pixels: the largest shift along an axis.
      value: what enters at the edges.
      field: of the image.
      along: fields to transform along with it.
    """
    if pixels < 0:
        raise UsageError(f'random_shift: pixels={pixels} is negative')
    return _make_random_window(None, pixels, value, field, along, 'random_shift')


def _make_random_window(
    size: geometry.Size | None, padding: int, value: float, field: str, along: SpatialSpec, what: str
) -> Transform:
    """Makes the crop of a window, uniformly placed in the padded image; without `size` it is as large as the image."""
    fields = SpatialFields.parse(along, what)

    def measure(image, key):
        height, width = size or image.shape[:2]
        geometry.check_fits((height, width), image, key, padding)
        return height, width, [image.shape[0] + 2 * padding - height + 1, image.shape[1] + 2 * padding - width + 1]

    def apply(example, key):
        image, generator = example[field], borrowed_rng(key)
        height, width, places = measure(image, key)
        # One random() per axis is three times as fast as integers(), which matters for images of CIFAR's size.
        top, left = (int(generator.random() * count) - padding for count in places)
        part = geometry.crop_padded(image, top, left, height, width, value)
        return geometry.transform_fields(example, field, part, geometry.translation(-left, -top), fields)

    def apply_to_batch(batch, keys):
        if not geometry.is_image_alone(batch, fields):
            return None
        height, width, places = measure(batch[field][0], keys[0])
        tops, lefts = (uniforms(keys, 2) * places).astype(int).T - padding
        return {**batch, field: geometry.crop_batch(batch[field], tops, lefts, height, width, value)}

    return Transform(apply, random=True, apply_to_batch=apply_to_batch)


def to_float(field: str = 'image') -> Transform:
    """Converts uint8 in 0..255 to float32 in 0..1."""

    def apply(example, key):
        # With dtype there is one pass and no float64 copy in between.
        return {**example, field: np.multiply(example[field], np.float32(1 / 255), dtype=np.float32)}

    return Transform(apply)


def to_uint8(field: str = 'image') -> Transform:
    """Converts floats in 0..1 to uint8 in 0..255, rounded and clipped: the inverse of `to_float`."""

    def apply(example, key):
        return {**example, field: np.rint(np.clip(example[field], 0, 1) * 255).astype(np.uint8)}

    return Transform(apply)


def standardise(mean: float | tuple[float, ...], std: float | tuple[float, ...], field: str = 'image') -> Transform:
    """Computes (image - mean) / std as float32; mean and std are in the image's units, one number or one per channel.

    Raises UsageError for a mean that is not finite or a standard deviation that is not positive.
    """
    mean_array, std_array = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not (np.isfinite(mean_array).all() and (std_array > 0).all()):
        raise UsageError(f'standardise: mean={mean} must be finite and std={std} positive')
    scale = 1 / std_array  # multiplying is faster than dividing

    def apply(example, key):
        return {**example, field: (example[field].astype(np.float32) - mean_array) * scale}

    return Transform(apply)
