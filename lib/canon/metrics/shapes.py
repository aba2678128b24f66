"""Metrics of reconstructed shapes: the IoU of volumes, and distances between sampled surfaces.

`iou` runs on the device. Comparing surfaces needs nearest neighbours and runs in numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def iou(inside: jax.Array, true_inside: jax.Array) -> jax.Array:
    """Computes |A and B| / |A or B| per shape [B], from whether points [B, N] are inside; 1 if both shapes are empty.

    Mescheder et al. 2019, section 4, with points drawn uniformly from the box.
    """
    if inside.shape != true_inside.shape:
        raise UsageError(f'iou: expected the same points for both shapes, got {inside.shape} and {true_inside.shape}')
    intersection, union = (inside & true_inside).sum(-1), (inside | true_inside).sum(-1)
    # `maximum` keeps 0 / 0 out of the branch that is not taken.
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1), 1.0)


class SurfaceScores(NamedTuple):
    """Scores of a reconstructed surface against the true one, each sampled by points.

    Attributes:
      accuracy: mean distance from points of the reconstruction to the nearest true point.
      completeness: mean distance from true points to the nearest point of the reconstruction.
      chamfer_l1: mean of accuracy and completeness (Mescheder et al. 2019).
      chamfer_l2: sum of the two mean squared distances (Park et al. 2019, section 6; not halved).
      normal_consistency: mean |cosine| between normals of nearest points, averaged over both directions
        (Mescheder et al. 2019); NaN if normals are unknown.
      f_score: harmonic mean of precision and recall, the shares of points of the reconstruction and of true points
        that have a nearest point within the threshold (Tatarchenko et al. 2019).
    """

    accuracy: float
    completeness: float
    chamfer_l1: float
    chamfer_l2: float
    normal_consistency: float
    f_score: float


def compare_surfaces(
    points: np.ndarray,
    true_points: np.ndarray,
    normals: np.ndarray | None = None,
    true_normals: np.ndarray | None = None,
    threshold: float = 0.01,
) -> SurfaceScores:
    """Compares two surfaces by points sampled on them.

    Args:
      points: [N, 3], of the reconstruction.
      true_points: [M, 3].
      normals: unit normals [N, 3]; None leaves `normal_consistency` NaN.
      true_normals: unit normals [M, 3].
      threshold: of the F-score, in the units of the points; 1 % of the side of the box is usual.

    Raises:
      UsageError: a surface has no points.
    """
    if not len(points) or not len(true_points):
        raise UsageError(f'expected points on both surfaces, got {len(points)} and {len(true_points)} true ones')
    to_truth, nearest_true = _nearest(points, true_points)  # both directions: parts may be missing or invented
    from_truth, nearest = _nearest(true_points, points)
    consistency = float('nan')
    if normals is not None and true_normals is not None:
        forward = np.abs((normals * true_normals[nearest_true]).sum(-1)).mean()
        backward = np.abs((true_normals * normals[nearest]).sum(-1)).mean()
        consistency = 0.5 * (forward + backward)
    # Precision is the share of the reconstruction that is right, recall the share of the truth that is covered.
    precision, recall = (to_truth <= threshold).mean(), (from_truth <= threshold).mean()
    return SurfaceScores(
        accuracy=float(to_truth.mean()),
        completeness=float(from_truth.mean()),
        chamfer_l1=0.5 * float(to_truth.mean() + from_truth.mean()),
        chamfer_l2=float((to_truth**2).mean() + (from_truth**2).mean()),
        normal_consistency=float(consistency),
        f_score=float(2 * precision * recall / max(precision + recall, 1e-12)),
    )


def score_missing_surface(diameter: float) -> SurfaceScores:
    """Returns the scores of a field without a surface: distances of the box's diagonal, everything else 0."""
    return SurfaceScores(diameter, diameter, diameter, 2 * diameter**2, 0.0, 0.0)


def _nearest(points: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import KDTree

    return KDTree(candidates).query(points)  # all pairs of the usual 30,000 points would be 10^9 distances
