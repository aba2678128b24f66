"""Where a scene is empty, so that no network is asked there: a grid of densities, and samples that are packed by it.

Müller et al. 2022 (instant-ngp), appendix on ray marching: a coarse grid remembers how dense a field was in each cell,
and samples in thin cells are left out. What is left is a number of samples that changes from ray to ray and from step
to step; here it goes into an array of one size, so that a step is compiled once. Places are in the unit cube.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def density_at(grid: jax.Array, x: jax.Array) -> jax.Array:
    """The grid's [n, n, n] number for the cell that x [.., 3] lies in; -1 outside of the cube."""
    if grid.ndim != 3 or len(set(grid.shape)) != 1:
        raise UsageError(f'an occupancy grid is [n, n, n], not {grid.shape}')
    n = grid.shape[0]
    inside = ((x >= 0) & (x <= 1)).all(-1)
    cell = jnp.clip((x * n).astype(jnp.int32), 0, n - 1)
    row = (cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]
    return jnp.where(inside, grid.reshape(-1).at[row].get(mode='promise_in_bounds'), -1)


def threshold(grid: jax.Array, thin: jax.Array | float) -> jax.Array:
    """The density from which on a cell counts as occupied: `thin`, or the grid's mean where that is less."""
    return jnp.minimum(grid.mean(), thin)


def share_of_cells(key: jax.Array, cells: int, share: int) -> tuple[jax.Array, jax.Array]:
    """(which, places [P, 3]): one of `share` interleaved parts of the cells, and a random place in each of its cells.

    Part `which` has the cells which, which + share, .. of the n^3, as `refreshed` wants them.
    """
    if cells**3 % share:
        raise UsageError(f'{cells}^3 cells cannot be cut in {share} equal parts')
    first, inner = jax.random.split(key)
    which = jax.random.randint(first, (), 0, share)
    row = jnp.arange(cells**3 // share) * share + which
    corner = jnp.stack((row // cells**2, row // cells % cells, row % cells), -1)
    return which, (corner + jax.random.uniform(inner, corner.shape)) / cells


def refreshed(grid: jax.Array, which: jax.Array, found: jax.Array, decay: float) -> jax.Array:
    """The grid after `found` [P] was seen in part `which`: each of its cells is max(decay old, found)."""
    rows = grid.reshape(len(found), -1)
    return rows.at[:, which].set(jnp.maximum(decay * rows[:, which], found)).reshape(grid.shape)


def packed(mask: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """(index int32 [size], whole bool [B]): where mask [B, N] is true, row by row, and the rows of which all fit.

    index counts in B N; slots that are left over have numbers from B N on, each another one, for `mode='drop'`.
    """
    rows, columns = mask.shape
    counts = mask.sum(1)
    before = jnp.cumsum(counts) - counts
    slot = jnp.where(mask, before[:, None] + jnp.cumsum(mask, 1) - 1, size).ravel()
    empty = rows * columns + jnp.arange(size)
    index = empty.at[slot].set(np.arange(rows * columns), mode='drop')
    return index, before + counts <= size


def spread(values: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undoes the packing: values [size, ..] at their places in [*shape, ..], zeros elsewhere."""
    flat = jnp.zeros((shape[0] * shape[1], *values.shape[1:]), values.dtype)
    flat = flat.at[index].set(values, mode='drop', unique_indices=True)
    return flat.reshape(*shape, *values.shape[1:])
