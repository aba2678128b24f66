"""The loss of YOLO: Redmon et al. 2016, "You only look once: unified, real-time object detection", equation 3.

For the cell i that holds the centre of an object and for its responsible predictor j:

    L = lambda_coord [ (x - x^)^2 + (y - y^)^2 + (sqrt w - sqrt w^)^2 + (sqrt h - sqrt h^)^2 ]
        + (C_ij - C^)^2 + sum over classes of (p_i - p^_i)^2
        + lambda_noobj * the squares of the confidences of all other predictors
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.ops import boxes as box_ops


class YoloLoss(NamedTuple):
    """Sums over a batch of the four parts of equation 3, each with its weight, and the images that they are of.

    Attributes:
      coordinates: of the responsible predictors, times lambda_coord.
      confidence: of the responsible predictors.
      background: squared confidences of the other predictors, times lambda_noobj.
      classes: of the cells with an object.
      images: number of images.
      iou: sum of the IoUs of the responsible predictors with their objects.
      objects: number of cells with an object.
    """

    coordinates: jax.Array
    confidence: jax.Array
    background: jax.Array
    classes: jax.Array
    images: jax.Array
    iou: jax.Array
    objects: jax.Array


class CellObjects(NamedTuple):
    """The object of each cell of the grid [B, S, S]; zeros where there is none.

    Attributes:
      present: bool, whether the cell holds the centre of an object.
      boxes: [B, S, S, 4], (x, y) of the centre within the cell and (w, h), each in 0..1: x and y as shares of the
        cell, w and h of the image.
      labels: int32.
    """

    present: jax.Array
    boxes: jax.Array
    labels: jax.Array


def assign_cells(
    boxes: jax.Array, labels: jax.Array, valid: jax.Array, size: tuple[int, int], grid: tuple[int, ...]
) -> CellObjects:
    """Assigns each object to the cell that holds its centre; of several in one cell the first counts, as in darknet.

    Args:
      boxes: corner boxes [B, M, 4] in pixels.
      labels: [B, M].
      valid: bool [B, M].
      size: (height, width) of the images in pixels.
      grid: (rows, columns).
    """
    (height, width), (rows, columns) = size, grid
    centres = 0.5 * (boxes[..., :2] + boxes[..., 2:]) / jnp.array([width, height], jnp.float32)
    sides = (boxes[..., 2:] - boxes[..., :2]) / jnp.array([width, height], jnp.float32)
    scaled = centres * jnp.array([columns, rows], jnp.float32)
    # A centre on the right or bottom edge of the image is in the last cell, at 1 of it.
    cell = jnp.clip(jnp.floor(scaled).astype(jnp.int32), 0, jnp.array([columns - 1, rows - 1]))
    flat = cell[..., 1] * columns + cell[..., 0]  # [B, M]
    count = boxes.shape[1]
    # The minimum of the objects' numbers, not a scatter: the order of writes to one cell would be undefined.
    claims = valid[..., None] & (flat[..., None] == jnp.arange(rows * columns))  # [B, M, cells]
    first = jnp.where(claims, jnp.arange(count)[:, None], count).min(1)  # [B, cells]
    present = first < count
    index = jnp.minimum(first, count - 1)
    targets = jnp.take_along_axis(jnp.concatenate([scaled - cell, sides], -1), index[..., None], axis=1)
    targets = jnp.where(present[..., None], targets, 0)
    classes = jnp.where(present, jnp.take_along_axis(labels, index, axis=1), 0)
    shape = (len(boxes), rows, columns)
    return CellObjects(present.reshape(shape), targets.reshape(*shape, 4), classes.reshape(shape).astype(jnp.int32))


def yolo_loss(
    class_scores: jax.Array,
    confidence: jax.Array,
    predictions: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    size: tuple[int, int],
    mask: jax.Array | None = None,
    coord: float = 5.0,
    noobj: float = 0.5,
    rescore: bool = True,
) -> YoloLoss:
    """Computes the parts of equation 3 as sums over the batch; the loss per image is their sum over `images`.

    Responsible is the predictor whose box has the highest IoU with the object, or, if none overlaps it, the one with
    the smallest distance in (x, y, w, h), as in darknet. The choice and the target of its confidence have no gradient.
    An image without objects has the background's part alone. Darknet's gradients are those of half this loss.

    Args:
      class_scores: [B, S, S, C].
      confidence: [B, S, S, N].
      predictions: raw boxes [B, S, S, N, 4]: (x, y) within the cell, then the square roots of (w, h) as shares of the
        image.
      boxes: of the objects, corner boxes [B, M, 4] in pixels.
      labels: integers [B, M].
      valid: bool [B, M].
      size: (height, width) of the images.
      mask: bool [B], images that count; all if None.
      coord: lambda_coord.
      noobj: lambda_noobj.
      rescore: whether the target of a responsible predictor's confidence is its IoU with the object (section 2 and
        darknet); 1 if not.

    Raises:
      UsageError: the grids of the three outputs differ.
    """
    grid = class_scores.shape[1:3]
    if not (confidence.shape[1:3] == predictions.shape[1:3] == grid and predictions.shape[3] == confidence.shape[3]):
        raise UsageError(
            f'class scores {list(class_scores.shape)}, confidences {list(confidence.shape)} and boxes '
            f'{list(predictions.shape)} are not of one grid'
        )
    # Sums of squares over all cells of a batch lose their small terms in bfloat16.
    class_scores, confidence, predictions = (
        x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (class_scores, confidence, predictions)
    )
    rows = jnp.ones(len(boxes), bool) if mask is None else mask
    cells = assign_cells(boxes, labels, valid & rows[:, None], size, grid)

    fixed = jax.lax.stop_gradient(predictions)
    iou, distance = compare_boxes(fixed, cells.boxes, grid)  # [B, S, S, N]
    best = jnp.where(iou.max(-1) > 0, iou.argmax(-1), distance.argmin(-1))
    responsible = cells.present[..., None] & (jnp.arange(iou.shape[-1]) == best[..., None])

    # The network predicts roots, which may be negative: it is the root that is compared, not the root of a size.
    roots = jnp.concatenate([cells.boxes[..., :2], jnp.sqrt(cells.boxes[..., 2:])], -1)
    errors = jnp.square(predictions - roots[..., None, :]).sum(-1)
    target = iou if rescore else jnp.ones_like(iou)
    # The other predictors of a cell with an object are background as well, as in darknet.
    other = ~responsible & rows[:, None, None, None]
    # Empty cells have label 0 here and are left out of the sum: no class is learnt where no object is.
    one_hot = jax.nn.one_hot(cells.labels, class_scores.shape[-1])
    class_errors = jnp.square(class_scores - one_hot).sum(-1)
    return YoloLoss(
        coordinates=coord * jnp.where(responsible, errors, 0).sum(),
        confidence=jnp.where(responsible, jnp.square(confidence - target), 0).sum(),
        background=noobj * jnp.where(other, jnp.square(confidence), 0).sum(),
        classes=jnp.where(cells.present, class_errors, 0).sum(),
        images=rows.sum(dtype=jnp.float32),
        iou=jnp.where(responsible, iou, 0).sum(),
        objects=cells.present.sum(dtype=jnp.float32),
    )


def compare_boxes(predictions: jax.Array, objects: jax.Array, grid: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Computes IoU and squared distance in (x, y, w, h) of each predictor's box with its cell's object, [B, S, S, N].

    predictions: raw boxes [B, S, S, N, 4] (roots of w and h). objects: [B, S, S, 4]. grid: (rows, columns).
    """
    scale = jnp.array([1 / grid[1], 1 / grid[0]], jnp.float32)
    # Both are relative to the same cell, whose corner may be the origin.
    centres, sides = predictions[..., :2] * scale, jnp.square(predictions[..., 2:])
    true_centres, true_sides = (objects[..., None, :2] * scale, objects[..., None, 2:])
    corners = jnp.concatenate([centres - 0.5 * sides, centres + 0.5 * sides], -1)
    true_corners = jnp.concatenate([true_centres - 0.5 * true_sides, true_centres + 0.5 * true_sides], -1)
    iou = box_ops.pairwise_iou(corners, true_corners)[..., 0]
    # Of sizes, not of their roots, and in shares of the image, as darknet's box_rmse.
    difference = jnp.concatenate([centres - true_centres, sides - true_sides], -1)
    return iou, jnp.square(difference).sum(-1)
