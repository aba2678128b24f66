"""Random deformations of images of text: distortion, stretching and perspective of Learn to Augment's toolkit.

Luo et al. 2020, "Learn to augment: joint data augmentation and network optimization for text recognition". Control
points on the border of the image move, and the image follows by moving least squares (Schaefer et al. 2006); borders
are repeated. Boxes, masks and segmentations move along. The ranges of the draws are those of the authors' tool. On the
device, and while an agent learns, `canon.tasks.text.augmentation` does the same.
"""

from collections.abc import Callable

import numpy as np

from canon import named
from canon.data.images import geometry
from canon.data.images.deformation import Deformation, list_border_points
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng

_DrawMoves = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


def text_distort(
    segments: named.Count = 4,
    amount: named.NonNegative = 1 / 3,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Distorts characters: corners move inwards, points of the upper and lower border between them in any direction.

    With r = `amount` times the width of a segment, each coordinate of a corner moves by a draw from [0, r), each of
    another point by one from [-r / 2, r / 2).

    Args:
      segments: parts of the width, between pairs of control points.
      amount: bound of the moves, relative to the width of a segment.
      p: probability of the deformation.
      field: of the image.
      along: fields to transform along with it.
    """

    def draw_moves(generator, height, width):
        points = list_border_points((height, width), segments)
        reach = amount * width / segments
        moves = generator.uniform(-reach / 2, reach / 2, points.shape)
        corners = generator.uniform(0, reach, (4, 2)) * [[1, 1], [-1, 1], [1, -1], [-1, -1]]
        moves[[0, segments, segments + 1, 2 * segments + 1]] = corners
        return points, points + moves

    return _make_deformation(draw_moves, 'text_distort', p, field, along)


def text_stretch(
    segments: named.Count = 4,
    amount: named.NonNegative = 0.8,
    p: named.Probability = 1.0,
    field: str = 'image',
    along: SpatialSpec = None,
) -> Transform:
    """Stretches and squeezes characters: the borders between segments move sideways, and corners stay.

    Both ends of a border between two segments move by the same draw from [-r / 2, r / 2), with r = `amount` times the
    width of a segment.

    Args:
      segments: parts of the width.
      amount: bound of the moves, relative to the width of a segment; up to 1 the borders keep their order.
      p: probability of the deformation.
      field: of the image.
      along: fields to transform along with it.
    """

    def draw_moves(generator, height, width):
        points = list_border_points((height, width), segments)
        reach = amount * width / segments
        moves = np.zeros_like(points)
        inner = generator.uniform(-reach / 2, reach / 2, segments - 1)
        moves[1:segments, 0] = moves[segments + 2 : -1, 0] = inner
        return points, points + moves

    return _make_deformation(draw_moves, 'text_stretch', p, field, along)


def text_perspective(
    amount: named.Probability = 0.5, p: named.Probability = 1.0, field: str = 'image', along: SpatialSpec = None
) -> Transform:
    """Imitates a view from the side: each corner moves up or down, inwards, by a draw from [0, `amount` H).

    Args:
      amount: bound of the moves, relative to the height H.
      p: probability of the deformation.
      field: of the image.
      along: fields to transform along with it.
    """

    def draw_moves(generator, height, width):
        points = list_border_points((height, width), 1)
        # Below a half of the height the corners of a side never meet.
        moves = generator.uniform(0, amount * height, 4) * [1, 1, -1, -1]
        return points, points + np.stack([np.zeros(4), moves], -1)

    return _make_deformation(draw_moves, 'text_perspective', p, field, along)


def _make_deformation(draw_moves: _DrawMoves, what: str, p: float, field: str, along: SpatialSpec) -> Transform:
    along = SpatialFields.parse(along, what)

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, what), borrowed_rng(key)
        if generator.random() >= p:  # drawn first, also for p=1, so that p does not change the draws that follow
            return example
        size = image.shape[:2]
        deformation = Deformation.between(*draw_moves(generator, *size), size)
        return geometry.transform_fields(example, field, deformation.warp(image), deformation, along)

    return Transform(apply, random=True)
