"""Both forms of a product with weights, against numpy's in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend
from canon.nn import Dense, DenseGeneral
from canon.ops import dense


@pytest.mark.parametrize('shape', [(5,), (7, 5), (3, 4, 5), (2, 3, 1, 5), (0, 4, 5), (3, 0, 5)])
@pytest.mark.parametrize('kind', ['cpu', 'plain'])
def test_product_and_its_gradients(shape, kind):
    rng = np.random.default_rng(0)
    x, kernel, change = rng.normal(size=shape), rng.normal(size=(5, 6)), rng.normal(size=(*shape[:-1], 6))

    with jax.enable_x64(True), backend.forms(kind):
        y, back = jax.vjp(lambda x, kernel: dense.product(x, kernel), jnp.asarray(x), jnp.asarray(kernel))
        dx, dkernel = back(jnp.asarray(change))
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
    np.testing.assert_allclose(dx, change @ kernel.T, rtol=1e-12)
    np.testing.assert_allclose(dkernel, np.einsum('ni,nj->ij', x.reshape(-1, 5), change.reshape(-1, 6)), rtol=1e-12)


@pytest.mark.parametrize(
    ('layer', 'shape', 'indices'),
    [
        (Dense(6), (2, 3, 5), '...i,io->...o'),
        (DenseGeneral((2, 3)), (2, 4, 5), '...i,iab->...ab'),
        (DenseGeneral(6, (-2, -1)), (3, 4, 5, 2), '...ab,abo->...o'),
        (DenseGeneral(6, 1), (3, 4, 5), 'ba...,ao->b...o'),  # not the last
    ],
)
def test_layers_are_linens(layer, shape, indices):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    variables = layer.init(jax.random.key(1), x)
    expected = np.einsum(indices, np.float64(x), np.float64(variables['params']['kernel']))

    with backend.forms('cpu'):
        np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_sums_are_of_the_type_asked_for():
    x, kernel = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    assert dense.product(x, kernel).dtype == jnp.bfloat16
    assert dense.product(x, kernel, jnp.float32).dtype == jnp.float32


def test_the_gradient_of_a_wide_product_is_of_narrow_products():
    rng = np.random.default_rng(0)
    x, kernel, dy = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((2, 3, 40), (40, 50), (2, 3, 50)))

    def pull(x, kernel, dy):
        return jax.vjp(lambda x, kernel: dense.product(x, kernel, jnp.float32), x, kernel)[1](dy.astype(jnp.float32))

    products = re.findall(
        r'dot_general.*: \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\)', jax.jit(pull).lower(x, kernel, dy).as_text()
    )
    assert products == [('bf16', 'bf16')] * 2
    x64, kernel64, dy64 = (np.asarray(a, np.float64) for a in (x, kernel, dy))
    dx, dkernel = (np.asarray(g, np.float64) for g in pull(x, kernel, dy))
    np.testing.assert_allclose(dx, dy64 @ kernel64.T, rtol=2**-8, atol=1e-6)
    np.testing.assert_allclose(dkernel, np.einsum('abc,abd->cd', x64, dy64), rtol=2**-8, atol=1e-6)
