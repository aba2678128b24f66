"""Anchors of region proposal networks: Ren et al. 2015, "Faster R-CNN", section 3.1.1.

An aspect ratio is height / width here, as in the code of the paper and in torchvision (in SSD's priors it is width /
height). The order of the anchors at a place is by aspect ratio, then by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from canon.errors import UsageError
from canon.ops.padding import pair

FORMS = ('exact', 'rounded', 'torchvision')


def make_anchors(
    grid: tuple[int, int],
    stride: int | Sequence[int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    form: str = 'exact',
) -> np.ndarray:
    """Computes the anchors of one feature map, corner boxes in pixels at pixel edges, by row, column and shape.

    Args:
      grid: (rows, columns) of the map.
      stride: pixels between neighbouring places, one number or (y, x).
      sizes: square roots of the areas, in pixels: (128, 256, 512) in the paper.
      aspect_ratios: heights over widths.
      form: 'exact' centres anchors of width size / sqrt(r) and height size sqrt(r) on the cells of the grid.
        'rounded' is py-faster-rcnn's table: the anchors of a square of the stride's size are rounded to whole pixels,
        then multiplied by size / stride. The table prints pixels from 1, both ends inclusive: its (-83, -39, 100, 56)
        is the box [-84, -40, 100, 56] between pixel edges. 'torchvision' rounds the corners to whole pixels, and
        centres the anchors on the upper left corner of the cells.

    Returns:
      float32 [rows * columns * len(aspect_ratios) * len(sizes), 4]; anchors may reach beyond the image.

    Raises:
      UsageError: the form is unknown, or a size, stride or aspect ratio is not positive.
    """
    if form not in FORMS:
        raise UsageError(f"anchors have form 'exact', 'rounded' or 'torchvision', not {form!r}")
    strides = pair(stride, 'stride')
    if min(*strides, *sizes, *aspect_ratios, 1) <= 0:
        raise UsageError(
            f'sizes, strides and aspect ratios of anchors must be positive: {sizes}, {stride}, {aspect_ratios}'
        )
    if form == 'rounded' and strides[0] != strides[1]:
        raise UsageError(f"anchors of form 'rounded' need one stride for both axes, not {strides}")
    half = _half_sizes(strides[0], sizes, aspect_ratios, form)  # [shapes, 2] of (x, y)
    first = 0.0 if form == 'torchvision' else 0.5
    y, x = ((np.arange(n) + first) * s for n, s in zip(grid, strides, strict=True))
    centres = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), -1)
    boxes = np.concatenate([centres - half, centres + half], -1)
    return boxes.reshape(-1, 4).astype(np.float32)


def make_anchor_levels(
    grids: Sequence[tuple[int, int]],
    strides: Sequence[int | Sequence[int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    form: str = 'exact',
) -> list[np.ndarray]:
    """Computes the anchors of each level of a pyramid, with the sizes of its own: Lin et al. 2017, section 4.1.

    Args:
      grids: (rows, columns) per level.
      strides: per level.
      sizes: per level; ((32,), (64,), (128,), (256,), (512,)) in the paper.
      aspect_ratios: of all levels.
      form: see `make_anchors`.

    Returns:
      One array float32 [A_l, 4] per level.

    Raises:
      UsageError: the numbers of levels differ; and what `make_anchors` refuses.
    """
    if not len(grids) == len(strides) == len(sizes):
        raise UsageError(f'{len(grids)} grids, {len(strides)} strides and {len(sizes)} sizes of anchors: one per level')
    return [
        make_anchors(grid, stride, size, aspect_ratios, form)
        for grid, stride, size in zip(grids, strides, sizes, strict=True)
    ]


def find_inside(anchors: np.ndarray, extents: Any) -> Any:
    """Finds the anchors that lie within their image; others are not trained on (Ren et al. 2015, section 3.3).

    Args:
      anchors: [A, 4].
      extents: where the image lies on its canvas: a box [4], or one per image [B, 4], of NumPy or JAX.

    Returns:
      bool [A], or [B, A].
    """
    x0, y0, x1, y1 = (extents[..., i, None] for i in range(4))
    return (anchors[:, 0] >= x0) & (anchors[:, 1] >= y0) & (anchors[:, 2] <= x1) & (anchors[:, 3] <= y1)


def _half_sizes(stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float], form: str) -> np.ndarray:
    """Returns half the (width, height) of each shape, by aspect ratio and then by size."""
    if form == 'rounded':
        widths = np.round(np.sqrt(stride**2 / np.asarray(aspect_ratios, float)))
        heights = np.round(widths * aspect_ratios)
        shapes = np.stack([widths, heights], -1)[:, None] * (np.asarray(sizes, float) / stride)[:, None]
        return shapes.reshape(-1, 2) / 2
    # torchvision computes in float32; halves are rounded to even by both libraries.
    dtype = np.float32 if form == 'torchvision' else np.float64
    roots = np.sqrt(np.asarray(aspect_ratios, dtype))
    shapes = np.stack([1 / roots, roots], -1)[:, None] * np.asarray(sizes, dtype)[:, None]
    half = shapes.reshape(-1, 2) / 2
    return np.round(half) if form == 'torchvision' else half
