"""Several crops of one image for testing: a new first axis [V, H, W, C], over which predictions are averaged.

All are deterministic. Boxes and masks cannot follow and are refused.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from canon.data.images import geometry
from canon.data.pipeline.chain import Transform
from canon.errors import CanonError, UsageError


def ten_crop(size: int | tuple[int, int], field: str = 'image') -> Transform:
    """Takes the four corners and the centre of `size` (height, width), then the same five mirrored: [10, H, W, C].

    The order is upper left, upper right, lower left, lower right, centre. AlexNet's test (Krizhevsky et al. 2012,
    section 4.1) is `resize_short(256)`, then `ten_crop(224)` of the whole image or of its `center_crop(256)`.
    Raises CanonError, when applied, for an image smaller than `size`.

    Args:
      size: one number for a square, or (height, width).
      field: of the image.
    """
    size = geometry.parse_size(size, 'ten_crop')

    def crop(image, key):
        geometry.check_fits(size, image, key)
        return _add_mirror_images(_corners_and_centre(image, size))

    return _make_transform(crop, 'ten_crop', field)


def grid_crops(
    size: int = 224,
    grid: int = 5,
    scales: Sequence[int] = (256, 384, 512),
    method: str = 'bilinear',
    field: str = 'image',
) -> Transform:
    """Takes a regular grid of windows at several scales, and the same mirrored: VGG's 150 crops.

    Simonyan and Zisserman 2015, sections 3.2 and 4.3: 5x5 windows, two flips, three scales. The result is
    [len(scales) * grid^2 * 2, size, size, C]; per scale come the windows row by row, then the same mirrored.

    Args:
      size: side of a window, in pixels.
      grid: windows per axis.
      scales: short sides to which the image is resized.
      method: of resizing, as in `resize`.
      field: of the image.
    """
    _check_scales(size, scales, method, 'grid_crops')
    geometry.check_side(grid, 'grid_crops', 'grid')

    def crop(image, key):
        # Each scale from the original, not from the next larger one, which would blur twice.
        resized = [_resize_short(image, scale, method) for scale in scales]
        return [view for scaled in resized for view in _add_mirror_images(_grid_windows(scaled, size, grid))]

    return _make_transform(crop, 'grid_crops', field)


def googlenet_crops(
    size: int = 224, scales: Sequence[int] = (256, 288, 320, 352), method: str = 'bilinear', field: str = 'image'
) -> Transform:
    """Takes three squares at several scales, and six crops of each with their mirror images: GoogLeNet's 144 crops.

    Szegedy et al. 2015, section 7. At each short side in `scales` it takes the left, middle and right square (upper,
    middle and lower of an upright image); of each square the four corners and the centre of `size`, and the whole
    square resized to it; then these six mirrored. The result is [len(scales) * 36, size, size, C].
    """
    _check_scales(size, scales, method, 'googlenet_crops')

    def crop(image, key):
        views = []
        for scale in scales:
            # Three squares, six views of each, two mirror images: 36 per scale, 144 for the four of the paper.
            for square in _squares(_resize_short(image, scale, method)):
                resized = geometry.resample(square, (size, size), method)
                views += _add_mirror_images([*_corners_and_centre(square, (size, size)), resized])
        return views

    return _make_transform(crop, 'googlenet_crops', field)


def _make_transform(crop: Callable[..., list[np.ndarray]], what: str, field: str) -> Transform:
    fields = geometry.SpatialFields()

    def apply(example, key):
        for name in (fields.boxes, fields.masks, fields.segmentation):
            if name in example:
                raise CanonError(f'{what}: {name!r} of example {key.id} cannot follow; drop it by keep_fields')
        return {**example, field: np.stack(crop(geometry.get_pixels(example, field, key, what), key))}

    return Transform(apply)


def _corners_and_centre(image, size) -> list[np.ndarray]:
    height, width = size
    down, right = image.shape[0] - height, image.shape[1] - width
    # The order that `ten_crop` documents; the centre is rounded up and left.
    places = ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2))
    return [image[top : top + height, left : left + width] for top, left in places]


def _grid_windows(image, size, grid) -> list[np.ndarray]:
    # Evenly spaced from border to border, so windows of a small image overlap.
    tops, lefts = (np.rint(np.linspace(0, side - size, grid)).astype(int) for side in image.shape[:2])
    return [image[top : top + size, left : left + size] for top in tops for left in lefts]


def _squares(image) -> Iterator[np.ndarray]:
    side, spare = min(image.shape[:2]), max(image.shape[:2]) - min(image.shape[:2])
    upright = image.shape[0] > image.shape[1]
    for start in (0, spare // 2, spare):  # thrice the same if the image is square
        yield image[start : start + side] if upright else image[:, start : start + side]


def _add_mirror_images(views) -> list[np.ndarray]:
    return [*views, *(view[:, ::-1] for view in views)]


def _resize_short(image, scale, method) -> np.ndarray:
    return geometry.resample(image, geometry.scale_short_side(image.shape[:2], scale), method)


def _check_scales(size: Any, scales: Sequence[int], method: str, what: str) -> None:
    geometry.check_method(method, what)
    geometry.check_side(size, what)
    if not scales or min(scales) < size:
        raise UsageError(f'{what}: size={size!r} must fit into the scales {tuple(scales)}')
