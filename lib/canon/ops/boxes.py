"""Boxes [x0, y0, x1, y1] in pixels at pixel edges: areas, overlaps, clipping, and the offsets that detectors regress.

The box of a whole image of H rows and W columns is [0, 0, W, H]. All functions take any leading axes and are
differentiable; boxes without area are valid inputs, with finite results and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of centres and sizes: SSD's, and the standard deviations of Fast R-CNN's targets
_MAX_LOG_SIZE = math.log(1000 / 16)  # of a decoded box relative to its prior: exp() of a wild offset stays finite
_LEAST_SIZE = 1e-6  # pixels, of an encoded box: the logarithm of a box without area stays finite


def area(boxes: jax.Array) -> jax.Array:
    """Computes the area of boxes [..., 4] in square pixels, [...]; 0 if x1 < x0 or y1 < y0."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def pairwise_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the intersection over union of every box of a [..., N, 4] and every box of b [..., M, 4].

    Returns:
      [..., N, M] in 0..1; 0 for two boxes without area.
    """
    return _overlap(a, b)[0]


def pairwise_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes the generalised IoU of a [..., N, 4] and b [..., M, 4]: Rezatofighi et al. 2019, Algorithm 1.

    GIoU = IoU - (C - U) / C, where U is the area of the union and C that of the smallest box that encloses both. Unlike
    the IoU it has a gradient for boxes that do not overlap.

    Returns:
      [..., N, M] in -1..1; 0 for two boxes without area at the same place.
    """
    iou, union = _overlap(a, b)
    a, b = a[..., :, None, :], b[..., None, :, :]
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    enclosing = area(jnp.concatenate([low, high], -1))
    return iou - _divide(enclosing - union, enclosing)


def clip(boxes: jax.Array, size: Sequence[int | jax.Array]) -> jax.Array:
    """Clips boxes [..., 4] to an image of size (height, width)."""
    height, width = size
    x0, y0, x1, y1 = (boxes[..., i] for i in range(4))
    return jnp.stack(
        [jnp.clip(x0, 0, width), jnp.clip(y0, 0, height), jnp.clip(x1, 0, width), jnp.clip(y1, 0, height)], -1
    )


def clip_to_extents(boxes: jax.Array, extents: jax.Array) -> jax.Array:
    """Clips boxes [..., 4] to other ones, [..., 4] by broadcasting: where an image lies on a padded canvas."""
    return jnp.clip(boxes, extents[..., [0, 1, 0, 1]], extents[..., [2, 3, 2, 3]])


def corners_to_centers(boxes: jax.Array) -> jax.Array:
    """Converts [x0, y0, x1, y1] to [centre x, centre y, width, height]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], -1)


def centers_to_corners(boxes: jax.Array) -> jax.Array:
    """Converts [centre x, centre y, width, height] to [x0, y0, x1, y1]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def encode_offsets(boxes: jax.Array, priors: jax.Array, variances: Sequence[float] = VARIANCES) -> jax.Array:
    """Encodes boxes relative to priors: the targets of SSD (Liu et al. 2016, eq. 2) and Fast R-CNN.

    With centres (x, y) and sizes (w, h), of the prior (x_p, y_p) and (w_p, h_p):

        ((x - x_p) / w_p, (y - y_p) / h_p, log(w / w_p), log(h / h_p)) / variances

    Args:
      boxes: [..., 4]; a width or height below 1e-6 pixels counts as that, so that the targets are finite.
      priors: [..., 4], corner boxes as well.
      variances: divide the four offsets.

    Returns:
      [..., 4], the broadcast shape of both.
    """
    boxes, priors = corners_to_centers(boxes), corners_to_centers(priors)
    shift = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:]
    scale = jnp.log(jnp.maximum(boxes[..., 2:], _LEAST_SIZE) / priors[..., 2:])
    return jnp.concatenate([shift, scale], -1) / jnp.asarray(variances, shift.dtype)


def decode_offsets(
    offsets: jax.Array,
    priors: jax.Array,
    variances: Sequence[float] = VARIANCES,
    max_log_size: float | None = _MAX_LOG_SIZE,
) -> jax.Array:
    """Decodes offsets relative to priors to boxes: the inverse of `encode_offsets`.

    Args:
      offsets: [..., 4].
      priors: [..., 4], corner boxes.
      variances: multiply the four offsets.
      max_log_size: bounds log(w / w_p) and log(h / h_p), as torchvision does, by log(1000 / 16); None does not.

    Returns:
      Corner boxes [..., 4]; they may reach beyond the image.
    """
    offsets, priors = offsets * jnp.asarray(variances, offsets.dtype), corners_to_centers(priors)
    centre = priors[..., :2] + offsets[..., :2] * priors[..., 2:]
    log_size = offsets[..., 2:] if max_log_size is None else jnp.minimum(offsets[..., 2:], max_log_size)
    return centers_to_corners(jnp.concatenate([centre, jnp.exp(log_size) * priors[..., 2:]], -1))


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (IoU, area of the union), both [..., N, M]."""
    # One [N, M] array per coordinate: arrays [N, M, 2] would have a minor axis that no compiler vectorises.
    ax0, ay0, ax1, ay1 = (a[..., :, None, i] for i in range(4))
    bx0, by0, bx1, by1 = (b[..., None, :, i] for i in range(4))
    width = jnp.maximum(jnp.minimum(ax1, bx1) - jnp.maximum(ax0, bx0), 0)
    height = jnp.maximum(jnp.minimum(ay1, by1) - jnp.maximum(ay0, by0), 0)
    intersection = width * height
    union = area(a)[..., :, None] + area(b)[..., None, :] - intersection
    return _divide(intersection, union), union


def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Divides; 0 where the denominator is 0, with a gradient of 0."""
    # The inner `where` keeps 0 / 0 out of the gradient, where it would be NaN times 0.
    zero = denominator <= 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))
