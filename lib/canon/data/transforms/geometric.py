"""Random crops, sizes and warps. Boxes and masks move along; uint8 in, uint8 out.

Each warp resamples the image once; a chain of several blurs a little more than one `random_affine` that does it all.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.images import geometry, image_files
from canon.data.images.geometry import Along
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import UsageError

_Along = Along | Mapping[str, Any]
_Draw = Callable[[np.random.Generator, int, int], np.ndarray]


# --- sizes and crops -------------------------------------------------------------------------------------------------


def decode(field: str = 'image') -> Transform:
    """The bytes of an image file (a source with `decode=False`) -> uint8 RGB [H, W, 3]; pixels stay as they are."""

    def apply(example, key):
        image = example[field]
        return {**example, field: image_files.decode(image)} if isinstance(image, image_files.Encoded) else example

    return Transform(apply)


def resize_short(size: int, method: str = 'bilinear', field: str = 'image', along: _Along = Along()) -> Transform:
    """The shorter side to `size` pixels, the longer in proportion (rounded down, as torchvision), antialiased."""
    if not isinstance(size, int) or size < 1:
        raise UsageError(f'resize_short: size={size!r} is no positive integer')
    geometry.check_method(method, 'resize_short')
    along = Along.of(along, 'resize_short')

    def apply(example, key):
        image = geometry.pixels(example, field, key, 'resize_short')
        box, shape = (0, 0, image.shape[1], image.shape[0]), geometry.short_side(image.shape[:2], size)
        moved = geometry.resample(image, shape, method)
        return geometry.carry(example, field, moved, geometry.window(box, shape), along)

    return Transform(apply)


def scale_jitter(
    size: int | tuple[int, int],
    low: int,
    high: int,
    method: str = 'bilinear',
    field: str = 'image',
    along: _Along = Along(),
) -> Transform:
    """The shorter side to S pixels, uniform in low .. high, then a window of `size` (height, width) placed uniformly.

    VGG trains with [256, 512] (Simonyan and Zisserman 2015, section 3.1), ResNet with [256, 480] (He et al. 2016,
    section 3.4). Only the window is computed. Raises UsageError where the window does not fit an image of side `low`.
    """
    (height, width), along = geometry.pair(size, 'scale_jitter'), Along.of(along, 'scale_jitter')
    if not max(height, width) <= low <= high:
        raise UsageError(f'scale_jitter: {height}x{width} <= low={low} <= high={high} does not hold')
    geometry.check_method(method, 'scale_jitter')

    def apply(example, key):
        image, generator = geometry.pixels(example, field, key, 'scale_jitter'), borrowed_rng(key)
        rows, columns = geometry.short_side(image.shape[:2], int(generator.integers(low, high + 1)))
        top, left = generator.integers(0, rows - height + 1), generator.integers(0, columns - width + 1)
        y, x = image.shape[0] / rows, image.shape[1] / columns
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        part = geometry.resample(image, (height, width), method, box)
        return geometry.carry(example, field, part, geometry.window(box, (height, width)), along)

    return Transform(apply, random=True)


def random_resized_crop(
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = 'fast',
    field: str = 'image',
    along: _Along = Along(),
) -> Transform:
    """A window of random area and aspect, stretched to `size` (Szegedy et al. 2015, "Going deeper", section 6).

    scale: bounds of the window's share of the image's area, uniform. ratio: of its width to its height, uniform in
    the logarithm. Where ten draws do not fit into the image it is the largest in the middle within `ratio`.
    method: 'fast' (OpenCV: the mean of the pixels covered where it shrinks, else bilinear) or one of `resize`.
    """
    size, along = geometry.pair(size, 'random_resized_crop'), Along.of(along, 'random_resized_crop')
    scale, ratio = _range(scale, 'random_resized_crop: scale'), _range(ratio, 'random_resized_crop: ratio')
    geometry.check_method(method, 'random_resized_crop', ('fast',))

    def apply(example, key):
        image = geometry.pixels(example, field, key, 'random_resized_crop')
        box = geometry.inception_window(borrowed_rng(key), *image.shape[:2], scale, ratio)
        x0, y0, x1, y1 = box
        part = geometry.resample(image[y0:y1, x0:x1], size, method)
        return geometry.carry(example, field, part, geometry.window(box, size), along)

    return Transform(apply, random=True)


def decode_random_resized_crop(
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    field: str = 'image',
    along: _Along = Along(),
) -> Transform:
    """`decode` and `random_resized_crop` in one, for a source with `decode=False`; of decoded images, the crop alone.

    A JPEG of which the window is 2, 4 or 8 times as large as `size` is decoded at that fraction of its resolution,
    and its window moved to whole pixels of it.
    """
    size, along = geometry.pair(size, 'decode_random_resized_crop'), Along.of(along, 'decode_random_resized_crop')
    scale = _range(scale, 'decode_random_resized_crop: scale')
    ratio = _range(ratio, 'decode_random_resized_crop: ratio')
    decoded = random_resized_crop(size, scale, ratio, 'fast', field, along)

    def apply(example, key):
        encoded = example[field]
        if not isinstance(encoded, image_files.Encoded):
            return decoded.apply(example, key)
        height, width, can_reduce = image_files.head(encoded)
        box = geometry.inception_window(borrowed_rng(key), height, width, scale, ratio)
        step = _reduction(box, size) if can_reduce else 1
        x0, y0, x1, y1 = (min(round(b / step), -(-s // step)) for b, s in zip(box, (width, height) * 2, strict=True))
        part = geometry.resample(image_files.decode(encoded, step)[y0:y1, x0:x1], size, 'fast')
        box = tuple(step * b for b in (x0, y0, x1, y1))
        return geometry.carry(example, field, part, geometry.window(box, size), along, (height, width))

    return Transform(apply, random=True)


# --- warps -----------------------------------------------------------------------------------------------------------


def random_rotation(
    degrees: named.NonNegative,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: _Along = Along(),
) -> Transform:
    """Turned about the middle by an angle uniform in [-degrees, degrees], in the same frame; outside it is `fill`."""

    def draw(generator, height, width):
        return geometry.about(geometry.rotation(generator.uniform(-degrees, degrees)), width / 2, height / 2)

    return _warp(draw, 'random_rotation', fill, p, field, along)


def random_scale(
    low: float, high: float, fill: float = 0, p: named.Probability = 1.0, field: str = 'image', along: _Along = Along()
) -> Transform:
    """Made larger or smaller about the middle by a factor uniform in [low, high], in the same frame."""
    low, high = _range((low, high), 'random_scale: (low, high)')

    def draw(generator, height, width):
        factor = generator.uniform(low, high)
        return geometry.about(geometry.scaling(factor, factor), width / 2, height / 2)

    return _warp(draw, 'random_scale', fill, p, field, along)


def random_translate(
    share: named.NonNegative, fill: float = 0, p: named.Probability = 1.0, field: str = 'image', along: _Along = Along()
) -> Transform:
    """Moved by a uniform share of its width and of its height in [-share, share], fractions of pixels included."""

    def draw(generator, height, width):
        x, y = generator.uniform(-share, share, 2)
        return geometry.translation(x * width, y * height)

    return _warp(draw, 'random_translate', fill, p, field, along)


def random_affine(
    degrees: named.NonNegative = 0,
    translate: named.NonNegative = 0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: named.NonNegative = 0,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: _Along = Along(),
) -> Transform:
    """Sheared in x, scaled and turned about the middle, then moved, by uniform draws: one resampling for all.

    degrees: of the turn, either way. translate: share of the width and the height. shear: tangent of the angle.
    """
    scale = _range(scale, 'random_affine: scale')

    def draw(generator, height, width):
        turn = geometry.rotation(generator.uniform(-degrees, degrees))
        factor = generator.uniform(*scale)
        x, y = generator.uniform(-translate, translate, 2)
        slant = geometry.shearing(generator.uniform(-shear, shear), 0)
        middle = geometry.about(turn @ geometry.scaling(factor, factor) @ slant, width / 2, height / 2)
        return geometry.translation(x * width, y * height) @ middle

    return _warp(draw, 'random_affine', fill, p, field, along)


def random_perspective(
    distortion: float = 0.5, fill: float = 0, p: named.Probability = 0.5, field: str = 'image', along: _Along = Along()
) -> Transform:
    """Seen askew: each corner moves inwards by uniform draws of up to `distortion` times half the sides."""
    if not 0 <= distortion < 1:
        raise UsageError(f'random_perspective: distortion={distortion} is not in [0, 1)')

    def draw(generator, height, width):
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        moves = generator.random((4, 2)) * distortion / 2 * [width, height]
        return geometry.quadrilateral(corners, corners + inwards * moves)

    return _warp(draw, 'random_perspective', fill, p, field, along)


def _warp(draw: _Draw, what: str, fill: float, p: float, field: str, along: _Along) -> Transform:
    along = Along.of(along, what)

    def apply(example, key):
        image, generator = geometry.pixels(example, field, key, what), borrowed_rng(key)
        if generator.random() >= p:
            return example
        matrix = draw(generator, *image.shape[:2])
        moved = geometry.warp(image, matrix, image.shape[:2], fill)
        return geometry.carry(example, field, moved, matrix, along)

    return Transform(apply, random=True)


def _reduction(box: geometry.Box, size: geometry.Size) -> int:
    """The coarsest of 1, 2, 4 and 8 at which `box` is still `size` large."""
    times = min((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])
    return max(step for step in (1, 2, 4, 8) if step == 1 or times >= step)


def _range(bounds: tuple[float, float], what: str) -> tuple[float, float]:
    low, high = bounds
    if not 0 < low <= high or not math.isfinite(high):
        raise UsageError(f'{what}={tuple(bounds)} is no (low, high) of positive numbers')
    return low, high
