"""Transforms of detectors: letterboxes, and the augmentations of SSD and YOLO. Boxes and masks are transformed along.

SSD trains with `ssd_photometric`, `expand`, `min_iou_crop`, `resize` and `random_flip` in this order (Liu et al. 2016,
sections 2.2 and 3.6), YOLO with `yolo_jitter`, `random_hsv` and `random_flip`.
"""

import math
from typing import Literal

import numpy as np

from canon import named
from canon.data.images import colour, geometry
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import UsageError

IMAGENET_MEAN = (123.0, 117.0, 104.0)  # of red, green and blue in levels, as SSD and its backbone subtract it


# --- canvases --------------------------------------------------------------------------------------------------------


def record_placement(field: str = 'image') -> Transform:
    """Records the image's (height, width) as 'original_size', int32 [2], and the identity as 'placement', float32 [4].

    It stands first in a chain for images without annotations, so that predictions can be mapped back to them: sources
    of boxes record the size themselves, and the transforms that follow compose the placement.
    """

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'record_placement')
        # (scale_x, scale_y, shift_x, shift_y), as `geometry.transform_fields` composes it.
        size, identity = np.array(image.shape[:2], np.int32), np.array((1, 1, 0, 0), np.float32)
        return {**example, 'original_size': size, geometry.PLACEMENT: identity}

    return Transform(apply)


def letterbox(
    size: int | tuple[int, int],
    value: float | tuple[float, ...] = 128,
    position: Literal['centre', 'corner'] = 'centre',
    method: str = 'bilinear',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Scales the image to fit into `size` (height, width), keeping the aspect, and fills the rest with `value`.

    'placement' of the example, float32 [4], is (scale_x, scale_y, shift_x, shift_y) from original to canvas pixels.

    Args:
      size: of the canvas; one number for a square.
      value: of the pixels around the image, one number or one per channel, in levels of 0..255.
      position: of the image, in the middle or in the upper left corner.
      method: as in `resize`.
      field: of the image.
      along: fields to transform along with it.

        >>> from canon.data import Key
        >>> example = {'image': np.zeros((50, 100, 3), np.uint8), 'boxes': np.array([[0, 0, 100, 50]])}
        >>> out = letterbox(300).apply(example, Key(seed=0, visit=0, id=0))
        >>> out['boxes'].tolist(), out['placement'].tolist()
        ([[0.0, 75.0, 300.0, 225.0]], [3.0, 3.0, 0.0, 75.0])
    """
    size, along = geometry.parse_size(size, 'letterbox'), SpatialFields.parse(along, 'letterbox')
    geometry.check_method(method, 'letterbox')
    if position not in ('centre', 'corner'):
        raise UsageError(f"letterbox: position={position!r} is neither 'centre' nor 'corner'")

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'letterbox')
        height, width = image.shape[:2]
        scale = min(size[0] / height, size[1] / width)
        # At least one pixel for an image that is very long, at most the canvas after rounding.
        inner = min(max(round(scale * height), 1), size[0]), min(max(round(scale * width), 1), size[1])
        resized = geometry.resample(image, inner, method)
        top, left = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2) if position == 'centre' else (0, 0)
        canvas = geometry.crop_padded(resized, -top, -left, *size, _to_units(value, image))
        # The scales of rounded sides, which differ a little between the axes, so that boxes fit exactly.
        matrix = geometry.translation(left, top) @ geometry.box_to_canvas((0, 0, width, height), inner)
        # Also for examples without boxes or a size: `transform_fields` composes a placement that is there already.
        example = {**example, geometry.PLACEMENT: geometry.find_placement(example, (height, width))}
        return geometry.transform_fields(example, field, canvas, matrix, along)

    return Transform(apply)


# --- SSD -------------------------------------------------------------------------------------------------------------


def expand(
    limit: float = 4.0,
    p: named.Probability = 0.5,
    value: float | tuple[float, ...] = IMAGENET_MEAN,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Places the image at random on a canvas of up to `limit` times its sides, so that objects become small.

    Liu et al. 2016, "SSD", section 3.6 ("zoom out"); 2.4 points of mAP come from it there.

    Args:
      limit: greatest factor of the sides, drawn uniformly from 1.
      p: probability of expanding.
      value: of the canvas, one number or one per channel, in levels of 0..255 whatever the image's type.
      field: of the image.
      along: fields to transform along with it.
    """
    if not limit >= 1 or not math.isfinite(limit):
        raise UsageError(f'expand: limit={limit} must be at least 1')
    along = SpatialFields.parse(along, 'expand')

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'expand'), borrowed_rng(key)
        # All four are drawn, whatever comes of the first, so that `p` and `limit` do not change the other draws.
        chance, ratio, down, right = generator.random(4)
        if chance >= p:
            return example
        factor = 1 + ratio * (limit - 1)
        height, width = (int(factor * side) for side in image.shape[:2])
        top, left = int(down * (height - image.shape[0] + 1)), int(right * (width - image.shape[1] + 1))
        canvas = geometry.crop_padded(image, -top, -left, height, width, _to_units(value, image))
        return geometry.transform_fields(example, field, canvas, geometry.translation(left, top), along)

    return Transform(apply, random=True)


def min_iou_crop(
    overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9),
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (0.5, 2.0),
    trials: named.Count = 50,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Crops a patch that overlaps an object by a least IoU, any patch, or nothing, each as likely (SSD, section 2.2).

    As in SSD's code, one sampler per entry of `overlaps` and one without a bound draw up to `trials` patches each; a
    sampler keeps its first patch whose IoU with an object reaches its bound. The result is drawn uniformly among these
    patches and the whole image. Objects stay whose centre is within the patch, clipped to it; there may be none. An
    image without objects stays whole.

    Args:
      overlaps: bounds of the IoU.
      scale: bounds of the square root of the patch's share of the area, drawn uniformly.
      ratio: bounds of its width to its height as shares of the image's sides, drawn uniformly within what fits.
      trials: patches that a sampler draws at most.
      field: of the image.
      along: fields to transform along with it.
    """
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise UsageError(f'min_iou_crop: scale={tuple(scale)} must be within (0, 1], ratio={tuple(ratio)} in order')
    if not all(0 <= overlap <= 1 for overlap in overlaps):
        raise UsageError(f'min_iou_crop: overlaps={tuple(overlaps)} must be within 0..1')
    along = SpatialFields.parse(along, 'min_iou_crop')
    # The sampler without a bound, the last of section 2.2, accepts any patch.
    bounds = np.array([*overlaps, 0.0])

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'min_iou_crop'), borrowed_rng(key)
        height, width = image.shape[:2]
        # All is drawn, whether it is needed or not, so that the number of boxes does not change other draws.
        chance, draws = generator.random(), generator.random((4, len(bounds), trials))
        boxes = np.asarray(example.get(along.boxes, np.zeros((0, 4))), np.float64).reshape(-1, 4)
        if not len(boxes):
            return example
        patches = _draw_patches(draws, scale, ratio) * [width, height, width, height]
        reached = _overlap(patches, boxes).max(-1) >= bounds[:, None]
        # A sampler all of whose patches fall short takes no part in the draw.
        samplers = np.flatnonzero(reached.any(1))
        choice = int(chance * (len(samplers) + 1))
        if choice == 0:
            return example
        sampler = samplers[choice - 1]
        x0, y0, x1, y1 = patches[sampler, reached[sampler].argmax()]
        # Whole pixels, at least one: the patch is a slice of the image, which `resize` stretches later.
        left, top = int(x0), int(y0)
        right, bottom = min(max(round(x1), left + 1), width), min(max(round(y1), top + 1), height)
        # By the centre, not by visibility: boxes are clipped to the patch, however little is left of them.
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = np.all((centres >= (left, top)) & (centres < (right, bottom)), axis=1)
        part = image[top:bottom, left:right]
        example = geometry.keep_boxes(example, inside, along)
        return geometry.transform_fields(example, field, part, geometry.translation(-left, -top), along)

    return Transform(apply, random=True)


def ssd_photometric(
    brightness: named.NonNegative = 32,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: named.NonNegative = 36,
    p: named.Probability = 0.5,
    field: str = 'image',
) -> Transform:
    """Changes brightness, contrast, saturation and hue, each with probability `p`, in one of two orders (SSD, 2.2).

    Half of the images have their contrast changed after the brightness, half at last; saturation and hue are those of
    HSV. The parameters are those of SSD's code; its hue of 8 bits is clipped at the ends of the circle, ours turns on.
    torchvision's `RandomPhotometricDistort` differs: its brightness is a factor, its contrast keeps the mean, and its
    hue turns by at most 18 degrees.

    Args:
      brightness: bound of the levels (0..255) that are added, either way.
      contrast: bounds of the factor of all levels.
      saturation: bounds of its factor.
      hue: bound of the turn in degrees, either way.
      p: probability of each change.
      field: of the image.
    """
    for name, bounds in (('contrast', contrast), ('saturation', saturation)):
        if not 0 <= bounds[0] <= bounds[1]:
            raise UsageError(f'ssd_photometric: {name}={tuple(bounds)} must be (low, high), in order and not negative')

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'ssd_photometric', channels=(1, 3))
        generator = borrowed_rng(key)
        # Drawn in a fixed number, so that one setting does not change the others' draws.
        early, *chances = generator.random(5) < (0.5, p, p, p, p)
        shift, turn = generator.uniform(-1, 1, 2) * (brightness, hue)
        factor, chroma = generator.uniform(*contrast), generator.uniform(*saturation)
        if chances[0]:
            image = colour.add_levels(image, shift)
        if chances[1] and early:
            image = colour.adjust_brightness(image, factor)
        if chances[2] or chances[3]:  # neighbours in both orders, hence one conversion
            image = colour.adjust_hsv(image, turn / 360 if chances[3] else 0, chroma if chances[2] else 1)
        if chances[1] and not early:
            image = colour.adjust_brightness(image, factor)
        return {**example, field: image}

    return Transform(apply, random=True)


# --- YOLO ------------------------------------------------------------------------------------------------------------


def yolo_jitter(
    size: int | tuple[int, int],
    jitter: float = 0.2,
    value: float | tuple[float, ...] = 128,
    method: str = 'bilinear',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Moves each side of the image by up to `jitter` of its length, either way, and resizes the window to `size`.

    YOLO (Redmon et al. 2016, section 2.2) scales and translates by up to 20 %; in its code both come of the four sides.

    Args:
      size: (height, width) of the result, one number for a square; the aspect changes.
      jitter: below 0.5.
      value: of pixels from outside the image, one number or one per channel, in levels of 0..255.
      method: of resizing, as in `resize`.
      field: of the image.
      along: fields to transform along with it.
    """
    size, along = geometry.parse_size(size, 'yolo_jitter'), SpatialFields.parse(along, 'yolo_jitter')
    geometry.check_method(method, 'yolo_jitter', ('fast',))
    if not 0 <= jitter < 0.5:
        raise UsageError(f'yolo_jitter: jitter={jitter} is not in [0, 0.5)')

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'yolo_jitter')
        height, width = image.shape[:2]
        # Negative moves of the left and positive ones of the right side widen the window beyond the image.
        moves = borrowed_rng(key).uniform(-jitter, jitter, 4) * (width, height, width, height)
        left, top, right, bottom = (round(move) for move in moves)
        right, bottom = max(width + right, left + 1), max(height + bottom, top + 1)
        window = geometry.crop_padded(image, top, left, bottom - top, right - left, _to_units(value, image))
        matrix = geometry.box_to_canvas((left, top, right, bottom), size)
        return geometry.transform_fields(example, field, geometry.resample(window, size, method), matrix, along)

    return Transform(apply, random=True)


def random_hsv(
    exposure: float = 1.5, saturation: float = 1.5, hue: named.NonNegative = 0.0, field: str = 'image'
) -> Transform:
    """Changes exposure and saturation in HSV by random factors (Redmon et al. 2016, "YOLO", section 2.2).

    Args:
      exposure: bound f of the factor of the value: uniform in [1, f], or its inverse, each half of the time.
      saturation: likewise of the saturation.
      hue: bound of the turn in degrees, either way.
      field: of the image.
    """
    for name, bound in (('exposure', exposure), ('saturation', saturation)):
        if not bound >= 1 or not math.isfinite(bound):
            raise UsageError(f'random_hsv: {name}={bound} must be at least 1')

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'random_hsv', channels=(1, 3)), borrowed_rng(key)
        factors = generator.uniform(1, (saturation, exposure))
        # A factor or its inverse, as in darknet: uniform in [1/f, f] would brighten more often than darken.
        factors = np.where(generator.random(2) < 0.5, factors, 1 / factors)
        turn = generator.uniform(-hue, hue) / 360
        return {**example, field: colour.adjust_hsv(image, turn, *factors)}

    return Transform(apply, random=True)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _to_units(value: float | tuple[float, ...], image: np.ndarray) -> np.ndarray:
    """Converts levels of 0..255 to the units of the image; colours of grey images are their means."""
    levels = np.asarray(value, np.float64)
    if levels.ndim and len(levels) != image.shape[2]:
        levels = levels.mean()
    return np.rint(levels) if image.dtype == np.uint8 else levels / 255


def _draw_patches(draws: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]) -> np.ndarray:
    """Turns uniform draws [4, S, T] into patches [S, T, 4], as shares of the image's sides."""
    side = scale[0] + draws[0] * (scale[1] - scale[0])
    # A patch of this area fits into the unit square only within these aspects.
    low, high = np.maximum(ratio[0], side**2), np.minimum(ratio[1], side**-2)
    # side^2 is the area, root^2 the aspect: width / height = root^2.
    root = np.sqrt(low + draws[1] * (high - low))
    width, height = side * root, side / root
    x, y = draws[2] * (1 - width), draws[3] * (1 - height)
    return np.stack([x, y, x + width, y + height], -1)


def _overlap(patches: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Computes the IoU [..., K] of patches [..., 4] with boxes [K, 4]."""
    patches = patches[..., None, :]
    sides = np.minimum(patches[..., 2:], boxes[:, 2:]) - np.maximum(patches[..., :2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0), -1)
    return shared / (np.prod(patches[..., 2:] - patches[..., :2], -1) + geometry.box_area(boxes) - shared)
