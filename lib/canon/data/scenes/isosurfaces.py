"""Meshes of level sets: marching cubes, and evaluating a field only near its surface (MISE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from canon.data.scenes.distances import Field
from canon.data.scenes.meshes import clean_mesh
from canon.errors import CanonError, UsageError

if TYPE_CHECKING:
    from trimesh import Trimesh

FINEST = 1024  # cells per side of the finest grid; its values take 8 GB
_OUTSIDE = 1e6  # value beyond the border of a grid, in cells, so that surfaces are closed there


def check_resolution(resolution: int) -> None:
    """Raises UsageError unless a grid may have `resolution` cells per side."""
    if not 1 <= resolution <= FINEST:
        raise UsageError(f'resolution={resolution} is not between 1 and {FINEST} cells per side')


def grid_points(resolution: int, half: float, first: int = 0, last: int | None = None) -> np.ndarray:
    """Returns the vertices float64 [n, 3] of a grid of resolution^3 cells over [-half, half]^3, z varying fastest.

    Args:
      resolution: cells per side.
      half: half of the side of the cube.
      first: flat index of the first vertex that is returned.
      last: flat index after the last one; None returns all that follow.
    """
    check_resolution(resolution)
    line = np.linspace(-half, half, resolution + 1)
    flat = np.arange(first, (resolution + 1) ** 3 if last is None else last)
    return line[np.stack(np.unravel_index(flat, (resolution + 1,) * 3), -1)]


def extract_iso_surface(values: np.ndarray, half: float, level: float = 0.0) -> Trimesh:
    """Extracts the surface where a sampled field equals `level`; values below the level are inside.

    Marching cubes (Lorensen & Cline 1987) in scikit-image's implementation of Lewiner's tables. The surface is closed
    at the border of the grid.

    Args:
      values: [n, n, n] at the vertices of a grid over [-half, half]^3.
      half: half of the side of the cube.
      level: the value on the surface.

    Raises:
      CanonError: the field is nowhere below the level, or not finite; the message has its range.
    """
    from skimage.measure import marching_cubes

    _require_finite(values)
    low, high = float(np.min(values)), float(np.max(values))
    if low >= level:
        raise CanonError(f'there is no surface: the field is {low:g} to {high:g}, nowhere below the level {level:g}')
    spacing = 2 * half / (np.asarray(values.shape) - 1)
    padded = np.pad(np.asarray(values, np.float64) - level, 1, constant_values=_OUTSIDE * float(spacing.max()))
    # 'ascent' orients faces outwards for fields that are negative inside.
    vertices, faces, _, _ = marching_cubes(padded.astype(np.float32), 0.0, gradient_direction='ascent')
    return clean_mesh((vertices - 1) * spacing - half, faces)


def _require_finite(values: np.ndarray) -> np.ndarray:
    low, high = float(np.min(values)), float(np.max(values))
    if not np.isfinite([low, high]).all():
        raise CanonError(f'no surface can be extracted: the field has values from {low:g} to {high:g}')
    return values


def extract_mesh(field: Field, half: float, resolution: int = 32, upsamplings: int = 2, level: float = 0.0) -> Trimesh:
    """Extracts the surface where a field equals `level`: `sample_near_level`, then `extract_iso_surface`.

    Args:
      field: points [N, 3] -> values [N], defined on [-half, half]^3.
      half: half of the side of the cube.
      resolution: cells per side of the coarse grid.
      upsamplings: how often the cells near the surface are halved.
      level: the value on the surface.
    """
    return extract_iso_surface(sample_near_level(field, half, resolution, upsamplings, level), half, level)


def sample_near_level(
    field: Field, half: float, resolution: int = 32, upsamplings: int = 2, level: float = 0.0
) -> np.ndarray:
    """Samples a field on a grid of resolution 2^upsamplings cells per side, evaluating it only near its level set.

    Multiresolution iso-surface extraction, MISE (Mescheder et al. 2019, section 3.3): a cell that has vertices, or
    points of finer cells on its faces, on both sides of the level is divided into eight, until no such cell is left.
    Elsewhere the samples have the sign of the field but not its value, so the surface equals that of the full grid
    wherever the coarse grid intersects every part of it.

    Args:
      field: points [N, 3] -> values [N], defined on [-half, half]^3.
      half: half of the side of the cube.
      resolution: cells per side of the coarse grid.
      upsamplings: how often cells are halved.
      level: the value on the surface.

    Returns:
      samples float64 [n, n, n] at the vertices of the fine grid.
    """
    if resolution < 1 or upsamplings < 0 or resolution << upsamplings > FINEST:
        raise UsageError(
            f'expected resolution >= 1, upsamplings >= 0 and at most {FINEST} cells per side together, got '
            f'resolution={resolution}, upsamplings={upsamplings}'
        )
    side = resolution << upsamplings
    values = np.full((side + 1,) * 3, np.nan)  # NaN: not evaluated yet
    pending = np.zeros(values.shape, bool)
    pending[(slice(None, None, 1 << upsamplings),) * 3] = True
    divided = [np.zeros((resolution << depth,) * 3, bool) for depth in range(upsamplings)]
    while pending.any():
        where = np.argwhere(pending)
        values[pending] = _require_finite(np.asarray(field(where * (2 * half / side) - half)))
        pending[:] = False
        for depth in range(upsamplings):
            step = 1 << (upsamplings - depth)  # vertices of the fine grid per cell of this depth
            # A cell exists once its parent has been divided.
            exists = True if depth == 0 else _double(divided[depth - 1])
            new = _crosses_level(values, step, level) & exists & ~divided[depth]
            divided[depth] |= new
            _mark_children(pending, np.argwhere(new), step)
        pending &= np.isnan(values)
    return _fill_unknown(values)


def _crosses_level(values: np.ndarray, step: int, level: float) -> np.ndarray:
    """Returns which cells of side `step` have known points on both sides of the level, on their faces or within."""
    return _any_in_cells(values >= level, step) & _any_in_cells(values <= level, step)  # comparisons with NaN are false


def _any_in_cells(flags: np.ndarray, step: int) -> np.ndarray:
    for axis in range(3):
        starts = np.arange(0, flags.shape[axis] - 1, step)
        ends = np.take(flags, starts + step, axis)
        # A cell includes both of its walls, which it shares with its neighbours.
        flags = np.logical_or.reduceat(flags, starts, axis) | ends
    return flags


def _mark_children(pending: np.ndarray, cells: np.ndarray, step: int) -> None:
    """Marks the vertices of the eight children of each cell [N, 3], in place."""
    for offset in np.ndindex(3, 3, 3):
        pending[tuple((cells * step + np.asarray(offset) * (step // 2)).T)] = True


def _double(cells: np.ndarray) -> np.ndarray:
    return cells.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _fill_unknown(values: np.ndarray) -> np.ndarray:
    """Fills unknown points with the known one before them: all points within an undivided cell have one sign."""
    for axis in range(3):
        index = np.arange(len(values)).reshape([-1 if i == axis else 1 for i in range(3)])
        last_known = np.maximum.accumulate(np.where(np.isnan(values), 0, index), axis)
        values = np.take_along_axis(values, last_known, axis)
    return values
