"""Convergence: to known minima, and at the rate of the theory where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from tests.optim.everything import some_fast


def descend(optim, tx, loss, start, steps):
    def step(carry, _):
        params, state = carry
        grads = jax.grad(loss)(optim.lookahead_params(params, state))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), None

    start = jnp.asarray(start, jnp.float32)
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=steps))((start, tx.init(start)))
    return np.asarray(optim.eval_params(params, state), np.float64)


def contraction(optim, tx, curvatures, first, steps):
    """The mean factor per step by which the slowest component shrinks, after the first `first` steps."""
    h = jnp.asarray(curvatures)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(h * params, state, params)
        return (optax.apply_updates(params, updates), state), jnp.linalg.norm(params)

    params = jnp.ones(h.shape)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=first + steps)[1])
    norms = run((params, tx.init(params)))
    return float((norms[-1] / norms[first]) ** (1 / (steps - 1)))


@pytest.mark.parametrize('condition', [10.0, 1e3, 1e4])
def test_quadratics_contract_at_the_rate_of_the_theory(optim, condition):
    """Polyak 1964: (k-1)/(k+1) for gradient descent, (sqrt k - 1)/(sqrt k + 1) for momentum, each at its best rate."""
    root = condition**0.5
    with jax.enable_x64(True):
        h = np.array([1.0, condition])
        plain = contraction(optim, optim.sgd(2 / (1 + condition)), h, 10, 500)
        rate, alpha = (2 / (1 + root)) ** 2, ((root - 1) / (root + 1)) ** 2
        heavy = contraction(optim, optim.momentum(rate, alpha), h, int(20 * root), int(40 * root))
    assert abs(plain - (condition - 1) / (condition + 1)) < 1e-6
    # the eigenvalues are double there, so the power has a factor of k: 1.4 % of the logarithm at these lengths
    assert 0.98 < np.log(heavy) / np.log((root - 1) / (root + 1)) < 1.001


def test_gradient_descent_solves_condition_one_in_a_step(optim):
    assert descend(optim, optim.sgd(1.0), lambda x: jnp.sum(x**2) / 2, [3.0, -2.0], 1) == pytest.approx(0.0)


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def beale(x):
    a, b = x
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


METHODS = {
    'momentum': lambda o: o.momentum(2e-4, 0.99),
    'nesterov': lambda o: o.nesterov(2e-4, 0.99),
    'nesterov theta': lambda o: o.nesterov(2e-4, 0.99, stored='theta'),
    'adagrad': lambda o: o.adagrad(0.5),
    'rmsprop': lambda o: o.rmsprop(o.cosine(0.01, steps=20_000)),
    'adadelta': lambda o: o.adadelta(o.cosine(1.0, steps=20_000), eps=1e-4),
    'adadelta, Zeiler': lambda o: o.adadelta(o.cosine(1.0, steps=20_000), 0.95, eps_in_sqrt=True),
    'adam': lambda o: o.adam(o.cosine(0.02, steps=20_000)),
    'nadam': lambda o: o.nadam(o.cosine(0.02, steps=20_000)),
    'lion': lambda o: o.lion(o.cosine(0.01, steps=20_000)),
    'schedule_free': lambda o: o.schedule_free(o.adam(0.02, b1=0.0)),
}


@pytest.mark.parametrize('name', some_fast(METHODS, ('nesterov', 'adam', 'schedule_free')))
def test_curved_valleys_are_descended(optim, name):
    """Rosenbrock's and Beale's function at once: every rule here is element-wise, so that neither knows of the
    other."""

    def loss(points):
        return rosenbrock(points[0]) + beale(points[1])

    ends = descend(optim, METHODS[name](optim), loss, [(-1.2, 1.0), (1.0, 1.0)], 20_000)
    np.testing.assert_allclose(ends, [(1, 1), (3, 0.5)], atol=5e-3)


def test_logistic_regression_reaches_scipy_s_optimum(optim):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) * [1, 3, 0.3, 1, 1]
    y = np.where(x @ [1, -1, 2, 0, 0.5] + rng.logistic(size=200) > 0, 1.0, -1.0)

    def loss(w):
        return jnp.mean(jnp.logaddexp(0.0, -y * (x @ w))) + 0.005 * jnp.sum(w**2)

    with jax.enable_x64(True):
        best = optimize.minimize(jax.value_and_grad(lambda w: loss(w)), np.zeros(5), jac=True, tol=1e-12).x
    for tx in (
        optim.nesterov(0.1),
        optim.adam(optim.cosine(0.1, steps=3000)),
        optim.soap(optim.cosine(0.1, steps=3000), weight_decay=0.0),
        optim.adagrad(0.5),
    ):
        np.testing.assert_allclose(descend(optim, tx, loss, np.zeros(5), 3000), best, atol=2e-4)


def test_averaging_beats_the_last_iterate_under_noise(optim):
    """Polyak & Juditsky: the mean of the iterates of a constant rate has a fraction of their variance."""
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 16)), jnp.float32)
    tx = optax.chain(optim.sgd(0.1), optim.ema(1.0))

    def step(carry, n):
        params, state = carry
        updates, state = tx.update(params + n, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (jnp.zeros(16), tx.init(jnp.zeros(16))), noise)
    last, mean = (float(jnp.mean(p**2)) for p in (params, optim.eval_params(params, state)))
    assert mean < last / 50


def regret(make, rates, gradient, dimensions, rounds):
    """(the regrets of play in the box [-1, 1]^n against the best fixed point in hindsight, the norms of AdaGrad's
    bound), for each of several rates of `make(rate)`.

    The losses are linear, <g_t, x>, to which every convex loss can be reduced; `gradient` (t, x) -> g_t sees x first.
    """

    def play(rate):
        tx = make(rate)

        def step(carry, t):
            x, state = carry
            g = gradient(t, x)
            u, state = tx.update(g, state, x)
            return (jnp.clip(x + u, -1.0, 1.0), state), (jnp.sum(g * x), g)

        x = jnp.zeros(dimensions)
        _, (losses, gradients) = jax.lax.scan(step, (x, tx.init(x)), jnp.arange(rounds))
        best = -jnp.sum(jnp.abs(gradients.sum(0)))
        return losses.sum() - best, jnp.sum(jnp.linalg.norm(gradients, axis=0))

    return map(np.asarray, jax.jit(jax.vmap(play))(jnp.asarray(rates)))


def random_sparse(t, x):
    """Six decades of sizes, each coordinate zero nine times of ten, with a drift of its own."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), t), 2)
    size = 10.0 ** jnp.linspace(-3, 3, x.size)
    nonzero = jax.random.bernoulli(keys[0], 0.1, x.shape)
    return nonzero * size * (jax.random.normal(keys[1], x.shape) + 0.1)


def adversary(t, x):
    """Always uphill from the player's point."""
    return jnp.where(x >= 0, 1.0, -1.0) * jnp.arange(1.0, x.size + 1)


def reddi(t, x):
    return jnp.where(t % 3 == 0, 3.0, -1.0) * jnp.ones_like(x)


@pytest.mark.parametrize('gradient', [random_sparse, adversary, reddi])
def test_adagrad_keeps_its_regret_bound(optim, gradient):
    """Duchi et al. 2011, theorem 5: R_T <= (D^2 / (2 eta) + eta) sum_i |g_{1:T,i}|, D = 2 the width of the box.

    With H = delta I + diag(s) its proof adds delta |x_1 - x*|^2 / (2 eta). The bound is of the order of sqrt(T): it is
    far below what a player who does not move may lose.
    """
    rates, rounds, dimensions, eps = np.array([0.2, 2**0.5, 5.0]), 3000, 7, 1e-7
    with jax.enable_x64(True):
        regrets, norms = regret(lambda rate: optim.adagrad(rate, eps=eps), rates, gradient, dimensions, rounds)
    assert (regrets <= (4 / (2 * rates) + rates) * norms + eps * dimensions / (2 * rates)).all()


def test_other_methods_break_the_regret_bound(optim):
    """Where the bound is tight enough: RMSProp with a short memory breaks it on the sequence of Reddi et al."""
    factor = 2 / 2**0.5 + 2**0.5
    with jax.enable_x64(True):
        (short,), (norms,) = regret(lambda rate: optim.rmsprop(rate, decay=0.1), [0.01], reddi, 7, 3000)
        assert short > 2 * factor * norms
        (adagrad,), (norms,) = regret(optim.adagrad, [2**0.5], reddi, 7, 3000)
        assert adagrad < factor * norms
