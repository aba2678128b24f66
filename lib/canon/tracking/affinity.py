"""Affinities of tracks and detections: how alike their boxes, motions and appearances are.

An affinity grows with likeness (IoU, cosine similarity); a cost is its opposite (1 - IoU, Mahalanobis distance).
Arguments are numpy arrays or JAX arrays, and results are of the same kind.
"""

from __future__ import annotations

import numpy as np

from canon.ops import boxes as box_ops
from canon.tracking.arrays import Array, array_module, put_rows

_TINY = float(np.finfo(np.float32).tiny)


def compute_iou(a: Array, b: Array) -> Array:
    """Computes the IoU of boxes a [..., N, 4] and b [..., M, 4], as [..., N, M]; 0 where a coordinate is NaN."""
    if array_module(a, b) is not np:
        iou = box_ops.pairwise_iou(a, b)
        return array_module(a, b).where(iou >= 0, iou, 0)
    intersection, union = _measure_overlap(a, b)
    np.fmax(union, _TINY, out=union)
    intersection /= union
    return intersection


def compute_valid_iou(a: Array, b: Array, rows: Array, columns: Array) -> Array:
    """Computes the IoU of the boxes a [N, 4] of `rows`, bool [N], and b [M, 4] of `columns`, bool [M]; 0 elsewhere."""
    xp = array_module(a, b)
    if xp is not np:
        return xp.where(rows[:, None] & columns, compute_iou(a, b), 0)
    iou = np.zeros((len(a), len(b)))  # a half of the slots is free: their overlaps would take most of a frame's time
    index = rows.nonzero()[0]
    iou[index] = compute_iou(a.take(index, 0), put_rows(b, ~columns, 0))  # an empty box overlaps with none
    return iou


def compute_giou(a: Array, b: Array) -> Array:
    """Computes the generalised IoU (Rezatofighi et al. 2019) of a [..., N, 4] and b [..., M, 4], in -1..1."""
    if array_module(a, b) is not np:
        return box_ops.pairwise_giou(a, b)
    intersection, union = _measure_overlap(a, b)
    low, high = (
        np.minimum(a[..., :, None, :2], b[..., None, :, :2]),
        np.maximum(a[..., :, None, 2:], b[..., None, :, 2:]),
    )
    enclosing = (high - low).prod(-1)
    iou = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou - np.divide(enclosing - union, enclosing, out=np.zeros_like(union), where=enclosing > 0)


def _measure_overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (intersection, union), both [..., N, M]."""
    # Coordinates first, and contiguous: numpy is slow along a last axis of two.
    a = np.ascontiguousarray(a.transpose(-1, *range(a.ndim - 1)))[..., None]
    b = np.ascontiguousarray(b.transpose(-1, *range(b.ndim - 1)))[..., None, :]
    sides = np.minimum(a[2:], b[2:])
    sides -= np.maximum(a[:2], b[:2])
    np.fmax(sides, 0, out=sides)  # of NaN, too, it makes 0
    intersection = sides[0] * sides[1]
    size_a, size_b = np.maximum(a[2:] - a[:2], 0), np.maximum(b[2:] - b[:2], 0)
    union = size_a[0] * size_a[1] + size_b[0] * size_b[1]
    union -= intersection
    return intersection, union


def compute_cosine_similarity(a: Array, b: Array) -> Array:
    """Computes the cosine of the angle between embeddings a [..., N, E] and b [..., M, E], as [..., N, M].

    A vector of zeros is similar to none: 0.
    """
    xp = array_module(a, b)
    return _normalize(xp, a) @ xp.swapaxes(_normalize(xp, b), -1, -2)


def compute_gallery_similarity(galleries: Array, filled: Array, embeddings: Array) -> Array:
    """Computes the largest cosine of a detection with any embedding of a track's gallery: Wojke et al. 2017, eq. 2.

    Args:
      galleries: [N, G, E], earlier embeddings of each track, of unit length.
      filled: bool [N, G]; the others are empty.
      embeddings: [M, E], of unit length.

    Returns:
      [N, M]; -1 for an empty gallery.
    """
    xp = array_module(galleries, embeddings)
    n, g, e = galleries.shape
    cosine = (galleries.reshape(n * g, e) @ embeddings.T).reshape(n, g, len(embeddings))
    return xp.where(filled[..., None], cosine, -1).max(1)


def fuse_score(similarity: Array, scores: Array) -> Array:
    """Multiplies affinities [N, M] by the scores [M] of detections, as ByteTrack does with the IoU."""
    return similarity * scores[..., None, :]


def fuse_motion(appearance_cost: Array, distance: Array, weight: float) -> Array:
    """Adds a squared motion distance to an appearance cost: weight d1 + (1 - weight) d2 (Wojke et al. 2017, eq. 5)."""
    return weight * distance + (1 - weight) * appearance_cost


def normalize_embeddings(embeddings: Array) -> Array:
    """Scales embeddings [..., E] to unit length; zeros remain zeros."""
    return _normalize(array_module(embeddings), embeddings)


def _normalize(xp, x: Array) -> Array:
    norm = xp.sqrt((x * x).sum(-1, keepdims=True))
    return x / xp.where(norm > 0, norm, 1)
