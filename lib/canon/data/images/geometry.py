"""Where the pixels of an image go, and with them its boxes and masks: one 3x3 matrix an example.

Coordinates are (x, y) in pixels, x to the right and y down, with (0, 0) the upper left *corner* of the image: the
centre of the first pixel is (0.5, 0.5), and the box of the whole image is [0, 0, W, H]. A matrix maps points of the
image as it was to points of the image as it will be, in homogeneous coordinates: (x', y', w') = M (x, y, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

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


Box = tuple[float, ...]  # x0, y0, x1, y1
Size = tuple[int, int]  # height, width


class Along(NamedTuple):
    """Which fields move along with the image, where the example has them.

    boxes: float [K, 4] of [x0, y0, x1, y1] in pixels; becomes float32, clipped to the image.
    masks: [K, H, W], one a box; what comes in from outside is 0. segmentation: [H, W] or [H, W, 1], a class a pixel;
    what comes in is `void` (false where it is boolean).
    per_box: fields [K, ...]. A box of which less than the share `min_visible` of its moved area is inside the image is
    dropped, together with its row of `masks` and of these; with 0, those that are outside altogether, and with 1 those
    that are not wholly inside.
    """

    boxes: str = 'boxes'
    masks: str = 'masks'
    segmentation: str = 'segmentation'
    per_box: tuple[str, ...] = ('labels',)
    void: int = 255
    min_visible: named.Probability = 0.0

    @classmethod
    def of(cls, spec: Along | Mapping[str, Any] | None, where: str) -> Along:
        """From a config's dict. Raises UsageError for a key that is none."""
        if isinstance(spec, Along):
            return spec
        arguments = named.to_plain(spec or {})
        if isinstance(arguments.get('per_box'), str):
            arguments['per_box'] = (arguments['per_box'],)
        return named.call(cls, arguments, f'{where}.along')


# --- matrices --------------------------------------------------------------------------------------------------------


def translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> np.ndarray:
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float) -> np.ndarray:
    """About the origin, counter-clockwise as one sees it."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float64)


def shearing(x: float, y: float) -> np.ndarray:
    """x' = x + a y, y' = y + b x."""
    return np.array([[1, x, 0], [y, 1, 0], [0, 0, 1]], np.float64)


def about(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """`matrix` with (x, y) as its origin."""
    return translation(x, y) @ matrix @ translation(-x, -y)


def flipping(width: int) -> np.ndarray:
    """Left and right exchanged."""
    return np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], np.float64)


def quadrilateral(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The perspective that takes four points [4, 2] to four others, no three of either on a line."""
    rows = []
    for (x, y), (u, v) in zip(before, after, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution = np.linalg.solve(np.array(rows, np.float64), np.asarray(after, np.float64).ravel())
    return np.append(solution, 1).reshape(3, 3)


def window(box: Box, size: Size) -> np.ndarray:
    """The part [x0, y0, x1, y1] of the image, stretched to `size` (height, width)."""
    x0, y0, x1, y1 = box
    return scaling(size[1] / (x1 - x0), size[0] / (y1 - y0)) @ translation(-x0, -y0)


# --- what they do ----------------------------------------------------------------------------------------------------


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[..., 2] -> [..., 2], float64."""
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return moved[..., :2] / moved[..., 2:]


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The boxes around the moved corners of `boxes` [K, 4], float64, not clipped."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners = move_points(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2), matrix)
    return np.concatenate([corners.min(1), corners.max(1)], -1)


def clip_boxes(boxes: np.ndarray, size: Size) -> np.ndarray:
    """`boxes` [K, 4] within an image of `size` (height, width)."""
    height, width = size
    return np.clip(boxes, 0, [width, height, width, height])


def area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), -1)


def warp(image: np.ndarray, matrix: np.ndarray, size: Size, fill: float = 0) -> np.ndarray:
    """The moved image [H, W, C], uint8 or float32, on a canvas of `size` (height, width), interpolated bilinearly.

    Outside it is `fill`. Not antialiased: shrink by much more than a half with `resample` before.
    """
    half = translation(0.5, 0.5)
    indices = np.linalg.inv(half) @ matrix @ half  # OpenCV's whole numbers are the centres of pixels
    channels = [
        cv2.warpPerspective(part, indices, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(fill,) * 4)
        for part in np.split(image, range(4, image.shape[2], 4), axis=2)
    ]
    return np.concatenate([c.reshape(*size, -1) for c in channels], -1)


def warp_nearest(values: np.ndarray, matrix: np.ndarray, size: Size, fill: float = 0) -> np.ndarray:
    """The same for values that cannot be mixed, [..., H, W] of any type: each takes that of the nearest centre."""
    height, width = values.shape[-2:]
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    back = np.linalg.inv(matrix)
    u, v, w = back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide='ignore', invalid='ignore'):
        u, v = np.floor(u / w), np.floor(v / w)
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    places = np.where(inside, v * width + u, 0).astype(np.intp)
    moved = values.reshape(*values.shape[:-2], height * width)[..., places]
    return np.where(inside, moved, np.asarray(fill).astype(values.dtype)).reshape(*values.shape[:-2], *size)


def resample(image: np.ndarray, size: Size, method: str, box: Box | None = None) -> np.ndarray:
    """An image [H, W, C], uint8 or float32, or the part `box` of it, stretched to `size` (height, width), antialiased.

    method: 'fast', by OpenCV and without a box: the mean of the pixels that are covered where both sides shrink, else
    bilinear; or nearest, bilinear, bicubic, area, lanczos by Pillow, which looks beyond the border of a box.
    """
    height, width = size
    part = (box[0], box[1], box[2], box[3]) if box else None
    if box is None and image.shape[:2] == size:
        return image
    if method == 'fast':
        shrinks = image.shape[0] >= height and image.shape[1] >= width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(image, (width, height), interpolation=how).reshape(height, width, -1)

    def channel(values):
        whole = Image.fromarray(np.ascontiguousarray(values))
        return np.asarray(whole.resize((width, height), METHODS[method], part))

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return channel(image)
    return np.stack([channel(image[..., c]) for c in range(image.shape[2])], -1)


def check_method(method: str, what: str, others: tuple[str, ...] = ()) -> None:
    if method not in METHODS and method not in others:
        raise UsageError(f'{what}: no method is called {method!r}; there are {", ".join((*others, *METHODS))}')


# --- examples --------------------------------------------------------------------------------------------------------


def carry(
    example: Example, field: str, image: np.ndarray, matrix: np.ndarray, along: Along, before: Size | None = None
) -> Example:
    """`example` with its moved `image`, and the fields of `along` moved to it by `matrix`.

    before: the image's size until now, where the example does not hold it decoded.
    Raises CanonError for boxes that are not [K, 4], masks that do not fit the image, fields per box of another length.
    """
    out = {**example, field: image}
    if along.boxes in example:
        _carry_boxes(out, matrix, image.shape[:2], along)
    if along.masks in out or along.segmentation in out:
        _carry_masks(out, before or example[field].shape[:2], matrix, image.shape[:2], along)
    return out


def _carry_boxes(out, matrix, size, along):
    boxes = np.asarray(out[along.boxes])
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise CanonError(f'field {along.boxes!r} has the shape {boxes.shape}; boxes are [K, 4], x0 y0 x1 y1 in pixels')
    moved = move_boxes(boxes, matrix)
    clipped = clip_boxes(moved, size)
    inside = area(clipped)
    kept = (inside > 0) & (inside >= along.min_visible * area(moved))  # a box that is not clipped has the same area
    out[along.boxes] = clipped[kept].astype(np.float32)
    for name in (along.masks, *along.per_box):
        if name in out:
            values = np.asarray(out[name])
            if len(values) != len(boxes):
                raise CanonError(f'field {name!r} has {len(values)} rows for {len(boxes)} boxes')
            out[name] = values[kept]


def _carry_masks(out, before, matrix, size, along):
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
        moved = warp_nearest(planes, matrix, size, fill)
        out[name] = moved[..., None] if planes is not values else moved


def pixels(example: Example, field: str, key: Key, what: str) -> np.ndarray:
    """The image, [H, W, C] of uint8 or float32; raises CanonError naming the example where it is something else."""
    image = example[field]
    if image.dtype not in (np.uint8, np.float32):
        raise CanonError(f'{what} takes uint8 or float32, example {key.id} has {field!r} of {image.dtype}')
    if image.ndim != 3 or 0 in image.shape:
        raise CanonError(f'{what} takes images [H, W, C], example {key.id} has {field!r} of shape {image.shape}')
    return image


# --- windows ---------------------------------------------------------------------------------------------------------


def pair(size: Any, what: str) -> Size:
    """(height, width) of a config's `size`, one number or two."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(s, int) and s > 0 for s in both):
        raise UsageError(f'{what}: size={size!r} is neither a positive integer nor (height, width)')
    return both


def check_fits(size: Size, image: np.ndarray, key: Key, padding: int = 0) -> None:
    """Raises CanonError where a window of `size` is larger than the image with its padding."""
    if any(side > shown + 2 * padding for side, shown in zip(size, image.shape[:2], strict=True)):
        told = f'{size[0]}x{size[1]}: example {key.id} is smaller, {image.shape[0]}x{image.shape[1]}'
        raise CanonError(f'crop of {told}; resize or pad it')


def short_side(shape: Size, size: int) -> Size:
    """`shape` (height, width) in proportion, with `size` as the shorter side and the longer one rounded down."""
    height, width = shape
    return (size, width * size // height) if height <= width else (height * size // width, size)


def inception_window(
    generator: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, ...]:
    """[x0, y0, x1, y1] of `transforms.random_resized_crop`."""
    for share, log_ratio, down, right in generator.random((10, 4)):
        covered = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(math.log(ratio[0]) + log_ratio * math.log(ratio[1] / ratio[0]))
        w, h = round(math.sqrt(covered * aspect)), round(math.sqrt(covered / aspect))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(right * (width - w + 1)), int(down * (height - h + 1))
            return x, y, x + w, y + h
    w = min(width, max(round(height * ratio[1]), 1))
    h = min(height, max(round(width / ratio[0]), 1))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h
