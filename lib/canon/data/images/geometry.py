"""Geometric transforms of an image with its boxes and masks, each given as one 3x3 matrix (or a `PointMap`).

Coordinates are (x, y) in pixels, x to the right and y down, with (0, 0) the upper left *corner* of the image: the
centre of the first pixel is (0.5, 0.5), and the box of the whole image is [0, 0, W, H]. A matrix maps points of the
input image to points of the output image in homogeneous coordinates: (x', y', w') = M (x, y, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image

from canon import named
from canon.data.pipeline.keys import Key
from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError

METHODS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'area': Image.Resampling.BOX,
    'lanczos': Image.Resampling.LANCZOS,
}

PLACEMENT = 'placement'  # the field that `transform_fields` composes
Box = tuple[float, ...]  # x0, y0, x1, y1
Size = tuple[int, int]  # height, width


class SpatialFields(NamedTuple):
    """Names of the fields that are transformed along with the image, where an example has them.

    Attributes:
      boxes: float [K, 4] of [x0, y0, x1, y1] in pixels; becomes float32, clipped to the image.
      masks: [K, H, W], one per box; what enters from outside the image is 0.
      segmentation: [H, W] or [H, W, 1], a class per pixel; what enters is `void` (false where it is boolean).
      per_box: fields [K, ...] with one row per box. Those that an example lacks are skipped.
      void: the class of pixels without one.
      min_visible: drops a box, with its rows of `masks` and `per_box`, if less than this share of its transformed area
        is inside the image. 0 drops boxes that are wholly outside, 1 those that are not wholly inside.
      proposals: float [P, 4], boxes without labels; becomes float32, clipped. Only those that are wholly outside are
        dropped: a transform that rejects an object, by `min_visible` or by its centre, rejects no proposal.
    """

    boxes: str = 'boxes'
    masks: str = 'masks'
    segmentation: str = 'segmentation'
    per_box: tuple[str, ...] = ('labels', 'difficult', 'crowd', 'area')
    void: int = 255
    min_visible: named.Probability = 0.0
    proposals: str = 'proposals'

    @classmethod
    def parse(cls, spec: SpatialSpec, where: str) -> SpatialFields:
        """Makes the fields from a config's mapping; None gives the defaults. Raises UsageError for an unknown key."""
        if isinstance(spec, SpatialFields):
            return spec
        arguments = named.to_plain(spec or {})
        if isinstance(arguments.get('per_box'), str):
            arguments['per_box'] = (arguments['per_box'],)
        return named.call(cls, arguments, f'{where}.along')


SpatialSpec = SpatialFields | Mapping[str, Any] | None


class PointMap(Protocol):
    """A map of the plane that is not a matrix, such as `canon.data.images.deformation.Deformation`.

    Attributes:
      places: where each pixel of the result comes from, [H, W, 2] in pixels of the image before.
    """

    @property
    def places(self) -> np.ndarray: ...

    def move_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Returns the axis-aligned boxes around the moved boxes [K, 4], float64, not clipped."""
        ...


# --- matrices --------------------------------------------------------------------------------------------------------


def translation(x: float, y: float) -> np.ndarray:
    """Maps (u, v) to (u + x, v + y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> np.ndarray:
    """Maps (u, v) to (x u, y v)."""
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float) -> np.ndarray:
    """Rotates about the origin, counter-clockwise on the screen (y points down)."""
    # The sign of s is that of a clockwise rotation in the textbook's axes, where y points up.
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float64)


def shearing(x: float, y: float) -> np.ndarray:
    """Maps (u, v) to (u + x v, v + y u)."""
    return np.array([[1, x, 0], [y, 1, 0], [0, 0, 1]], np.float64)


def recentre(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Returns `matrix` applied about the point (x, y) instead of the origin."""
    return translation(x, y) @ matrix @ translation(-x, -y)


def horizontal_flip(width: int) -> np.ndarray:
    """Mirrors an image of `width` pixels left to right."""
    # The edge 0 goes to the edge `width`: with pixel centres as whole numbers it would be width - 1.
    return np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], np.float64)


def perspective(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns the perspective that maps four points [4, 2] to four others; no three of either may be on a line."""
    rows = []
    for (x, y), (u, v) in zip(before, after, strict=True):
        # u (g x + h y + 1) = a x + b y + c and likewise v: linear in the eight unknowns a .. h, the ninth being 1.
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution = np.linalg.solve(np.array(rows, np.float64), np.asarray(after, np.float64).ravel())
    return np.append(solution, 1).reshape(3, 3)


def box_to_canvas(box: Box, size: Size) -> np.ndarray:
    """Maps the part [x0, y0, x1, y1] of an image to a canvas of `size` (height, width), stretched."""
    x0, y0, x1, y1 = box
    return scaling(size[1] / (x1 - x0), size[0] / (y1 - y0)) @ translation(-x0, -y0)


# --- points, boxes and pixels ----------------------------------------------------------------------------------------


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps points [..., 2] to float64 [..., 2]."""
    mapped = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray | PointMap) -> np.ndarray:
    """Returns the axis-aligned boxes around the mapped corners of `boxes` [K, 4], float64, not clipped."""
    if not isinstance(matrix, np.ndarray):
        return matrix.move_boxes(boxes)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    # All four corners: after a rotation any of them may be outermost.
    corners = transform_points(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2), matrix)
    return np.concatenate([corners.min(1), corners.max(1)], -1)


def clip_boxes(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Clips `boxes` [K, 4] to an image of `size` (height, width)."""
    height, width = size
    return np.clip(boxes, 0, [width, height, width, height])


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas [K] of boxes [K, 4], 0 for degenerate ones."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), -1)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes [K, 4] with others [M, 4], float64 [K, M]; boxes without area overlap nothing."""
    a, b = (np.asarray(values, np.float64).reshape(-1, 4) for values in (boxes, others))
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = box_area(a)[:, None] + box_area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def warp(image: np.ndarray, matrix: np.ndarray, size: Size, fill: float = 0) -> np.ndarray:
    """Warps an image [H, W, C], uint8 or float32, onto a canvas of `size` (height, width), interpolating bilinearly.

    Pixels from outside the image are `fill`. There is no antialiasing: to shrink by much more than a half, use
    `resample` first.
    """
    half = translation(0.5, 0.5)
    indices = np.linalg.inv(half) @ matrix @ half  # OpenCV's whole numbers are the centres of pixels
    channels = [
        # OpenCV fills with at most four values, hence four channels at once.
        cv2.warpPerspective(part, indices, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(fill,) * 4)
        for part in np.split(image, range(4, image.shape[2], 4), axis=2)
    ]
    return np.concatenate([c.reshape(*size, -1) for c in channels], -1)


def warp_nearest(values: np.ndarray, matrix: np.ndarray | PointMap, size: Size, fill: float = 0) -> np.ndarray:
    """Warps labels or masks [..., H, W] of any type, taking the value at the nearest centre of a pixel."""
    height, width = values.shape[-2:]
    # From each centre of the result back into the input, so that no pixel of the result stays empty.
    if isinstance(matrix, np.ndarray):
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        u, v, w = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    else:
        (u, v), w = matrix.places.reshape(-1, 2).T, 1.0
    with np.errstate(divide='ignore', invalid='ignore'):  # w is 0 on the horizon of a perspective
        u, v = np.floor(u / w), np.floor(v / w)
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    sources = np.where(inside, v * width + u, 0).astype(np.intp)
    warped = values.reshape(*values.shape[:-2], height * width)[..., sources]
    return np.where(inside, warped, np.asarray(fill).astype(values.dtype)).reshape(*values.shape[:-2], *size)


def is_axis_aligned(matrix: np.ndarray) -> bool:
    """Tells whether a matrix only scales, mirrors and translates."""
    return not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]) and matrix[2, 2] == 1


def resample(image: np.ndarray, size: Size, method: str, box: Box | None = None) -> np.ndarray:
    """Resizes an image [H, W, C], uint8 or float32, or the part `box` of it, with antialiasing.

    Args:
      image: the image.
      size: (height, width) of the result; the aspect may change.
      method: nearest, bilinear, bicubic, area or lanczos by Pillow, or 'fast' by OpenCV and without a box: the mean of
        the pixels that are covered if both sides shrink, bilinear otherwise.
      box: [x0, y0, x1, y1]; the filter also reads pixels just outside it.
    """
    height, width = size
    part = (box[0], box[1], box[2], box[3]) if box else None
    # Not a copy: transforms never write into the arrays that they are given.
    if box is None and image.shape[:2] == size:
        return image
    if method == 'fast':
        shrinks = image.shape[0] >= height and image.shape[1] >= width
        # INTER_AREA averages only if both axes shrink; OpenCV has no other antialiasing.
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(image, (width, height), interpolation=interpolation).reshape(height, width, -1)

    def resize(values):
        opened = Image.fromarray(np.ascontiguousarray(values))
        return np.asarray(opened.resize((width, height), METHODS[method], part))

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return resize(image)
    # Pillow has no float images of several channels, and resizes RGBA as colour times alpha.
    return np.stack([resize(image[..., c]) for c in range(image.shape[2])], -1)


def crop_padded(
    image: np.ndarray, top: int, left: int, height: int, width: int, value: float | np.ndarray | tuple[float, ...]
) -> np.ndarray:
    """Returns the window [height, width] at (top, left), where what lies outside of the image is `value`."""
    if top >= 0 and left >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    out = np.full((height, width, *image.shape[2:]), value, image.dtype)
    visible = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    y, x = max(-top, 0), max(-left, 0)  # where the visible part begins in the window
    out[y : y + visible.shape[0], x : x + visible.shape[1]] = visible
    return out


def crop_batch(
    images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, height: int, width: int, value: float
) -> np.ndarray:
    """Returns `crop_padded` of each image of a batch [B, H, W, ...], at tops [B] and lefts [B]."""
    count, channels = len(images), images.shape[3:]
    spare = tuple(images.shape[1 + axis] - size for axis, size in enumerate((height, width)))
    before = [max(-int(starts.min()), 0) for starts in (tops, lefts)]
    after = [max(int(starts.max()) - room, 0) for starts, room in zip((tops, lefts), spare, strict=True)]
    if any(before + after):
        padded_size = [n + b + a for n, b, a in zip(images.shape[1:3], before, after, strict=True)]
        padded = np.full((count, *padded_size, *channels), value, images.dtype)
        padded[:, before[0] : before[0] + images.shape[1], before[1] : before[1] + images.shape[2]] = images
        images = padded
    # Pixels of a row are in one axis, so that whole rows are copied.
    depth = math.prod(channels)
    rows = images.reshape(count, images.shape[1], images.shape[2] * depth)
    windows = np.lib.stride_tricks.sliding_window_view(rows, (height, width * depth), axis=(1, 2))
    parts = windows[np.arange(count), tops + before[0], (lefts + before[1]) * depth]
    return parts.reshape(count, height, width, *channels)


def check_method(method: str, what: str, others: tuple[str, ...] = ()) -> None:
    """Raises UsageError unless `method` is one of `METHODS` or `others`."""
    if method not in METHODS and method not in others:
        raise UsageError(f'{what}: no method is called {method!r}; there are {", ".join((*others, *METHODS))}')


# --- examples --------------------------------------------------------------------------------------------------------


def transform_fields(
    example: Example,
    field: str,
    image: np.ndarray,
    matrix: np.ndarray | PointMap,
    along: SpatialFields,
    before: Size | None = None,
    place: bool = False,
) -> Example:
    """Replaces the image of an example by a transformed one, and transforms the fields that go with it.

    A field 'placement', float32 [4], is composed with the matrix: (scale_x, scale_y, shift_x, shift_y) with x' =
    scale_x x + shift_x from pixels of the original image to those of the example's. Predictions are mapped back by it.
    It becomes NaN where a matrix does more than scale and shift, and where an image had changed its size before it was
    placed, so that no wrong place is computed from it.

    Args:
      example: an example whose field `field` is the image as it was.
      field: of the image.
      image: the transformed image.
      matrix: what maps the old image to the new one, or a map of points that is not linear.
      along: the fields of boxes and masks.
      before: the old image's size, if the example does not hold it decoded.
      place: adds 'placement' to an example that has boxes or 'original_size', with the identity before `matrix`. Only
        transforms that apply to every example may: fields must be the same in all rows of a batch.

    Raises:
      CanonError: boxes are not [K, 4], masks do not fit the image, or fields per box have another length.
    """
    out = {**example, field: image}
    if PLACEMENT in example or (place and (along.boxes in example or 'original_size' in example)):
        old = find_placement(example, before or example[field].shape[:2])
        out[PLACEMENT] = _compose_placement(old, matrix)
    if along.boxes in example:
        _transform_box_fields(out, matrix, image.shape[:2], along)
    if along.proposals in example:
        proposals, inside = _move_boxes(out, along.proposals, matrix, image.shape[:2])
        out[along.proposals] = proposals[inside]
    if along.masks in out or along.segmentation in out:
        _transform_mask_fields(out, before or example[field].shape[:2], matrix, image.shape[:2], along)
    return out


def is_image_alone(example: Mapping[str, Any], along: SpatialFields) -> bool:
    """Whether `transform_fields` would replace the image only: no field goes along with it."""
    return not {along.boxes, along.proposals, along.masks, along.segmentation, PLACEMENT} & example.keys()


def find_placement(example: Example, size: Size) -> np.ndarray:
    """Returns the 'placement' of an example whose image has the given size, the identity if it has none yet.

    NaN if it has none and the size is not its 'original_size': a random crop, which places nothing, went before.
    """
    if PLACEMENT in example:
        return example[PLACEMENT]
    unchanged = tuple(np.asarray(example.get('original_size', size)).tolist()) == tuple(size)
    return np.array((1, 1, 0, 0) if unchanged else (np.nan,) * 4, np.float32)


def _compose_placement(placement: np.ndarray, matrix: np.ndarray | PointMap) -> np.ndarray:
    if not isinstance(matrix, np.ndarray) or not is_axis_aligned(matrix) or (np.diagonal(matrix)[:2] <= 0).any():
        return np.full(4, np.nan, np.float32)
    scale = np.diagonal(matrix)[:2]
    old = np.asarray(placement, np.float64)
    return np.concatenate([scale * old[:2], scale * old[2:] + matrix[:2, 2]]).astype(np.float32)


def keep_boxes(example: Example, kept: np.ndarray, along: SpatialFields) -> Example:
    """Returns the example with the boxes where `kept`, bool [K], is true, and their rows of masks and fields."""
    names = [name for name in (along.boxes, along.masks, *along.per_box) if name in example]
    return {**example, **{name: np.asarray(example[name])[kept] for name in names}}


def _transform_box_fields(out, matrix, size, along):
    moved, keep = _move_boxes(out, along.boxes, matrix, size, along.min_visible)
    out[along.boxes] = moved[keep]
    for name in (along.masks, *along.per_box):
        if name in out:
            values = np.asarray(out[name])
            if len(values) != len(moved):
                raise CanonError(f'field {name!r} has {len(values)} rows for {len(moved)} boxes')
            out[name] = values[keep]


def _move_boxes(example, name, matrix, size, min_visible=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the clipped boxes of a field, float32 [K, 4], and which of them are visible enough, bool [K]."""
    boxes = np.asarray(example[name])
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise CanonError(f'field {name!r} has the shape {boxes.shape}; boxes are [K, 4], x0 y0 x1 y1 in pixels')
    mapped = transform_boxes(boxes, matrix)
    clipped = clip_boxes(mapped, size)
    visible = box_area(clipped)
    keep = (visible > 0) & (visible >= min_visible * box_area(mapped))  # an unclipped box has the same area
    return clipped.astype(np.float32), keep


def _transform_mask_fields(out, before, matrix, size, along):
    for name in (along.masks, along.segmentation):
        if name not in out:
            continue
        values = np.asarray(out[name])
        planes = values[..., 0] if name == along.segmentation and values.ndim == 3 else values
        if planes.shape[-2:] != before or planes.ndim != (3 if name == along.masks else 2):
            form = '[K, H, W]' if name == along.masks else '[H, W] or [H, W, 1]'
            raise CanonError(
                f'field {name!r} has the shape {values.shape}; {form} of an image of {before} was expected'
            )
        fill = along.void if name == along.segmentation and values.dtype != bool else 0
        warped = warp_nearest(planes, matrix, size, fill)
        out[name] = warped[..., None] if planes is not values else warped


def get_pixels(
    example: Example, field: str, key: Key, what: str, channels: tuple[int, ...] | None = None
) -> np.ndarray:
    """Returns the image [H, W, C] of an example, uint8 or float32.

    Args:
      example: an example.
      field: of the image.
      key: of the example, for errors.
      what: the transform, for errors.
      channels: numbers of channels that the transform takes; None takes any.

    Raises:
      CanonError: the field is something else; names the example.
    """
    image = example[field]
    if image.dtype not in (np.uint8, np.float32):
        raise CanonError(f'{what} takes uint8 or float32, example {key.id} has {field!r} of {image.dtype}')
    if image.ndim != 3 or 0 in image.shape:
        raise CanonError(f'{what} takes images [H, W, C], example {key.id} has {field!r} of shape {image.shape}')
    if channels is not None and image.shape[2] not in channels:
        expected = ' or '.join(map(str, channels))
        raise CanonError(
            f'{what} takes images of {expected} channels, example {key.id} has {field!r} of {image.shape[2]}'
        )
    return image


# --- sizes and windows -----------------------------------------------------------------------------------------------


def parse_size(size: Any, what: str) -> Size:
    """Returns (height, width) of a config's `size`: one positive integer, or two."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
        raise UsageError(f'{what}: size={size!r} is neither a positive integer nor (height, width)')
    return sides


def check_side(size: Any, what: str, key: str = 'size') -> None:
    """Raises UsageError unless `size` is a positive integer."""
    if not isinstance(size, int) or size < 1:
        raise UsageError(f'{what}: {key}={size!r} is not a positive integer')


def check_fits(size: Size, image: np.ndarray, key: Key, padding: int = 0) -> None:
    """Raises CanonError if a window of `size` is larger than the image with its padding."""
    if any(side > available + 2 * padding for side, available in zip(size, image.shape[:2], strict=True)):
        sizes = f'{size[0]}x{size[1]}: example {key.id} is smaller, {image.shape[0]}x{image.shape[1]}'
        raise CanonError(f'crop of {sizes}; resize or pad it')


def scale_short_side(shape: Size, size: int, longest: int | None = None) -> Size:
    """Returns `shape` (height, width) scaled so that its shorter side is `size`; the longer one is rounded down.

    If the longer one would exceed `longest`, it is `longest`, and the shorter one is smaller (rounded as torchvision
    does it: from the longer side as already rounded).
    """
    short, long = min(shape), max(shape)
    short, long = size, long * size // short
    if longest is not None and long > longest:
        short, long = max(longest * short // long, 1), longest
    return (short, long) if shape[0] <= shape[1] else (long, short)


def draw_crop_box(
    generator: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, ...]:
    """Draws the box [x0, y0, x1, y1] of `transforms.random_resized_crop`.

    Args:
      generator: draws ten candidates, whether they are needed or not.
      height: of the image.
      width: of the image.
      scale: bounds of the share of the image's area.
      ratio: bounds of the aspect, width to height.
    """
    for share, log_ratio, down, right in generator.random((10, 4)):
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(math.log(ratio[0]) + log_ratio * math.log(ratio[1] / ratio[0]))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(right * (width - w + 1)), int(down * (height - h + 1))
            return x, y, x + w, y + h
    # None of ten fits: the largest centred box within `ratio`, as torchvision falls back to.
    w = min(width, max(round(height * ratio[1]), 1))
    h = min(height, max(round(width / ratio[0]), 1))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h
