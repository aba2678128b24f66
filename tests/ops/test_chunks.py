"""A function mapped in chunks against one call of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.ops import map_in_chunks


@pytest.mark.parametrize('size', [1, 3, 7, 10])
@pytest.mark.parametrize('axis', [0, 1])
def test_all_sizes(size, axis):
    shapes = []

    def function(rows):
        shapes.append(rows['x'].shape)
        return rows['x'].sum(2), jnp.sin(rows['y'])

    x, y = np.random.default_rng(0).normal(size=(7, 7, 2)), np.random.default_rng(1).normal(size=(7, 7))
    got = jax.jit(lambda rows: map_in_chunks(function, rows, size, axis))({'x': x, 'y': y})
    np.testing.assert_allclose(got[0], x.sum(2), rtol=1e-5)
    np.testing.assert_allclose(got[1], np.sin(y), rtol=1e-5)
    assert {shape[axis] for shape in shapes} == {min(size, 7)}
    assert {shape[1 - axis] for shape in shapes} == {7}


def test_no_rows():
    assert map_in_chunks(lambda x: x * 2, jnp.zeros((0, 3)), 4).shape == (0, 3)
