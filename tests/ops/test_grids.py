"""Grids against loops in float64, and gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import grids

GRID = grids.make_hash_grid(4, 2, 16, 64)
rng = np.random.default_rng(0)
PLACES = np.concatenate((rng.uniform(size=(20, 3)), [[0, 0, 0], [1, 1, 1], [0, 1, 0.5], [0.25, 0.5, 1]]))


def row(corner, level):
    """eq. 4 of the paper, in Python's integers."""
    n, rows = GRID.resolutions[level], GRID.rows[level]
    if (n + 1) ** 3 <= GRID.size:
        return corner[0] + (n + 1) * (corner[1] + (n + 1) * corner[2])
    word = 0
    for value, prime in zip(corner, (1, 2654435761, 805459861), strict=True):
        word ^= int(value) * prime
    return word % rows


def loops(table, x):
    result = []
    for level, n in enumerate(GRID.resolutions):
        low = np.minimum(np.floor(x * n).astype(int), n - 1)
        part, feature = x * n - low, 0
        for corner in np.ndindex(2, 2, 2):
            share = np.prod([p if c else 1 - p for c, p in zip(corner, part, strict=True)])
            feature = feature + share * table[GRID.offsets[level] + row(low + corner, level)]
        result.append(feature)
    return np.concatenate(result)


def test_levels_are_the_papers():
    """L 16, N 16 to 2048: b = 1.38 (section 3's example range); the last is N_max."""
    paper = grids.make_hash_grid(16, 16, 2048, 2**19)
    assert paper.resolutions[:4] == (16, 22, 30, 42)
    assert paper.resolutions[-1] == 2048
    assert paper.rows[0] == 17**3
    assert paper.rows[-1] == 2**19
    assert GRID.rows == (27, 64, 64, 64)
    assert GRID.offsets == (0, 27, 91, 155)


def test_hashed_features_are_those_of_loops():
    table = rng.normal(size=(GRID.total, 3))
    with jax.enable_x64(True):
        encode = jax.jit(grids.hash_encoding, static_argnums=2)
        actual = encode(jnp.asarray(table), jnp.asarray(PLACES), GRID)
        np.testing.assert_allclose(actual, [loops(table, x) for x in PLACES], atol=1e-12)
    single = encode(jnp.asarray(table, jnp.float32), jnp.asarray(PLACES, jnp.float32), GRID)
    np.testing.assert_allclose(single, actual, atol=2e-5)


def test_the_largest_grid_hashes_without_overflow():
    paper = grids.make_hash_grid(2, 1024, 2048, 2**4)
    table = np.arange(paper.total, dtype=np.float64)[:, None]
    x = np.array([1.0, 1.0, 1.0])
    expected = [(2048 ^ 2048 * 2654435761 ^ 2048 * 805459861) % 16 + 16]
    with jax.enable_x64(True):
        encode = jax.jit(grids.hash_encoding, static_argnums=2)
        np.testing.assert_allclose(encode(jnp.asarray(table), jnp.asarray(x), paper)[1:], expected)


def test_a_linear_function_is_interpolated_exactly():
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in (4, 3, 6)), indexing='ij')
    values = np.stack((2 * axes[0] - axes[1] + 3 * axes[2], axes[0] * axes[1] * axes[2]), -1)
    x, y, z = PLACES.T
    with jax.enable_x64(True):
        actual = jax.jit(grids.interpolate_trilinear)(jnp.asarray(values), jnp.asarray(PLACES))
        np.testing.assert_allclose(actual[:, 0], 2 * x - y + 3 * z, atol=1e-12)
        np.testing.assert_allclose(actual[:, 1], x * y * z, atol=1e-12)  # within each cell it is trilinear itself


@pytest.mark.parametrize('kind', ['hashed', 'trilinear'])
def test_gradients_are_finite_differences(kind):
    table = rng.normal(size=(GRID.total, 2)) if kind == 'hashed' else rng.normal(size=(3, 4, 5, 2))
    x = rng.uniform(0.01, 0.99, (9, 3))
    with jax.enable_x64(True):

        @jax.jit
        def value(table, x):
            result = grids.hash_encoding(table, x, GRID) if kind == 'hashed' else grids.interpolate_trilinear(table, x)
            return jnp.sin(result).sum()

        for i, grad in enumerate(jax.jit(jax.grad(value, (0, 1)))(jnp.asarray(table), jnp.asarray(x))):
            direction = np.random.default_rng(i).normal(size=grad.shape)
            ahead, back = (
                [v + h * direction if i == j else v for j, v in enumerate((table, x))] for h in (1e-7, -1e-7)
            )
            numeric = (value(*map(jnp.asarray, ahead)) - value(*map(jnp.asarray, back))) / 2e-7
            np.testing.assert_allclose((grad * direction).sum(), numeric, rtol=1e-6, atol=1e-6)


def test_positions_outside_are_clamped_to_the_faces():
    grid = jnp.asarray(rng.normal(size=(3, 3, 3, 1)))
    a, b = grids.interpolate_trilinear(grid, jnp.array([[-4.0, 0.2, 9.0], [0.0, 0.2, 1.0]]))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: grids.make_hash_grid(4, 16, 8, 64), 'got 4, 16 and 8'),
        (lambda: grids.make_hash_grid(4, 2, 8, 100), 'a power of 2 of rows, got 100'),
        (lambda: grids.hash_encoding(jnp.ones((9, 2)), jnp.ones(3), GRID), 'a table of 219 rows, got 9'),
        (lambda: grids.interpolate_trilinear(jnp.ones((3, 3, 3)), jnp.ones(3)), 'a dense grid is'),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
