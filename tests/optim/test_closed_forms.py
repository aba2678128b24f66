"""Trajectories that can be written down: constant gradients, quadratics, first steps, edges of stability."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


def constant_gradient(tx, g, steps):
    """The updates that a constant gradient gives, [steps, ...]."""
    g = jnp.asarray(g, jnp.float32)
    state, updates = tx.init(g), []
    for _ in range(steps):
        u, state = tx.update(g, state, jnp.zeros_like(g))
        updates.append(np.asarray(u))
    return np.array(updates)


def on_quadratic(optim, tx, curvatures, steps, start=1.0):
    """Parameters at every step of descent on sum(curvature x^2) / 2."""
    curvatures = jnp.asarray(curvatures, jnp.float32)
    params = jnp.full(curvatures.shape, start, jnp.float32)

    def step(carry, _):
        params, state = carry
        grads = curvatures * optim.lookahead_params(params, state)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), optim.eval_params(params, state)

    return np.asarray(jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[1], np.float64)


def test_sgd_on_a_quadratic_is_a_product(optim):
    rates = [0.3 / (k + 1) for k in range(6)]
    tx = optim.sgd(lambda k: jnp.asarray(rates, jnp.float32)[k])
    path = on_quadratic(optim, tx, [2.0], 6)[:, 0]
    np.testing.assert_allclose(path, np.cumprod([1 - r * 2.0 for r in rates]), rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'edge'),
    [
        ('momentum', 2 * (1 + 0.9)),
        ('nesterov', 2 * (1 + 0.9) / (1 + 2 * 0.9)),
        ('sgd', 2.0),
    ],
)
def test_the_edge_of_stability(optim, name, edge):
    """Sutskever's companion matrices: momentum is stable below rate * curvature = 2 (1 + a), Nesterov below a third."""
    make = getattr(optim, name)
    settled, burst = (on_quadratic(optim, make(edge * f), [1.0], 2000)[:, 0] for f in (0.99, 1.01))
    assert abs(settled[-1]) < 1e-3
    assert not abs(burst[-1]) < 1e3


@pytest.mark.parametrize('stored', ['lookahead', 'theta'])
def test_momentum_and_nesterov_follow_their_companion_matrices(optim, stored):
    a, e, h = 0.9, 0.05, 1.5
    matrices = {
        'momentum': np.array([[a, -e * h], [a, 1 - e * h]]),  # of (v, theta)
        'nesterov': np.array([[a - e * h * a, -e * h], [a - e * h * a, 1 - e * h]]),
    }
    for name, matrix in matrices.items():
        tx = optim.momentum(e, a) if name == 'momentum' else optim.nesterov(e, a, stored=stored)
        x, expected = np.array([0.0, 1.0]), []
        for _ in range(50):
            x = matrix @ x
            expected.append(x[1])
        np.testing.assert_allclose(on_quadratic(optim, tx, [h], 50)[:, 0], expected, atol=2e-6)


def test_terminal_velocity(optim):
    for tx in (optim.momentum(0.01, 0.9), optim.momentum(0.01, 0.9, rate_inside=False), optim.nesterov(0.01, 0.9)):
        np.testing.assert_allclose(constant_gradient(tx, [3.0], 300)[-1], -0.01 * 3.0 / (1 - 0.9), rtol=1e-5)


def test_adam_with_a_constant_gradient_steps_by_the_rate(optim):
    g = np.array([1e-6, -1e-3, 1.0, 5e5], np.float32)
    steps = constant_gradient(optim.adam(0.01, eps=1e-8), g, 2000)
    expected = -0.01 * g.astype(np.float64) / (np.abs(g.astype(np.float64)) + 1e-8)
    np.testing.assert_allclose(steps, np.broadcast_to(expected, steps.shape), rtol=2e-6)


def test_adagrad_sums_harmonically(optim):
    steps = constant_gradient(optim.adagrad(0.1, eps=1e-7), [0.5, -2.0], 50)
    j = np.arange(1, 51)[:, None]
    g = np.array([0.5, -2.0])
    np.testing.assert_allclose(steps, -0.1 * g / (1e-7 + np.abs(g) * np.sqrt(j)), rtol=2e-6)


def test_rmsprop_reaches_its_mean_square(optim):
    steps = constant_gradient(optim.rmsprop(0.1, 0.9, 1e-6), [0.5], 40)[:, 0]
    r = (1 - 0.9 ** np.arange(1, 41)) * 0.25
    np.testing.assert_allclose(steps, -0.1 * 0.5 / (1e-6 + np.sqrt(r)), rtol=2e-6)


def test_first_steps(optim):
    g = np.array([0.5, -2e-3, 30.0])
    root = np.sqrt(1 - 0.9) * np.abs(g)
    sign = np.sign(g)
    first = {
        'sgd': (optim.sgd(0.1), -0.1 * g),
        'momentum': (optim.momentum(0.1), -0.1 * g),
        'nesterov': (optim.nesterov(0.1), -0.1 * 1.9 * g),
        'adagrad': (optim.adagrad(0.1), -0.1 * g / (1e-7 + np.abs(g))),
        'rmsprop': (optim.rmsprop(0.1), -0.1 * g / (1e-6 + root)),
        'adadelta': (optim.adadelta(), -1e-6 * g / (1e-6 + root)),
        'zeiler': (optim.adadelta(eps_in_sqrt=True), -1e-3 * g / np.sqrt(1e-6 + root**2)),
        'adam': (optim.adam(0.1), -0.1 * g / (1e-8 + np.abs(g))),
        'lion': (optim.lion(0.1), -0.1 * sign),
    }
    for name, (tx, expected) in first.items():
        np.testing.assert_allclose(constant_gradient(tx, g, 1)[0], expected, rtol=2e-6, err_msg=name)


def test_adadelta_in_the_notes_form_starts_a_thousand_times_slower(optim):
    """f = x^2 / 2 from 1 to 0.1: 5377 steps against 296, as measured in an independent float64 program."""
    for in_sqrt, steps in ((False, 5377), (True, 296)):
        path = on_quadratic(optim, optim.adadelta(eps_in_sqrt=in_sqrt), [1.0], 6000)[:, 0]
        assert abs(int(np.argmax(path < 0.1)) + 1 - steps) <= 2


def test_weight_decay_alone_is_a_geometric_series(optim):
    tx = optim.adamw(0.1, weight_decay=0.5)
    params = jnp.float32(2.0)
    state = tx.init(params)
    for _ in range(10):
        updates, state = tx.update(jnp.float32(0.0), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, 2.0 * (1 - 0.1 * 0.5) ** 10, rtol=2e-6)


def test_decay_selects_only_its_parameters(optim):
    params = {'Dense_0': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}
    zero = jax.tree.map(jnp.zeros_like, params)
    tx = optim.adamw(0.1, weight_decay=0.5, where='kernel$')
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates['Dense_0']['kernel'], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates['Dense_0']['bias'], 0)


def test_clipping_is_one_factor(optim):
    grads = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([[4.0]])}
    tx = optim.clip_by_global_norm(1.0)
    clipped, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(clipped['a'], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped['b'], [[0.8]], rtol=1e-6)
    small = jax.tree.map(lambda g: g / 10, grads)
    kept, _ = tx.update(small, tx.init(grads))
    jax.tree.map(np.testing.assert_array_equal, kept, small)  # bit for bit
    zero = jax.tree.map(jnp.zeros_like, grads)
    jax.tree.map(np.testing.assert_array_equal, tx.update(zero, tx.init(grads))[0], zero)


def test_the_error_of_adam_stays_small_for_twenty_thousand_steps(optim):
    """The figure to reach is a median of 1e-6; optax has 6.6e-6."""
    steps, size = 20_000, 64
    grads = np.random.default_rng(0).normal(size=(steps, size)).astype(np.float32)
    tx = optim.adam(1.0)
    ours = jax.jit(lambda gs: jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), gs)[1])(grads)
    s = r = np.zeros(size)
    errors = []
    for k, g in enumerate(grads.astype(np.float64)):
        s, r = 0.9 * s + 0.1 * g, 0.999 * r + 0.001 * g**2
        exact = -(s / (1 - 0.9 ** (k + 1))) / (np.sqrt(r / (1 - 0.999 ** (k + 1))) + 1e-8)
        errors.append(np.abs(np.asarray(ours[k]) - exact) / np.abs(exact))
    assert np.median(errors) <= 5e-7
