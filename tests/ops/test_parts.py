"""Part by part is what it would be at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.ops import by_parts


@pytest.mark.parametrize('size', [1, 3, 7, 10])
@pytest.mark.parametrize('axis', [0, 1])
def test_all_sizes(size, axis):
    asked = []

    def function(rows):
        asked.append(rows['x'].shape)
        return rows['x'].sum(2), jnp.sin(rows['y'])

    x, y = np.random.default_rng(0).normal(size=(7, 7, 2)), np.random.default_rng(1).normal(size=(7, 7))
    got = jax.jit(lambda rows: by_parts(function, rows, size, axis))({'x': x, 'y': y})
    np.testing.assert_allclose(got[0], x.sum(2), rtol=1e-5)
    np.testing.assert_allclose(got[1], np.sin(y), rtol=1e-5)
    assert {shape[axis] for shape in asked} == {min(size, 7)}
    assert {shape[1 - axis] for shape in asked} == {7}


def test_no_rows():
    assert by_parts(lambda x: x * 2, jnp.zeros((0, 3)), 4).shape == (0, 3)
