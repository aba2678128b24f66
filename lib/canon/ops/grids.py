"""Features on the vertices of grids, interpolated in between: dense, and hashed in many resolutions.

Places are [.., 3] in the unit cube; what lies outside is moved to its wall. The gradient is one scatter: on XLA:CPU
sorting is slower.
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


class Levels(NamedTuple):
    """A hash grid's levels: cells along an axis, rows of each in the table, and where those begin."""

    resolutions: tuple[int, ...]
    rows: tuple[int, ...]
    size: int  # T, a power of 2

    @property
    def offsets(self) -> tuple[int, ...]:
        return tuple(int(n) for n in np.cumsum((0, *self.rows[:-1])))

    @property
    def total(self) -> int:
        """Rows of the whole table."""
        return sum(self.rows)


def levels(count: int, coarsest: int, finest: int, size: int) -> Levels:
    """N_l = floor(N_min b^l), b = exp((ln N_max - ln N_min) / (L - 1)): Müller et al. 2022, eq. 2 and 3.

    A level whose (N + 1)^3 vertices fit in `size` rows (a power of 2) is stored densely, the others are hashed.
    """
    if count < 1 or coarsest < 1 or finest < coarsest:
        raise UsageError(f'{count} levels from {coarsest} to {finest} cells are no hash grid')
    if size < 2 or size & (size - 1):
        raise UsageError(f'a hash table has a power of 2 of rows, not {size}')
    growth = np.log(finest / coarsest) / max(count - 1, 1)
    # The last is finest but for rounding.
    cells = tuple(int(np.floor(coarsest * np.exp(growth * level) + 1e-9)) for level in range(count))
    return Levels(cells, tuple(min((n + 1) ** 3, size) for n in cells), size)


def hashed(table: jax.Array, x: jax.Array, grid: Levels) -> jax.Array:
    """Features [.., L F] of all levels, coarsest first, of one table [grid.total, F]: Müller et al. 2022, section 3."""
    if table.shape[0] != grid.total:
        raise UsageError(f'this grid has a table of {grid.total} rows, not {table.shape[0]}')
    cells = np.array(grid.resolutions, np.int32)[:, None]
    corners, shares = _cells(x[..., None, :], cells)  # [.., L, 8, 3], [.., L, 8]
    index = _rows(corners, grid) + np.array(grid.offsets, np.int32)[:, None]
    features = _mixed(table, index, shares)
    return features.reshape(*x.shape[:-1], len(cells) * table.shape[-1])


def _rows(corners: jax.Array, grid: Levels) -> jax.Array:
    """The row of each corner within its level [.., L, 8]: counted where all fit, hashed otherwise."""
    side = np.array(grid.resolutions, np.int32)[:, None] + 1
    dense = np.array([n == (r + 1) ** 3 for n, r in zip(grid.rows, grid.resolutions, strict=True)])[:, None]
    counted = corners[..., 0] + side * (corners[..., 1] + side * corners[..., 2])  # overflows where it is not used
    words = corners.astype(jnp.uint32) * jnp.asarray(PRIMES, jnp.uint32)
    mixed = (words[..., 0] ^ words[..., 1] ^ words[..., 2]) & np.uint32(grid.size - 1)
    return jnp.where(dense, counted, mixed.astype(jnp.int32))


def trilinear(grid: jax.Array, x: jax.Array) -> jax.Array:
    """grid [X, Y, Z, C], vertices on the walls of the unit cube, at x [.., 3] -> [.., C]."""
    if grid.ndim != 4 or min(grid.shape[:3]) < 2:
        raise UsageError(f'a dense grid is [X, Y, Z, C] with at least 2 vertices an axis, not {grid.shape}')
    sides = np.array(grid.shape[:3], np.int32)
    corners, shares = _cells(x, sides - 1)
    index = (corners[..., 0] * sides[1] + corners[..., 1]) * sides[2] + corners[..., 2]
    return _mixed(grid.reshape(-1, grid.shape[-1]), index, shares)


@jax.custom_jvp
def _mixed(table: jax.Array, index: jax.Array, shares: jax.Array) -> jax.Array:
    """The sum over k of shares [.., k] table[index [.., k]], [.., F].

    Term by term: XLA:CPU would write all of table[index] down and then add it up, three times as slow. The derivative
    is in one piece, which transposes to one scatter and not to one for each k.
    """
    terms = (_row(table, index[..., k]) * shares[..., k, None] for k in range(index.shape[-1]))
    return reduce(jnp.add, terms)


_mixed.defjvps(
    lambda dtable, _, table, index, shares: (_row(dtable, index) * shares[..., None]).sum(-2),
    None,
    lambda dshares, _, table, index, shares: (_row(table, index) * dshares[..., None]).sum(-2),
)


def _row(table: jax.Array, index: jax.Array) -> jax.Array:
    return table.at[index].get(mode='promise_in_bounds')


def _cells(x: jax.Array, cells: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The eight vertices int32 [.., 8, 3] about x, and their shares [.., 8]; cells: along each axis."""
    place = jnp.clip(x, 0, 1) * cells.astype(x.dtype)
    low = jnp.minimum(place.astype(jnp.int32), cells - 1)  # rounds down: nothing is negative
    part = (place - low)[..., None, :]
    shares = jnp.where(_CORNERS == 1, part, 1 - part).prod(-1)
    return low[..., None, :] + _CORNERS, shares
