"""Occupancy grids for empty-space skipping: a grid of densities, and the packing of samples in occupied cells.

Müller et al. 2022 (instant-ngp), appendix E: a coarse grid remembers the density of a field in each cell, and samples
in cells of low density are not evaluated. The number of remaining samples varies per ray and per step; they are packed
into an array of fixed size, so that a training step compiles once. Positions are in the unit cube.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def lookup_density(grid: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the entry of grid [n, n, n] for the cell of each position x [..., 3]; -1 outside the cube."""
    if grid.ndim != 3 or len(set(grid.shape)) != 1:
        raise UsageError(f'an occupancy grid is [n, n, n], got {grid.shape}')
    n = grid.shape[0]
    inside = ((x >= 0) & (x <= 1)).all(-1)
    cell = jnp.clip((x * n).astype(jnp.int32), 0, n - 1)  # x = 1 belongs to the last cell
    index = (cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]
    return jnp.where(inside, grid.reshape(-1).at[index].get(mode='promise_in_bounds'), -1)


def occupancy_threshold(grid: jax.Array, thin: jax.Array | float) -> jax.Array:
    """Returns the density above which a cell counts as occupied: `thin`, or the mean of the grid if that is lower."""
    return jnp.minimum(grid.mean(), thin)


def sample_cells(key: jax.Array, cells: int, groups: int) -> tuple[jax.Array, jax.Array]:
    """Draws one of `groups` interleaved groups of the cells^3 cells, and a random position in each of its cells.

    Group g holds the cells g, g + groups, g + 2 groups, ..., as `update_cells` expects.

    Returns:
      (group [], positions [cells^3 / groups, 3]).
    """
    if cells**3 % groups:
        raise UsageError(f'{cells}^3 cells cannot be divided into {groups} equal groups')
    group_key, position_key = jax.random.split(key)
    group = jax.random.randint(group_key, (), 0, groups)
    # Interleaved groups spread over the whole scene, so the grid follows the field everywhere at the same pace.
    index = jnp.arange(cells**3 // groups) * groups + group
    corner = jnp.stack((index // cells**2, index // cells % cells, index % cells), -1)
    return group, (corner + jax.random.uniform(position_key, corner.shape)) / cells


def update_cells(grid: jax.Array, group: jax.Array, density: jax.Array, decay: float) -> jax.Array:
    """Returns the grid with each cell of `group` set to max(decay * old, density); density [P], as `sample_cells`."""
    groups = grid.reshape(len(density), -1)
    return groups.at[:, group].set(jnp.maximum(decay * groups[:, group], density)).reshape(grid.shape)


def pack(mask: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Packs the true entries of mask [B, N], row by row, into an array of `size` slots.

    Returns:
      index: int32 [size], into the B N entries. Unused slots hold distinct numbers from B N on, for `mode='drop'`.
      complete: bool [B], the rows of which every true entry has a slot.
    """
    rows, columns = mask.shape
    counts = mask.sum(1)
    before = jnp.cumsum(counts) - counts
    # False entries get the slot `size`, past the end: `mode='drop'` discards them.
    slot = jnp.where(mask, before[:, None] + jnp.cumsum(mask, 1) - 1, size).ravel()
    unused = rows * columns + jnp.arange(size)
    index = unused.at[slot].set(np.arange(rows * columns), mode='drop')
    return index, before + counts <= size


def unpack(values: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Scatters packed values [size, ...] back to [*shape, ...], with zeros elsewhere."""
    flat = jnp.zeros((shape[0] * shape[1], *values.shape[1:]), values.dtype)
    # `pack` gives unused slots distinct indices, so XLA may take them as unique and skip its handling of duplicates.
    flat = flat.at[index].set(values, mode='drop', unique_indices=True)
    return flat.reshape(*shape, *values.shape[1:])
