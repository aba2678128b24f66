"""Dividing on a plateau: the exact evaluation, odd metrics, both modes, and the run that is stopped in between."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon.errors import UsageError

PARAMS = {'w': jnp.ones(3)}
GRADS = {'w': jnp.array([1.0, -2.0, 0.5])}


def factors(optim, metrics, **settings):
    tx = optim.divide_on_plateau('loss', **{'mode': 'min', **settings})
    state, observed = tx.init(PARAMS), []
    for value in metrics:
        state = optim.observe(state, {'loss': value, 'other': 0.0})
        observed.append(round(1 / float(state.rate_factor)))
    return observed


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('metrics', 'settings', 'expected'),
    [
        ([5, 4, 4, 4, 4, 4, 4], dict(patience=2), [1, 1, 1, 10, 10, 100, 100]),
        ([5, 5, 5], dict(patience=1), [1, 10, 100]),
        ([5, 4, 3, 2, 1], dict(patience=1), [1, 1, 1, 1, 1]),
        ([5, 6, 4, 6, 6, 6], dict(patience=3), [1, 1, 1, 1, 1, 10]),
        ([5, NAN, NAN, 4, NAN], dict(patience=2), [1, 1, 10, 10, 10]),
        ([NAN, NAN, 3, 2], dict(patience=2), [1, 10, 10, 10]),
        ([INF, INF, 3, 2], dict(patience=2), [1, 10, 10, 10]),
        ([-1, -2, -3, -2.9, -2.9], dict(patience=2), [1, 1, 1, 1, 10]),  # negative: less is better still
        ([-3, -2.9999], dict(patience=1), [1, 10]),
        ([1, 0.95, 0.91, 0.85, 0.84], dict(patience=2, min_delta=0.1), [1, 1, 10, 10, 10]),
        ([0.1, 0.5, 0.4, 0.4], dict(patience=2, mode='max', by=2.0), [1, 1, 1, 2]),
        ([-5, -6, -4, -4.5, NAN], dict(patience=1, mode='max'), [1, 10, 10, 100, 1000]),
        ([5, 5], dict(patience=1, by=4), [1, 4]),
    ],
)
def test_the_evaluation_of_the_drop(optim, metrics, settings, expected):
    assert factors(optim, metrics, **settings) == expected


def test_it_divides_the_rate_and_not_the_velocity(optim):
    tx = optax.chain(optim.divide_on_plateau('loss', 1, mode='min'), optim.momentum(0.1, 0.5))
    state = tx.init(PARAMS)
    v = 0.0
    for k in range(6):
        if k == 3:
            state = optim.observe(optim.observe(state, {'loss': 1.0}), {'loss': 1.0})
        updates, state = tx.update(GRADS, state, PARAMS)
        v = 0.5 * v - (0.1 if k < 3 else 0.01) * np.asarray(GRADS['w'])
        np.testing.assert_allclose(updates['w'], v, rtol=1e-6)
    assert float(optim.hyperparams(state)['rate_factor']) == np.float32(0.1)


def test_updates_need_no_metric_and_foreign_metrics_are_ignored(optim):
    tx = optim.divide_on_plateau('test/loss', 1, mode='min')
    state = tx.init(PARAMS)
    for _ in range(5):
        _, state = tx.update(GRADS, state, PARAMS)
        state = optim.observe(state, {'train/loss': 1.0})
    assert state.bad == 0
    assert optim.find_watched_metrics(optax.chain(tx, optim.ema(0.9)).init(PARAMS)) == {'test/loss'}


def test_observe_is_the_identity_for_others(optim):
    state = optim.adam(0.1).init(PARAMS)
    assert optim.observe(state, {'loss': 1.0}) is state


def test_one_trace_through_a_drop(optim):
    tx, traces = optax.chain(optim.divide_on_plateau('loss', 1, mode='min'), optim.adam(0.1)), []

    @jax.jit
    def step(state):
        traces.append(1)
        return tx.update(GRADS, state, PARAMS)[1]

    state = tx.init(PARAMS)
    for value in (3.0, 3.0, np.float64(3.0), 2, jnp.float32(2)):
        state = optim.observe(step(state), {'loss': value})
    assert len(traces) == 1
    np.testing.assert_allclose(optim.hyperparams(state)['rate_factor'], 0.001, rtol=2e-7)


def test_it_is_saved_and_restored(optim, tmp_path):
    import orbax.checkpoint as ocp

    tx = optax.chain(optim.divide_on_plateau('loss', 3, mode='min'), optim.momentum(0.1), optim.ema(0.9))
    state = tx.init(PARAMS)
    for value in (2.0, 3.0, 3.0):
        state = optim.observe(state, {'loss': value})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / 'state', state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / 'state', jax.eval_shape(tx.init, PARAMS))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert float(optim.hyperparams(optim.observe(restored, {'loss': 2.5}))['rate_factor']) == np.float32(0.1)


@pytest.mark.parametrize(
    'settings',
    [
        dict(patience=0),
        dict(patience=1.5),
        dict(patience=1, mode='mn'),
        dict(patience=1, mode=None),
        dict(patience=1, by=1),
    ],
)
def test_bad_settings(optim, settings):
    with pytest.raises(UsageError):
        optim.divide_on_plateau('loss', **{'mode': 'min', **settings})


# --- an average that begins on a plateau ------------------------------------------------------------------------------


def begins(metrics, patience, mode='min'):
    """The evaluation at which Algorithm 1 of Merity et al. 2018 begins to average; None: never."""
    sign = 1 if mode == 'min' else -1
    for t, value in enumerate(metrics):
        before = [sign * m for m in metrics[: max(t - patience, 0)] if not np.isnan(m)]
        if before and sign * value > min(before):
            return t
    return None


@pytest.mark.parametrize('mode', ['min', 'max'])
@pytest.mark.parametrize('patience', [1, 2, 5])
def test_the_average_begins_when_the_algorithm_does(optim, patience, mode):
    rng, beginnings = np.random.default_rng(patience), []
    for trial in range(80):
        slope = -1 if mode == 'min' else 1
        metrics = (slope * 0.5 * np.arange(12) + rng.normal(size=12)).astype(np.float32).tolist()
        if trial % 4 == 0:
            metrics[rng.integers(12)] = NAN
        state = optim.average_on_plateau('loss', patience, mode).init(PARAMS)
        counts = []
        for value in metrics:
            state = optim.observe(state, {'loss': value, 'other': -100.0})
            counts.append(int(state.count))
        actual = counts.index(1) if 1 in counts else None
        assert actual == begins(metrics, patience, mode), metrics
        beginnings.append(actual)
    assert None in beginnings
    assert len(set(beginnings)) > 3, beginnings


def test_it_is_the_mean_of_the_parameters_since_then(optim):
    tx = optax.chain(optim.sgd(0.1), optim.average_on_plateau('valid/loss', 1, mode='min'))
    params, state = jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)
    step = jax.jit(tx.update)
    visited = []
    for k in range(10):
        if k == 4:
            assert optim.find_watched_metrics(state) == {'valid/loss'}
            for loss in (1.0, 1.0, 2.0):
                np.testing.assert_array_equal(optim.eval_params(params, state)['w'], params['w'])
                state = optim.observe(state, {'valid/loss': loss})
            visited.append(np.asarray(params['w'], np.float64))
        updates, state = step(jax.tree.map(lambda p: p**3, params), state, params)
        params = optax.apply_updates(params, updates)
        if k < 4:
            np.testing.assert_array_equal(optim.eval_params(params, state)['w'], params['w'])
        else:
            visited.append(np.asarray(params['w'], np.float64))
            np.testing.assert_allclose(optim.eval_params(params, state)['w'], np.mean(visited, 0), rtol=1e-6)


def test_bad_settings_of_an_average_on_a_plateau(optim):
    with pytest.raises(UsageError, match='patience=0 must be an integer of at least 1'):
        optim.average_on_plateau('loss', 0)
    with pytest.raises(UsageError, match="mode=None must be 'min' or 'max': is 'loss' better when lower or higher"):
        optim.average_on_plateau('loss')
    with pytest.raises(UsageError, match="mode='mim' must be 'min' or 'max'"):
        optim.average_on_plateau('loss', mode='mim')
