"""Interpolates features stored at the vertices of grids: one dense grid, or a multiresolution hash grid.

Positions are [..., 3] in the unit cube; positions outside are clamped to its faces. The gradient with respect to the
features is a single scatter-add, which XLA:CPU runs faster than a sort followed by a segment sum.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError

PRIMES = (1, 2654435761, 805459861)  # Müller et al. 2022, eq. 4
_CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing='ij'), -1).reshape(8, 3).astype(np.int32)


class HashGrid(NamedTuple):
    """The shape of a multiresolution hash grid.

    resolutions: cells per axis of each level. rows: table rows of each level. size: T, the most rows of a level, a
    power of 2.
    """

    resolutions: tuple[int, ...]
    rows: tuple[int, ...]
    size: int

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first row of each level in the table of all levels."""
        return tuple(int(n) for n in np.cumsum((0, *self.rows[:-1])))

    @property
    def total(self) -> int:
        """Rows of the table of all levels."""
        return sum(self.rows)


def make_hash_grid(levels: int, coarsest: int, finest: int, size: int) -> HashGrid:
    """Computes level resolutions N_l = floor(N_min b^l), b = exp((ln N_max - ln N_min) / (L - 1)).

    Müller et al. 2022 (instant-ngp), eq. 2 and 3. Levels whose (N + 1)^3 vertices fit into `size` rows are stored
    densely, the others are hashed.

    Args:
      levels: L.
      coarsest, finest: N_min and N_max, cells per axis.
      size: T, the rows of a hashed level, a power of 2.
    """
    if levels < 1 or coarsest < 1 or finest < coarsest:
        raise UsageError(
            f'a hash grid needs levels >= 1 and 1 <= coarsest <= finest; got {levels}, {coarsest} and {finest}'
        )
    if size < 2 or size & (size - 1):
        raise UsageError(f'a hash table has a power of 2 of rows, got {size}')
    growth = np.log(finest / coarsest) / max(levels - 1, 1)
    # The tolerance keeps the last level at `finest`: exp(log(finest)) may round to just below it.
    cells = tuple(int(np.floor(coarsest * np.exp(growth * level) + 1e-9)) for level in range(levels))
    return HashGrid(cells, tuple(min((n + 1) ** 3, size) for n in cells), size)


def hash_encoding(table: jax.Array, x: jax.Array, grid: HashGrid) -> jax.Array:
    """Interpolates the features of all levels, coarsest first: Müller et al. 2022, section 3.

    Args:
      table: [grid.total, F], the rows of all levels.
      x: positions [..., 3].
      grid: its shape (`make_hash_grid`).

    Returns:
      [..., L F].
    """
    if table.shape[0] != grid.total:
        raise UsageError(f'this hash grid needs a table of {grid.total} rows, got {table.shape[0]}')
    cells = np.array(grid.resolutions, np.int32)[:, None]
    corners, corner_weights = _corners_and_weights(x[..., None, :], cells)  # [..., L, 8, 3], [..., L, 8]
    index = _row_in_level(corners, grid) + np.array(grid.offsets, np.int32)[:, None]
    features = _weighted_rows(table, index, corner_weights)
    return features.reshape(*x.shape[:-1], len(cells) * table.shape[-1])


def _row_in_level(corners: jax.Array, grid: HashGrid) -> jax.Array:
    """Returns the row of each corner within its level [..., L, 8]: its vertex number if stored densely, else a hash."""
    side = np.array(grid.resolutions, np.int32)[:, None] + 1
    dense = np.array([n == (r + 1) ** 3 for n, r in zip(grid.rows, grid.resolutions, strict=True)])[:, None]
    vertex = corners[..., 0] + side * (corners[..., 1] + side * corners[..., 2])  # may overflow, but only if hashed
    words = corners.astype(jnp.uint32) * jnp.asarray(PRIMES, jnp.uint32)
    hashed = (words[..., 0] ^ words[..., 1] ^ words[..., 2]) & np.uint32(grid.size - 1)
    return jnp.where(dense, vertex, hashed.astype(jnp.int32))


def interpolate_trilinear(grid: jax.Array, x: jax.Array) -> jax.Array:
    """Interpolates grid [X, Y, Z, C], whose outer vertices lie on the cube's faces, at x [..., 3]; returns [..., C]."""
    if grid.ndim != 4 or min(grid.shape[:3]) < 2:
        raise UsageError(f'a dense grid is [X, Y, Z, C] with at least 2 vertices per axis, got {grid.shape}')
    sides = np.array(grid.shape[:3], np.int32)
    corners, corner_weights = _corners_and_weights(x, sides - 1)
    index = (corners[..., 0] * sides[1] + corners[..., 1]) * sides[2] + corners[..., 2]
    return _weighted_rows(grid.reshape(-1, grid.shape[-1]), index, corner_weights)


@jax.custom_jvp
def _weighted_rows(table: jax.Array, index: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns sum_k weights [..., k] table[index [..., k]], [..., F].

    The value is accumulated term by term: XLA:CPU materialises table[index] otherwise, which takes three times as long.
    The derivative is one expression, so that it transposes to a single scatter instead of one per corner.
    """
    terms = (_gather(table, index[..., k]) * weights[..., k, None] for k in range(index.shape[-1]))
    return reduce(jnp.add, terms)


_weighted_rows.defjvps(
    lambda dtable, _, table, index, weights: (_gather(dtable, index) * weights[..., None]).sum(-2),
    None,
    lambda dweights, _, table, index, weights: (_gather(table, index) * dweights[..., None]).sum(-2),
)


def _gather(table: jax.Array, index: jax.Array) -> jax.Array:
    # In bounds by construction, so XLA need not clamp: of the gather modes the fastest on a CPU, gradient included.
    return table.at[index].get(mode='promise_in_bounds')


def _corners_and_weights(x: jax.Array, cells: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns the eight vertices int32 [..., 8, 3] of the cell around x, and their trilinear weights [..., 8]."""
    position = jnp.clip(x, 0, 1) * cells.astype(x.dtype)
    low = jnp.minimum(position.astype(jnp.int32), cells - 1)  # the cast truncates, a floor for non-negative numbers
    fraction = (position - low)[..., None, :]
    weights = jnp.where(_CORNERS == 1, fraction, 1 - fraction).prod(-1)
    return low[..., None, :] + _CORNERS, weights
