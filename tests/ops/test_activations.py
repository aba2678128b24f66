"""Activations against their formulas in float64; gradients by finite differences, and at the kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import ops
from canon.errors import UsageError
from canon.ops.activations import ACTIVATIONS

FORMULAS = {
    'sigmoid': lambda z: 1 / (1 + np.exp(-z)),
    'tanh': lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    'scaled_tanh': lambda z: 1.7159 * np.tanh(2 * z / 3),
    'relu': lambda z: np.maximum(z, 0),
    'leaky_relu': lambda z: np.where(z > 0, z, 0.01 * z),
    'elu': lambda z: np.where(z > 0, z, np.exp(z) - 1),
    'relu6': lambda z: np.minimum(np.maximum(z, 0), 6),
    'linear': lambda z: z,
}
KINKS = {'relu': {0: 0}, 'leaky_relu': {0: 0.01}, 'elu': {0: 1}, 'relu6': {0: 0, 6: 0}}


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_value_and_slope(name):
    z = np.concatenate([np.linspace(-8, 8, 333), [0.001, -0.001, 5.999, 6.001]])
    z = z[(np.abs(z) > 1e-4) & (np.abs(z - 6) > 1e-4)]
    formula, step = FORMULAS[name], 1e-6
    with jax.enable_x64(True):
        values, slopes = jax.vmap(jax.value_and_grad(ops.activation(name)))(jnp.asarray(z))
        ends = {kink: jax.grad(ops.activation(name))(jnp.asarray(kink, float)) for kink in KINKS.get(name, {})}
        _, forward = jax.jvp(ops.activation(name), (jnp.asarray(z),), (jnp.ones(len(z)),))
    np.testing.assert_allclose(values, formula(np.asarray(z)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slopes, (formula(z + step) - formula(z - step)) / (2 * step), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(forward, slopes, rtol=1e-12, atol=1e-15)
    for kink, slope in KINKS.get(name, {}).items():
        assert ends[kink] == slope, (name, kink)


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_large_arguments_are_finite(name):
    """No gradient is NaN where exp overflows."""
    for z in (-1e4, 1e4):
        value, slope = jax.value_and_grad(ops.activation(name))(z)
        assert np.isfinite(value)
        assert np.isfinite(slope)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match='relu6'):
        ops.activation('relu_6')
    assert ops.activation(jnp.sin) is jnp.sin
