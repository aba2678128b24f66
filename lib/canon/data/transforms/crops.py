"""Several views of one image for a test: a new first axis [V, H, W, C], over which predictions are averaged.

All are deterministic. Boxes and masks have no place in them and are refused.
"""

from collections.abc import Sequence

import numpy as np

from canon.data.images import geometry
from canon.data.pipeline.chain import Transform
from canon.errors import CanonError, UsageError


def ten_crop(size: int | tuple[int, int], field: str = 'image') -> Transform:
    """[10, height, width, C]: upper left, upper right, lower left, lower right, middle; then the same mirrored.

    AlexNet's test (Krizhevsky et al. 2012, section 4.1): `resize_short(256)`, then `ten_crop(224)` of the whole or of
    its `center_crop(256)`. Raises CanonError, when applied, for an image smaller than `size`.
    """
    size = geometry.pair(size, 'ten_crop')

    def views(image, key):
        geometry.check_fits(size, image, key)
        return _mirrored(_five(image, size))

    return _views(views, 'ten_crop', field)


def grid_crops(
    size: int = 224,
    grid: int = 5,
    scales: Sequence[int] = (256, 384, 512),
    method: str = 'bilinear',
    field: str = 'image',
) -> Transform:
    """[len(scales) * grid**2 * 2, size, size, C]: a regular grid of windows at each short side in `scales`, mirrored.

    VGG's multi-crop test (Simonyan and Zisserman 2015, sections 3.2 and 4.3): 5x5 windows, two flips, three scales,
    150 views. Per scale come the windows row by row, then the same mirrored.
    """
    _check(size, scales, method, 'grid_crops')
    if grid < 1:
        raise UsageError(f'grid_crops: grid={grid} is not positive')

    def views(image, key):
        return [view for scale in scales for view in _mirrored(_grid(_short(image, scale, method), size, grid))]

    return _views(views, 'grid_crops', field)


def googlenet_crops(
    size: int = 224, scales: Sequence[int] = (256, 288, 320, 352), method: str = 'bilinear', field: str = 'image'
) -> Transform:
    """[len(scales) * 36, size, size, C]: GoogLeNet's 144 views (Szegedy et al. 2015, section 7).

    At each short side in `scales` the left, middle and right square (upper, middle and lower of an upright image); of
    each square the four corners and the middle of `size`, and the whole square resized to it; then these six mirrored.
    """
    _check(size, scales, method, 'googlenet_crops')

    def views(image, key):
        found = []
        for scale in scales:
            for square in _squares(_short(image, scale, method)):
                whole = geometry.resample(square, (size, size), method)
                found += _mirrored([*_five(square, (size, size)), whole])
        return found

    return _views(views, 'googlenet_crops', field)


def _views(views, what, field):
    along = geometry.Along()

    def apply(example, key):
        for name in (along.boxes, along.masks, along.segmentation):
            if name in example:
                raise CanonError(f'{what}: {name!r} of example {key.id} cannot follow; drop it by keep_fields')
        return {**example, field: np.stack(views(geometry.pixels(example, field, key, what), key))}

    return Transform(apply)


def _five(image, size):
    height, width = size
    down, right = image.shape[0] - height, image.shape[1] - width
    places = ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2))
    return [image[top : top + height, left : left + width] for top, left in places]


def _grid(image, size, grid):
    tops, lefts = (np.rint(np.linspace(0, side - size, grid)).astype(int) for side in image.shape[:2])
    return [image[top : top + size, left : left + size] for top in tops for left in lefts]


def _squares(image):
    side, spare = min(image.shape[:2]), max(image.shape[:2]) - min(image.shape[:2])
    upright = image.shape[0] > image.shape[1]
    for start in (0, spare // 2, spare):
        yield image[start : start + side] if upright else image[:, start : start + side]


def _mirrored(views):
    return [*views, *(view[:, ::-1] for view in views)]


def _short(image, scale, method):
    return geometry.resample(image, geometry.short_side(image.shape[:2], scale), method)


def _check(size, scales, method, what):
    geometry.check_method(method, what)
    if not isinstance(size, int) or size < 1 or not scales or min(scales) < size:
        raise UsageError(f'{what}: size={size!r} must be positive and fit into the scales {tuple(scales)}')
