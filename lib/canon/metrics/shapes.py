"""How near a shape is to the true one: volumes by IoU, surfaces by points that are drawn on them.

`iou` runs on the device; what compares surfaces looks for nearest points, in numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def iou(inside: jax.Array, truth: jax.Array) -> jax.Array:
    """|A and B| / |A or B| of each shape [B], from whether points [B, N] are inside; 1 where neither has any.

    Mescheder et al. 2019, section 4, with points drawn evenly from the box.
    """
    if inside.shape != truth.shape:
        raise UsageError(f'iou: the points of both shapes are the same, not {inside.shape} and {truth.shape}')
    both, either = (inside & truth).sum(-1), (inside | truth).sum(-1)
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


class Surfaces(NamedTuple):
    """Two surfaces compared, each by points of it.

    accuracy, completeness: the mean distance from found points to the nearest true one, and back.
    chamfer_l1: half of their sum (Mescheder et al. 2019). chamfer_l2: the sum of the means of squared distances (Park
    et al. 2019, section 6; not halved). normals: the mean |cosine| between normals of nearest points, both ways
    averaged (Mescheder et al. 2019). f_score: the harmonic mean of the shares of points, found and true, that have a
    nearest one within the threshold (Tatarchenko et al. 2019).
    """

    accuracy: float
    completeness: float
    chamfer_l1: float
    chamfer_l2: float
    normals: float
    f_score: float


def surfaces(
    found: np.ndarray,
    truth: np.ndarray,
    found_normals: np.ndarray | None = None,
    truth_normals: np.ndarray | None = None,
    threshold: float = 0.01,
) -> Surfaces:
    """Points [N, 3] and [M, 3] of two surfaces, and unit normals of both, or `normals` is nan.

    threshold: of the F-score, in the units of the points: 1 % of the side of the box is usual.
    Raises UsageError where a surface has no points.
    """
    if not len(found) or not len(truth):
        raise UsageError(f'surfaces: {len(found)} points found and {len(truth)} true ones; neither may be empty')
    to_truth, at_truth = _nearest(found, truth)
    to_found, at_found = _nearest(truth, found)
    normals = float('nan')
    if found_normals is not None and truth_normals is not None:
        one = np.abs((found_normals * truth_normals[at_truth]).sum(-1)).mean()
        normals = 0.5 * (one + np.abs((truth_normals * found_normals[at_found]).sum(-1)).mean())
    precision, recall = (to_truth <= threshold).mean(), (to_found <= threshold).mean()
    return Surfaces(
        accuracy=float(to_truth.mean()),
        completeness=float(to_found.mean()),
        chamfer_l1=0.5 * float(to_truth.mean() + to_found.mean()),
        chamfer_l2=float((to_truth**2).mean() + (to_found**2).mean()),
        normals=float(normals),
        f_score=float(2 * precision * recall / max(precision + recall, 1e-12)),
    )


def no_surface(diameter: float) -> Surfaces:
    """What stands for a surface that was not found: distances of the box's diagonal, all else 0."""
    return Surfaces(diameter, diameter, diameter, 2 * diameter**2, 0.0, 0.0)


def _nearest(points: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import KDTree

    return KDTree(among).query(points)
