"""Transforms of images of text."""

import math
from typing import Literal

import numpy as np

from canon import named
from canon.data.images import geometry
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.data.text.line_sizes import fitted_widths
from canon.errors import UsageError


def fit_line(
    size: int | tuple[int, int],
    method: str = 'bilinear',
    fill: Literal['edge'] | float = 'edge',
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Scales a word or a line to a height with its aspect kept, and pads it at the right to `size` (height, width).

    An image that would be wider is squeezed to the width; buckets of several widths avoid that
    (`canon.data.text.line_sizes`).

    Args:
      size: (height, width) of the result.
      method: nearest, bilinear, bicubic, area or lanczos, by Pillow.
      fill: 'edge' repeats the last column, as deep-text-recognition-benchmark does; or the level of the padding.
      field: of the image.
      along: fields to transform along with it.
    """
    (height, width), along = geometry.parse_size(size, 'fit_line'), SpatialFields.parse(along, 'fit_line')
    geometry.check_method(method, 'fit_line')
    if isinstance(fill, str) and fill != 'edge':
        raise UsageError(f"fit_line: fill={fill!r} is neither 'edge' nor a number")

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'fit_line')
        fitted = min(int(fitted_widths(np.array([image.shape[:2]]), height)[0]), width)
        scaled = geometry.resample(image, (height, fitted), method)
        padding = ((0, 0), (0, width - fitted), (0, 0))
        if fill == 'edge':
            padded = np.pad(scaled, padding, mode='edge')
        else:
            padded = np.pad(scaled, padding, constant_values=fill)
        matrix = geometry.box_to_canvas((0, 0, image.shape[1], image.shape[0]), (height, fitted))
        return geometry.transform_fields(example, field, padded, matrix, along, place=True)

    return Transform(apply)


def random_slant(
    shear: named.NonNegative = 0.4,
    fill: float = 255,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Slants a line of handwriting to the right or to the left, on a canvas that is as much wider.

    With s uniform in [-`shear`, `shear`] the upper border moves by s H against the lower one, and nothing is cut off,
    as it would be on the canvas of `random_affine`. Before `fit_line`, which scales what has become too wide.

    Args:
      shear: bound of the tangent of the angle.
      fill: level of the new corners: 255 for white paper.
      p: probability of slanting.
      field: of the image.
      along: fields to transform along with it.
    """
    along = SpatialFields.parse(along, 'random_slant')

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'random_slant'), borrowed_rng(key)
        # Both are drawn in any case, so that p does not change the angles.
        use, slant = generator.random(), generator.uniform(-shear, shear)
        if use >= p:
            return example
        height, width = image.shape[:2]
        matrix = geometry.translation(max(slant, 0.0) * height, 0) @ geometry.shearing(-slant, 0)
        size = height, width + math.ceil(abs(slant) * height)
        return geometry.transform_fields(example, field, geometry.warp(image, matrix, size, fill), matrix, along)

    return Transform(apply, random=True)
