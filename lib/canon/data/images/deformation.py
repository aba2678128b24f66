"""Deformations of an image by control points on the host: moving least squares, its inverse, and images under it.

`deform_points` is `canon.ops.warps.moving_least_squares` in numpy (Schaefer et al. 2006, section 2.2), so that workers
that prepare batches need no JAX. Coordinates are those of `canon.data.images.geometry`.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from canon.data.images.geometry import Size

_CELLS = 16  # of the grid on which a deformation is evaluated, along the shorter side; bilinear in between
_NEAR = 1e-12  # added to squared distances: at a source its weight is then 1
_ITERATIONS = 12  # of Newton's method; from the forward warp as start, 3 to 5 reach a thousandth of a pixel


def list_border_points(size: Size, segments: int) -> np.ndarray:
    """Returns points (x, y) of an image of (height, width): segments + 1 on its upper border, then on the lower one."""
    height, width = size
    x = np.linspace(0, width, segments + 1)
    return np.stack([np.tile(x, 2), np.repeat([0.0, height], segments + 1)], -1)


def deform_points(points: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Moves points [..., 2] by the similarity that moves the nearest of the sources [N, 2] best to their targets."""
    points = np.asarray(points, np.float64)
    # The plane as complex numbers, relative to each point: a similarity is then a factor M and a shift.
    v = (points[..., 0] + 1j * points[..., 1])[..., None]
    p, q = (a @ np.array([1, 1j]) - v for a in (np.asarray(sources, np.float64), np.asarray(targets, np.float64)))
    squared = (p * p.conj()).real
    weights = 1 / (squared + _NEAR)
    weights /= weights.sum(-1, keepdims=True)
    p_mean, q_mean = (weights * p).sum(-1, keepdims=True), (weights * q).sum(-1, keepdims=True)
    p, q = p - p_mean, q - q_mean
    size = (weights * (p * p.conj()).real).sum(-1)
    # Sources in one place have no deviations but those of rounding: they translate.
    spread = size > 1e-28 * (weights * squared).sum(-1)
    turn = np.divide((weights * p.conj() * q).sum(-1), size, out=np.ones_like(size, complex), where=spread)
    moved = (v + q_mean)[..., 0] - p_mean[..., 0] * turn
    return np.stack([moved.real, moved.imag], -1)


class Deformation(NamedTuple):
    """A warp that moves control points, in place of the matrix of `geometry.transform_fields`; the frame stays.

    Attributes:
      sources: of the image before, [N, 2] in pixels.
      targets: where they are afterwards, [N, 2].
      places: where each pixel of the result comes from, [H, W, 2] in pixels of the image before.
    """

    sources: np.ndarray
    targets: np.ndarray
    places: np.ndarray

    @classmethod
    def between(cls, sources: np.ndarray, targets: np.ndarray, size: Size) -> Deformation:
        """Makes the deformation of an image of `size` (height, width) from its control points before and after."""
        spacing = max(min(size) // _CELLS, 1)
        rows, columns = (-(-(n - 1) // spacing) + 1 for n in size)
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1) * float(spacing) + 0.5
        places = deform_points(grid, targets, sources)
        if spacing > 1:
            down, across = (
                np.maximum(1 - np.abs(np.arange(n)[:, None] / spacing - np.arange(m)), 0)
                for n, m in zip(size, (rows, columns), strict=True)
            )
            places = np.stack([down @ places[..., axis] @ across.T for axis in (0, 1)], -1)
        return cls(np.asarray(sources, np.float64), np.asarray(targets, np.float64), places)

    def move_points(self, points: np.ndarray) -> np.ndarray:
        """Returns where points [..., 2] of the image before are afterwards, float64.

        The image is warped by the map from targets to sources, B; this solves B(x) = point by Newton's method, so that
        boxes fit what is drawn. (Exchanging sources and targets would not: that map is not the inverse of B.)
        """
        goal = np.asarray(points, np.float64)
        x = deform_points(goal, self.sources, self.targets)
        step = 1e-4
        for _ in range(_ITERATIONS):
            probes = np.stack([x, x + np.array([step, 0]), x + np.array([0, step])])
            at, right, below = deform_points(probes, self.targets, self.sources)
            error = goal - at
            if np.abs(error).max(initial=0) < 1e-3:
                break
            (a, c), (b, d) = np.moveaxis((right - at) / step, -1, 0), np.moveaxis((below - at) / step, -1, 0)
            determinant = a * d - b * c
            # Where the warp folds, the map has no inverse, and a full step would leave the image.
            flat = np.abs(determinant) < 1e-3
            determinant = np.where(flat, 1, determinant)
            ex, ey = error[..., 0], error[..., 1]
            move = np.stack([(d * ex - b * ey) / determinant, (a * ey - c * ex) / determinant], -1)
            x = x + np.where(flat[..., None], error, move)
        return x

    def move_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Returns the axis-aligned boxes around the moved edges of boxes [K, 4], float64, not clipped."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        # Edges become curves, so that the corners alone would not do.
        t = np.linspace(0, 1, 9)
        zero, one = np.zeros_like(t), np.ones_like(t)
        x, y = np.concatenate([t, one, t, zero]), np.concatenate([zero, t, one, t])
        edges = np.stack([boxes[:, :1] * (1 - x) + boxes[:, 2:3] * x, boxes[:, 1:2] * (1 - y) + boxes[:, 3:] * y], -1)
        moved = self.move_points(edges)
        return np.concatenate([moved.min(1), moved.max(1)], -1)

    def warp(self, image: np.ndarray) -> np.ndarray:
        """Warps an image [H, W, C], uint8 or float32, interpolating bilinearly; borders are repeated."""
        x, y = ((self.places[..., axis] - 0.5).astype(np.float32) for axis in (0, 1))
        # OpenCV remaps at most four channels at once.
        parts = [
            cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(*x.shape, -1)
            for part in np.split(image, range(4, image.shape[2], 4), axis=2)
        ]
        return np.concatenate(parts, -1)
