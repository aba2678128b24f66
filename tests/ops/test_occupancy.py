"""Occupancy grids and packed samples against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import occupancy

rng = np.random.default_rng(0)


def test_lookup_returns_the_entry_of_the_cell():
    grid = rng.uniform(size=(4, 4, 4))
    x = np.concatenate((rng.uniform(-0.2, 1.2, (50, 3)), [[0, 0, 0], [1, 1, 1], [0.25, 0.5, 0.75]]))
    for actual, place in zip(occupancy.lookup_density(jnp.asarray(grid), jnp.asarray(x)), x, strict=True):
        inside = (place >= 0).all() and (place <= 1).all()
        expected = grid[tuple(min(int(p * 4), 3) for p in place)] if inside else -1
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_the_groups_partition_the_cells():
    """Each group has a position in each of its cells."""
    parts = jax.jit(jax.vmap(lambda key: occupancy.sample_cells(key, 4, 16)))(jax.random.split(jax.random.key(0), 200))
    covered = set()
    for which, positions in zip(*parts, strict=True):
        cells = np.floor(np.asarray(positions) * 4).astype(int)
        rows = (cells[:, 0] * 4 + cells[:, 1]) * 4 + cells[:, 2]
        np.testing.assert_array_equal(rows, np.arange(int(which), 64, 16))
        covered |= set(rows.tolist())
    assert covered == set(range(64))


def test_cells_keep_a_decaying_maximum():
    grid = jnp.asarray(rng.uniform(size=(4, 4, 4)), jnp.float32)
    result = jnp.asarray(rng.uniform(size=4), jnp.float32)
    expected = np.asarray(grid).ravel().copy()
    for row, value in zip(range(3, 64, 16), result, strict=True):
        expected[row] = max(0.9 * expected[row], value)
    np.testing.assert_allclose(occupancy.update_cells(grid, jnp.int32(3), result, 0.9).ravel(), expected, rtol=1e-6)


@jax.jit
def pack_and_unpack(mask, values):
    index, complete = occupancy.pack(mask, len(values))
    grads = jax.grad(lambda v: (occupancy.unpack(v, index, (6, 5)) * 2).sum())(values)
    return index, complete, occupancy.unpack(values, index, (6, 5)), grads


@pytest.mark.parametrize('size', [1, 7, 30, 60])
def test_packing_keeps_masked_entries_row_by_row(size):
    mask = rng.uniform(size=(6, 5)) < 0.5
    values = rng.normal(size=(size, 2))
    index, complete, unpacked, grads = pack_and_unpack(mask, values)
    positions = np.flatnonzero(mask)[:size]
    np.testing.assert_array_equal(index[: len(positions)], positions)
    rest = np.asarray(index[len(positions) :])
    assert (rest >= mask.size).all()
    assert len(set(rest.tolist())) == len(rest)
    np.testing.assert_array_equal(complete, mask.sum(1).cumsum() <= size)
    expected = np.zeros((30, 2))
    expected[positions] = values[: len(positions)]
    np.testing.assert_allclose(unpacked.reshape(30, 2), expected, rtol=1e-6)
    # Packed entries carry their gradient back, unused slots none.
    np.testing.assert_array_equal(grads, np.where(np.arange(size)[:, None] < len(positions), 2, 0) * np.ones((1, 2)))


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r'an occupancy grid is \[n, n, n\]'):
        occupancy.lookup_density(jnp.zeros((2, 2, 3)), jnp.zeros(3))
    with pytest.raises(UsageError, match=r'5\^3 cells cannot be divided into 16 equal groups'):
        occupancy.sample_cells(jax.random.key(0), 5, 16)
