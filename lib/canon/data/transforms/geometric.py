"""Random crops, scales and warps. Boxes and masks are transformed along; uint8 stays uint8.

Each warp resamples the image once; a chain of several blurs a little more than one `random_affine` that does it all.
"""

import math
from collections.abc import Callable

import numpy as np

from canon import named
from canon.data.images import geometry, image_files
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import UsageError

_DrawMatrix = Callable[[np.random.Generator, int, int], np.ndarray]  # (generator, height, width) -> matrix


# --- sizes and crops -------------------------------------------------------------------------------------------------


def decode(field: str = 'image') -> Transform:
    """Decodes the bytes of an image file (a source with `decode=False`) to uint8 RGB [H, W, 3]; arrays pass."""

    def apply(example, key):
        image = example[field]
        if not isinstance(image, image_files.Encoded):
            return example
        return {**example, field: image_files.decode_image(image)}

    return Transform(apply)


def resize_short(
    size: int,
    longest: int | None = None,
    method: str = 'bilinear',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Resizes so that the shorter side has `size` pixels, keeping the aspect, with antialiasing.

    Args:
      size: of the shorter side; the longer one is rounded down, as in torchvision.
      longest: bound of the longer side, for which the shorter one gets smaller than `size`; None for none. Detectors
        that see whole images take 600 and 1000 (Girshick 2015, "Fast R-CNN", section 5) or 800 and 1333.
      method: as in `resize`.
      field: of the image.
      along: fields to transform along with it.
    """
    geometry.check_side(size, 'resize_short')
    if longest is not None:
        geometry.check_side(longest, 'resize_short', 'longest')
        if longest < size:
            raise UsageError(f'resize_short: longest={longest} is smaller than size={size}')
    geometry.check_method(method, 'resize_short')
    along = SpatialFields.parse(along, 'resize_short')

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'resize_short')
        shape = geometry.scale_short_side(image.shape[:2], size, longest)
        resized = geometry.resample(image, shape, method)
        matrix = geometry.box_to_canvas((0, 0, image.shape[1], image.shape[0]), shape)
        return geometry.transform_fields(example, field, resized, matrix, along, place=True)

    return Transform(apply)


def scale_jitter(
    size: int | tuple[int, int],
    low: int,
    high: int,
    method: str = 'bilinear',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Resizes the shorter side to S pixels, uniform in low .. high, then crops `size` (height, width) uniformly.

    VGG trains with [256, 512] (Simonyan and Zisserman 2015, section 3.1), ResNet with [256, 480] (He et al. 2016,
    section 3.4). Only the window is computed.

    Args:
      size: one number for a square.
      low: least S, at least the sides of the window.
      high: greatest S.
      method: as in `resize`.
      field: of the image.
      along: fields to transform along with it.
    """
    (height, width), along = geometry.parse_size(size, 'scale_jitter'), SpatialFields.parse(along, 'scale_jitter')
    if not max(height, width) <= low <= high:
        raise UsageError(f'scale_jitter: {height}x{width} <= low={low} <= high={high} does not hold')
    geometry.check_method(method, 'scale_jitter')

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'scale_jitter'), borrowed_rng(key)
        rows, columns = geometry.scale_short_side(image.shape[:2], int(generator.integers(low, high + 1)))
        top, left = generator.integers(0, rows - height + 1), generator.integers(0, columns - width + 1)
        # The window in pixels of the original, so that the rest of the image is not resampled.
        y, x = image.shape[0] / rows, image.shape[1] / columns
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        part = geometry.resample(image, (height, width), method, box)
        return geometry.transform_fields(example, field, part, geometry.box_to_canvas(box, (height, width)), along)

    return Transform(apply, random=True)


def random_resized_crop(
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = 'fast',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Crops a window of random area and aspect and resizes it to `size` (Inception's augmentation).

    Szegedy et al. 2015, "Going deeper with convolutions", section 6.

    Args:
      size: (height, width), or one number for a square.
      scale: bounds of the window's share of the image's area, drawn uniformly.
      ratio: bounds of its width to its height, drawn uniformly in the logarithm. If ten draws do not fit into the
        image, the window is the largest centred one within these bounds.
      method: 'fast' (OpenCV: the mean of the pixels covered if it shrinks, bilinear otherwise) or one of `resize`.
      field: of the image.
      along: fields to transform along with it.
    """
    size, along = geometry.parse_size(size, 'random_resized_crop'), SpatialFields.parse(along, 'random_resized_crop')
    scale = _check_bounds(scale, 'random_resized_crop: scale')
    ratio = _check_bounds(ratio, 'random_resized_crop: ratio')
    geometry.check_method(method, 'random_resized_crop', ('fast',))

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'random_resized_crop')
        box = geometry.draw_crop_box(borrowed_rng(key), *image.shape[:2], scale, ratio)
        x0, y0, x1, y1 = box
        # Cropped first: Pillow's filters would read pixels outside a box, which torchvision's do not.
        part = geometry.resample(image[y0:y1, x0:x1], size, method)
        return geometry.transform_fields(example, field, part, geometry.box_to_canvas(box, size), along)

    return Transform(apply, random=True)


def decode_random_resized_crop(
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Decodes and crops in one, for a source with `decode=False`; decoded images are only cropped.

    A JPEG whose window is at least 2, 4 or 8 times as large as `size` is decoded at that fraction of its resolution,
    and the window is rounded to whole pixels of it.

    Args:
      size: as in `random_resized_crop`.
      scale: as in `random_resized_crop`.
      ratio: as in `random_resized_crop`.
      field: of the image.
      along: fields to transform along with it.
    """
    what = 'decode_random_resized_crop'
    size, along = geometry.parse_size(size, what), SpatialFields.parse(along, what)
    scale, ratio = _check_bounds(scale, f'{what}: scale'), _check_bounds(ratio, f'{what}: ratio')
    # It draws the same box, so `decode` of the source changes a window by its rounding only.
    crop_decoded = random_resized_crop(size, scale, ratio, 'fast', field, along)

    def apply(example, key):
        encoded = example[field]
        if not isinstance(encoded, image_files.Encoded):
            return crop_decoded.apply(example, key)
        height, width, can_reduce = image_files.read_head(encoded)
        box = geometry.draw_crop_box(borrowed_rng(key), height, width, scale, ratio)
        # JPEG's decoder leaves out the high frequencies of its 8x8 blocks: cheap, and without aliasing.
        step = _choose_reduction(box, size) if can_reduce else 1
        # In pixels of the reduced image, whose sides are rounded up.
        x0, y0, x1, y1 = (min(round(b / step), -(-s // step)) for b, s in zip(box, (width, height) * 2, strict=True))
        part = geometry.resample(image_files.decode_image(encoded, step)[y0:y1, x0:x1], size, 'fast')
        box = tuple(step * b for b in (x0, y0, x1, y1))  # what was really cropped, so that boxes fit exactly
        matrix = geometry.box_to_canvas(box, size)
        return geometry.transform_fields(example, field, part, matrix, along, (height, width))

    return Transform(apply, random=True)


# --- warps -----------------------------------------------------------------------------------------------------------


def random_rotation(
    degrees: named.NonNegative,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Rotates about the centre by a uniform angle in [-degrees, degrees]; the frame stays, and the outside is `fill`.

    Args:
      degrees: bound of the angle.
      fill: of pixels from outside the image.
      p: probability of rotating.
      field: of the image.
      along: fields to transform along with it.
    """

    def draw_matrix(generator, height, width):
        # From edge to edge, half of the sides is the centre of images of even and of odd sides alike.
        return geometry.recentre(geometry.rotation(generator.uniform(-degrees, degrees)), width / 2, height / 2)

    return _make_warp(draw_matrix, 'random_rotation', fill, p, field, along)


def random_scale(
    low: float,
    high: float,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Scales about the centre by a uniform factor in [low, high]; the frame stays.

    Args:
      low: least factor, above 0.
      high: greatest factor.
      fill: of pixels from outside the image.
      p: probability of scaling.
      field: of the image.
      along: fields to transform along with it.
    """
    low, high = _check_bounds((low, high), 'random_scale: (low, high)')

    def draw_matrix(generator, height, width):
        factor = generator.uniform(low, high)
        return geometry.recentre(geometry.scaling(factor, factor), width / 2, height / 2)

    return _make_warp(draw_matrix, 'random_scale', fill, p, field, along)


def random_translate(
    share: named.NonNegative,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Translates by uniform shares in [-share, share] of the width and of the height, fractions of pixels included.

    Args:
      share: bound of the shares.
      fill: of pixels from outside the image.
      p: probability of translating.
      field: of the image.
      along: fields to transform along with it.
    """

    def draw_matrix(generator, height, width):
        # In shares, so that images of any size move alike.
        x, y = generator.uniform(-share, share, 2)
        return geometry.translation(x * width, y * height)

    return _make_warp(draw_matrix, 'random_translate', fill, p, field, along)


def random_affine(
    degrees: named.NonNegative = 0,
    translate: named.NonNegative = 0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: named.NonNegative = 0,
    fill: float = 0,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Shears in x, scales and rotates about the centre, then translates, by uniform draws and with one resampling.

    Args:
      degrees: bound of the angle, either way.
      translate: bound of the translation, as a share of the width and of the height.
      scale: bounds of the factor.
      shear: bound of the tangent of the angle of shear.
      fill: of pixels from outside the image.
      p: probability of the warp.
      field: of the image.
      along: fields to transform along with it.
    """
    scale = _check_bounds(scale, 'random_affine: scale')

    def draw_matrix(generator, height, width):
        # Everything is drawn even if its bound is 0, so that one setting does not change the draws of the others.
        rotation = geometry.rotation(generator.uniform(-degrees, degrees))
        factor = generator.uniform(*scale)
        x, y = generator.uniform(-translate, translate, 2)
        shearing = geometry.shearing(generator.uniform(-shear, shear), 0)
        # The rightmost is applied first.
        linear = rotation @ geometry.scaling(factor, factor) @ shearing
        return geometry.translation(x * width, y * height) @ geometry.recentre(linear, width / 2, height / 2)

    return _make_warp(draw_matrix, 'random_affine', fill, p, field, along)


def random_perspective(
    distortion: float = 0.5,
    fill: float = 0,
    p: named.Probability = 0.5,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Changes the perspective: each corner moves inwards by uniform draws of up to `distortion` times half the sides.

    Args:
      distortion: in [0, 1).
      fill: of pixels from outside the image.
      p: probability of the warp.
      field: of the image.
      along: fields to transform along with it.
    """
    if not 0 <= distortion < 1:
        raise UsageError(f'random_perspective: distortion={distortion} is not in [0, 1)')

    def draw_matrix(generator, height, width):
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        # Only inwards, as in torchvision: outwards a part of the image would leave the frame.
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        moves = generator.random((4, 2)) * distortion / 2 * [width, height]
        return geometry.perspective(corners, corners + inwards * moves)

    return _make_warp(draw_matrix, 'random_perspective', fill, p, field, along)


def _make_warp(draw_matrix: _DrawMatrix, what: str, fill: float, p: float, field: str, along: SpatialSpec) -> Transform:
    along = SpatialFields.parse(along, what)

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, what), borrowed_rng(key)
        if generator.random() >= p:  # drawn first, also for p=1, so that p does not change the draws that follow
            return example
        matrix = draw_matrix(generator, *image.shape[:2])
        warped = geometry.warp(image, matrix, image.shape[:2], fill)
        return geometry.transform_fields(example, field, warped, matrix, along)

    return Transform(apply, random=True)


def _choose_reduction(box: geometry.Box, size: geometry.Size) -> int:
    """Returns the coarsest of 1, 2, 4 and 8 at which `box` is still as large as `size`."""
    times = min((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])
    # The fractions that libjpeg decodes at. Any coarser, and the window would be enlarged, hence blurred.
    return max(step for step in (1, 2, 4, 8) if step == 1 or times >= step)


def _check_bounds(bounds: tuple[float, float], what: str) -> tuple[float, float]:
    low, high = bounds
    if not 0 < low <= high or not math.isfinite(high):
        raise UsageError(f'{what}={tuple(bounds)} must be (low, high), positive, finite and in order')
    return low, high
