"""Hyperparameters in the state, finding parts, the points of gradient and evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon.errors import UsageError

PARAMS = {'a': jnp.array([1.0, -2.0, 0.5]), 'b': {'kernel': jnp.full((2, 3), 0.25, jnp.float32)}}
GRADS = {'a': jnp.array([3.0, -1.0, 0.0]), 'b': {'kernel': jnp.arange(6.0).reshape(2, 3) - 2}}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_rate_used_is_a_leaf_of_the_state(optim):
    tx = optax.chain(optim.clip_by_global_norm(1.0), optim.momentum(optim.linear_decay(1.0, 0.5, 2), 0.75))
    state = tx.init(PARAMS)
    rates = []
    for _ in range(4):
        _, state = tx.update(GRADS, state, PARAMS)
        values = optim.hyperparams(state)
        rates.append(float(values['learning_rate']))
        assert float(values['momentum']) == 0.75
        assert all(x.dtype == jnp.float32 and not x.weak_type for x in values.values())
    assert rates == [1.0, 0.75, 0.5, 0.5]


def test_a_rate_that_is_set_overrides_the_schedule_until_it_is_restored(optim):
    tx = optim.adam(optim.linear_decay(1.0, 0.0, 4))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    state = optim.set_hyperparams(state, learning_rate=0.125)
    updates, state = tx.update(GRADS, state, PARAMS)
    assert float(optim.hyperparams(state)['learning_rate']) == 0.125
    np.testing.assert_allclose(np.abs(updates['a'][:2]), 0.125, rtol=1e-6)
    _, state = tx.update(GRADS, optim.set_hyperparams(state, learning_rate=None), PARAMS)
    assert float(optim.hyperparams(state)['learning_rate']) == 0.5


def test_one_trace_for_all_values_that_are_set(optim):
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        updates, state = optim.adamw(0.1).update(GRADS, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optim.adamw(0.1).init(PARAMS)
    for rate in (0.1, 0.01, np.float32(0.5), jnp.float32(2.0), 3):
        params, state = step(params, optim.set_hyperparams(state, learning_rate=rate, weight_decay=rate))
    assert len(traces) == 1


def test_lifted_constants_are_arguments_of_one_program(optim):
    """The rate, the decay and the momentum, through a transform that traces its link three times."""

    def program(rate, decay, momentum):
        link = optim.momentum(rate, momentum)
        tx = optim.skip_nonfinite(optax.chain(optim.add_decayed_weights(decay), link))
        state = tx.init(PARAMS)
        lifted, values, result = optim.lift_constants(tx.update, GRADS, state, PARAMS)
        jitted = jax.jit(lifted)
        assert jax.tree.map(lambda x: x.shape, result[0]) == jax.tree.map(lambda x: x.shape, GRADS)
        same(jitted(values, GRADS, state, PARAMS)[0], jax.jit(tx.update)(GRADS, state, PARAMS)[0])
        return jitted.lower(values, GRADS, state, PARAMS).as_text()

    assert program(0.5, 0.25, 0.75) == program(0.125, 2.0, 0.5)


def test_an_update_that_is_jitted_itself_can_be_lifted_again_and_again(optim):
    """Its trace is cached, and must not hold on to the arguments of an outer one."""
    tx = optim.sgd(0.5)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(2):
        lifted, values, _ = optim.lift_constants(update, GRADS, state)
        same(jax.jit(lifted)(values, GRADS, state)[0], tx.update(GRADS, state)[0])
    same(update(GRADS, state)[0], tx.update(GRADS, state)[0])


def test_a_sweep_of_the_rate_by_vmap_is_the_runs_one_by_one(optim):
    rates = jnp.array([0.1, 0.01, 0.5])

    def run(rate):
        tx = optim.momentum(1.0)
        params, state = PARAMS, optim.set_hyperparams(tx.init(PARAMS), learning_rate=rate)
        for _ in range(3):
            updates, state = tx.update(GRADS, state, params)
            params = optax.apply_updates(params, updates)
        return params

    swept = jax.vmap(run)(rates)
    for i, rate in enumerate(rates):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), swept, run(rate))


def test_names_that_occur_twice_are_distinguished(optim):
    tx = optax.partition({'x': optim.sgd(0.5), 'y': optim.adamw(0.25)}, {'a': 'x', 'b': {'kernel': 'y'}})
    state = tx.init(PARAMS)
    actual = {k: float(v) for k, v in optim.hyperparams(state).items()}
    assert actual == {'x/learning_rate': 0.5, 'y/learning_rate': 0.25, 'y/weight_decay': np.float32(0.01)}
    state = optim.set_hyperparams(state, **{'y/learning_rate': 1.0})
    assert float(optim.hyperparams(state)['x/learning_rate']) == 0.5
    assert float(optim.hyperparams(state)['y/learning_rate']) == 1.0
    both = optim.hyperparams(optim.set_hyperparams(state, learning_rate=2.0))
    assert float(both['x/learning_rate']) == float(both['y/learning_rate']) == 2.0


@pytest.mark.parametrize(
    'values',
    [
        dict(learning_rat=0.1),
        dict(learning_rate=-1),
        dict(learning_rate=float('nan')),
        dict(learning_rate=np.float32(-1)),
    ],
)
def test_set_hyperparams_refuses(optim, values):
    with pytest.raises(UsageError, match='learning_rat'):
        optim.set_hyperparams(optim.sgd(0.1).init(PARAMS), **values)


def test_hyperparams_of_optax_injection_are_listed(optim):
    state = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.25)).init(PARAMS)
    assert float(optim.hyperparams(state)['learning_rate']) == 0.25


def test_find_goes_through_any_nesting(optim):
    tx = optax.chain(optax.masked(optim.adam(0.1), {'a': True, 'b': False}), optim.ema(0.9))
    state = tx.init(PARAMS)
    assert optim.find_state(state, optim.AdamState).mu['a'].shape == (3,)
    assert optim.find_state(state, optim.TraceState) is None
    with pytest.raises(UsageError, match='2 AdamState'):
        optim.find_state((state, state), optim.AdamState)


def test_without_look_ahead_or_average_the_points_are_the_parameters(optim):
    state = optim.adam(0.1).init(PARAMS)
    assert optim.lookahead_params(PARAMS, state) is PARAMS
    assert optim.eval_params(PARAMS, state) is PARAMS


def quadratic(params):
    return jax.tree.map(lambda p: jnp.arange(1.0, p.size + 1).reshape(p.shape) * p, params)  # its gradient


def nesterov_of_the_notes(rates, momentum, steps):
    theta = jax.tree.map(lambda p: np.asarray(p, np.float64), PARAMS)
    v = jax.tree.map(np.zeros_like, theta)
    for k in range(steps):
        ahead = jax.tree.map(lambda t, v: t + momentum * v, theta, v)
        g = jax.tree.map(lambda p: np.arange(1.0, p.size + 1).reshape(p.shape) * p, ahead)
        v = jax.tree.map(lambda v, g, k=k: momentum * v - rates[k] * g, v, g)
        theta = jax.tree.map(np.add, theta, v)
    return theta


@pytest.mark.parametrize('stored', ['lookahead', 'theta'])
def test_nesterov_is_exact_through_a_drop_of_the_rate(optim, stored):
    tx = optax.chain(optim.clip_by_global_norm(1e6), optim.nesterov(optim.step_decay(0.05, (10,)), stored=stored))
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(25):
        grads = quadratic(optim.lookahead_params(params, state))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    theta = nesterov_of_the_notes([0.05] * 10 + [0.005] * 15, 0.9, 25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), optim.eval_params(params, state), theta)
    other = max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(theta), strict=True)
    )
    assert (other < 2e-6) == (stored == 'theta')  # the look-ahead point is another one


@pytest.mark.parametrize(('decay', 'debias'), [(0.9, True), (0.9, False), (1.0, True)])
def test_the_average_is_of_the_parameters_after_the_update(optim, decay, debias):
    tx = optax.chain(optim.sgd(0.1), optim.ema(decay, debias))
    params, state, trajectory = PARAMS, tx.init(PARAMS), []
    for _ in range(5):
        updates, state = tx.update(quadratic(params), state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append(np.asarray(params['a'], np.float64))
    ages = np.arange(5)[::-1]
    weights = np.full(5, 0.2) if decay == 1 else (1 - decay) * decay**ages
    if debias:
        weights = weights / weights.sum()
    expected = weights @ np.array(trajectory) + (1 - weights.sum()) * np.asarray(PARAMS['a'])
    np.testing.assert_allclose(optim.eval_params(params, state)['a'], expected, rtol=2e-6)


def test_evaluated_parameters_are_chosen_leaf_by_leaf(optim):
    """A group with an average does not hide that another group walks with a look-ahead."""
    averaged, nesterov = optax.chain(optim.sgd(0.1), optim.ema(0.9)), optim.nesterov(0.1)
    tx = optim.partition({'a': averaged, '.*': nesterov})
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(quadratic(params), state, params)
        params = optax.apply_updates(params, updates)
    evaluated = optim.eval_params(params, state)
    np.testing.assert_array_equal(evaluated['a'], optim.find_state(state, optim.EmaState).average['a'])
    velocity = optim.find_state(state, optim.NesterovState).velocity['b']['kernel']
    assert float(jnp.abs(velocity).min()) > 0
    np.testing.assert_allclose(evaluated['b']['kernel'], params['b']['kernel'] - 0.9 * velocity, rtol=1e-6)


def test_average_and_parameters_can_be_donated_together(optim):
    tx = optax.chain(optim.sgd(0.1), optim.ema(0.9))
    params = jax.tree.map(jnp.copy, PARAMS)
    step = jax.jit(lambda p, s: tx.update(GRADS, s, p), donate_argnums=(0, 1))
    step(params, tx.init(params))  # raises where two arguments share a buffer
