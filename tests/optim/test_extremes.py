"""Gradients near the ends of float32, and eps=0: finite where the equation is, a zero where nothing has moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.optim.everything import ALL

PARAMS = {'kernel': jnp.array([[1.0, -2.0], [0.5, 3.0]]), 'bias': jnp.array([0.5, -1.0])}
GRADS = {'kernel': jnp.array([[1.0, 0.5], [-0.25, 0.75]]), 'bias': jnp.array([-1.0, 0.5])}


def updates_of(tx, *grads):
    state, updates = tx.init(PARAMS), None
    for g in grads:
        updates, state = tx.update(g, state, PARAMS)
    return updates


def scale_gradients(factor):
    return jax.tree.map(lambda g: g * jnp.float32(factor), GRADS)


LARGE = (
    'adagrad',
    'rmsprop',
    'adadelta',
    'adam',
    'adamw',
    'nadam',
    'lamb',
    'lars',
    'lion',
    'muon',
    'soap',
    'narrow',
    'clip, ema',
)


@pytest.mark.parametrize('name', LARGE)
def test_one_gradient_of_the_size_of_float32_makes_no_nan(optim, name):
    """Then an ordinary one: an accumulator that has overflowed must not spoil what follows."""
    for factor in (1e17, 1e38):
        updates = updates_of(ALL[name](optim), scale_gradients(factor), GRADS)
        assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates)), factor


def adadelta_of_zeiler(grads, rho, eps):
    """Zeiler 2012, algorithm 1, in double precision."""
    r, t, u = 0.0, 0.0, 0.0
    for g in grads:
        r = rho * r + (1 - rho) * g**2
        u = np.sqrt((t + eps) / (r + eps)) * g
        t = rho * t + (1 - rho) * u**2
    return -u


@pytest.mark.parametrize('factor', [1e-18, 1.0, 1e15, 1e17, 4e18])
def test_adadelta_moves_whatever_the_size_of_the_gradients(optim, factor):
    grads = [factor * jnp.asarray(GRADS['bias'], jnp.float32) * (k + 1) for k in range(4)]
    tx = optim.adadelta(eps_in_sqrt=True)
    state, update = tx.init(grads[0]), None
    for g in grads:
        update, state = tx.update(g, state, grads[0])
    expected = adadelta_of_zeiler([np.asarray(g, np.float64) for g in grads], 0.9, 1e-6)
    np.testing.assert_allclose(update, expected, rtol=1e-5)


@pytest.mark.parametrize('factor', [1e-3, 1e17, 1e25, 3e38])
def test_the_direction_of_muon_does_not_depend_on_the_size_of_the_gradient(optim, factor):
    tx = optim.muon(0.1)
    at_one, there = (updates_of(tx, scale_gradients(f))['kernel'] for f in (1.0, factor))
    np.testing.assert_allclose(there, at_one, rtol=1e-3)  # eps is 1e-7 of a norm of 1e-3
    np.testing.assert_array_equal(updates_of(tx, scale_gradients(0.0))['kernel'], 0)


def test_newton_schulz_divides_by_norm_plus_eps(optim):
    """X = G / (||G|| + eps), for tiny matrices too: with no step that is what is returned."""
    for factor in (1e-30, 1e-8, 1e-6, 1.0, 1e6):
        g = np.asarray(GRADS['kernel'], np.float64) * factor
        x = optim.orthogonalize(jnp.asarray(g, jnp.float32), steps=0)
        np.testing.assert_allclose(x, g / (np.linalg.norm(g) + 1e-7), rtol=1e-5)


@pytest.mark.parametrize('name', ['adam', 'adamw', 'nadam', 'lamb', 'rmsprop', 'adagrad', 'soap'])
def test_with_eps_0_a_parameter_without_a_gradient_stays(optim, name):
    others = dict(weight_decay=0.0) if name in ('adamw', 'lamb', 'soap') else {}
    grads = {'kernel': GRADS['kernel'].at[0].set(0) if name != 'soap' else jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}
    updates = updates_of(getattr(optim, name)(0.1, eps=0.0, **others), grads, grads)
    np.testing.assert_array_equal(updates['bias'], 0)
    np.testing.assert_array_equal(updates['kernel'][0], 0)
    if name != 'soap':
        assert float(jnp.abs(updates['kernel'][1]).min()) > 0


def test_an_average_between_the_ends_of_float32_is_finite(optim):
    """2.7e38 - (-2.7e38) overflows; the average of the two does not."""
    for b1 in (0.9, 0.1):
        state = (tx := optim.scale_by_adam(b1)).init(jnp.zeros(()))
        _, state = tx.update(jnp.float32(-2.7e38), state._replace(mu=jnp.float32(2.7e38)))
        np.testing.assert_allclose(float(state.mu), 2.7e38 * (2 * b1 - 1), rtol=1e-5)
