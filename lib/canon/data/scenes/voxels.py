"""Occupancy voxels of fields and points, and their centres, distances and meshes.

Voxels are bool [n, n, n], the cells of a grid over the cube [-half, half]^3; True is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from canon.data.scenes.distances import Field
from canon.data.scenes.isosurfaces import check_resolution, extract_iso_surface
from canon.errors import CanonError

if TYPE_CHECKING:
    from trimesh import Trimesh


def voxelize_field(field: Field, resolution: int, half: float) -> np.ndarray:
    """Fills the cells, bool [resolution^3], whose centres are inside a field."""
    check_resolution(resolution)
    line = (np.arange(resolution) + 0.5) * (2 * half / resolution) - half
    centres = np.stack(np.meshgrid(line, line, line, indexing='ij'), -1).reshape(-1, 3)
    return (np.asarray(field(centres)) < 0).reshape((resolution,) * 3)


def voxelize_points(points: np.ndarray, resolution: int, half: float) -> np.ndarray:
    """Fills the cells, bool [resolution^3], that contain a point of [N, 3]; points outside the cube are ignored."""
    check_resolution(resolution)
    within = points[(np.abs(points) <= half).all(-1)]
    # Points on an upper wall belong to the last cell.
    cells = np.minimum(np.floor((within + half) * (resolution / (2 * half))).astype(int), resolution - 1)
    voxels = np.zeros((resolution,) * 3, bool)
    voxels[tuple(cells.T)] = True
    return voxels


def voxel_centres(voxels: np.ndarray, half: float) -> np.ndarray:
    """Returns the centres [N, 3] of the full voxels."""
    return (np.argwhere(voxels) + 0.5) * (2 * half / len(voxels)) - half


def voxel_distances(voxels: np.ndarray, half: float) -> np.ndarray:
    """Returns signed distances [n, n, n] from the centres of voxels to the boundary between full and empty ones.

    An exact Euclidean distance transform to the nearest centre of the other kind, less half a cell. Raises CanonError
    where all voxels are alike.
    """
    from scipy.ndimage import distance_transform_edt

    if voxels.all() or not voxels.any():
        raise CanonError(f'voxels that are all {"full" if voxels.all() else "empty"} have no surface')
    outside, inside = distance_transform_edt(~voxels), distance_transform_edt(voxels)
    # The transform measures to the nearest centre of the other kind; the boundary is half a cell before it.
    cells = np.where(voxels, 0.5 - inside, outside - 0.5)
    return cells * (2 * half / len(voxels))


def mesh_from_voxels(voxels: np.ndarray, half: float) -> Trimesh:
    """Extracts the surface halfway between the centres of full and of empty voxels.

    Raises CanonError, as `extract_iso_surface` does, where no voxel is full.
    """
    cell = 2 * half / len(voxels)
    padded = np.pad(np.asarray(voxels, bool), 1)
    return extract_iso_surface(np.where(padded, -1.0, 1.0), half + cell / 2)
