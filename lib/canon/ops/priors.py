"""Prior boxes (default boxes, anchors) of SSD: Liu et al. 2016, section 2.2, "Choosing scales and aspect ratios"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from canon.errors import UsageError


class PriorLevel(NamedTuple):
    """The priors of one feature map.

    Attributes:
      grid: (rows, columns) of the map.
      stride: pixels (y, x) between the centres of neighbouring places; the first centre is at half of it.
      size: side of the square prior, in pixels.
      next_size: side for the next map; a second square has the geometric mean of both. None leaves it out.
      aspect_ratios: each adds the priors of that ratio and of its inverse, with the area of the first square.
    """

    grid: tuple[int, int]
    stride: tuple[float, float]
    size: float
    next_size: float | None
    aspect_ratios: tuple[float, ...] = (2.0,)

    @property
    def per_place(self) -> int:
        """The number of priors at each place of the map."""
        return 1 + (self.next_size is not None) + 2 * len(self.aspect_ratios)


def make_priors(
    levels: Sequence[PriorLevel], size: tuple[int, int] | None = None, clip: str | None = None
) -> np.ndarray:
    """Computes prior boxes, float32 [A, 4], corner boxes in pixels, by level, row, column and then shape.

    The shapes of a place are, in order, the square of `size`, the square of sqrt(size next_size), then for each aspect
    ratio r the box size sqrt(r) wide and size / sqrt(r) high, and the same on its side, as in the authors' code.

    Args:
      levels: of the feature maps, in the order of the detector's outputs.
      size: (height, width) of the image, for `clip`.
      clip: None keeps boxes that reach beyond the image, as the paper's models do; 'sizes' bounds widths and heights by
        the image's (torchvision); 'corners' bounds the corners.

    Raises:
      UsageError: `clip` is unknown, or lacks the size of the image; a level has a size or stride that is not positive.
    """
    if clip not in (None, 'sizes', 'corners') or (clip and size is None):
        raise UsageError(f"clip={clip!r} of priors is None, 'sizes' or 'corners', the latter two with the image's size")
    for level in levels:
        if min(*level.stride, level.size, level.next_size or 1, *level.aspect_ratios) <= 0:
            raise UsageError(f'sizes, strides and aspect ratios of priors must be positive: {level}')
    boxes = np.concatenate([_level_priors(level) for level in levels]) if levels else np.zeros((0, 4))
    if clip == 'sizes':
        # Before the corners: a bounded prior keeps its centre, and may still reach beyond the image.
        boxes[:, 2:] = np.minimum(boxes[:, 2:], size[::-1])  # ty: ignore[not-subscriptable]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    if clip == 'corners':
        corners = np.clip(corners, 0, (*size[::-1], *size[::-1]))  # ty: ignore[not-subscriptable]
    return corners.astype(np.float32)  # computed in float64, rounded once


def _level_priors(level: PriorLevel) -> np.ndarray:
    """Returns [rows * columns * shapes, 4] of (centre x, centre y, width, height)."""
    # The order decides which filters of the detector a prior belongs to, so published weights depend on it.
    shapes = [(level.size, level.size)]
    if level.next_size is not None:
        shapes.append((math.sqrt(level.size * level.next_size),) * 2)
    # The root keeps the area: w h = size^2 and w / h = r (section 2.2, a_r).
    for ratio in map(math.sqrt, level.aspect_ratios):
        shapes += [(level.size * ratio, level.size / ratio), (level.size / ratio, level.size * ratio)]
    y, x = ((np.arange(n) + 0.5) * stride for n, stride in zip(level.grid, level.stride, strict=True))
    boxes = np.empty((*level.grid, len(shapes), 4))
    boxes[..., 0], boxes[..., 1], boxes[..., 2:] = x[:, None], y[:, None, None], shapes
    return boxes.reshape(-1, 4)
