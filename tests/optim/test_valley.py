"""SWAD's average against the algorithm on a list of all iterates, and an optimizer that begins again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon.errors import UsageError

PARAMS: Any = {'w': jnp.array([1.0, -2.0])}


def average_by_hand(iterates, losses, start_patience, end_patience, ratio):
    """Algorithm 1 of Cha et al. 2021: iterates[i] are those before evaluation i. Returns their mean; None: no start."""
    start = end = threshold = None
    for i in range(len(losses)):
        if start is None:
            window = losses[i - start_patience + 1 : i + 1] if i >= start_patience - 1 else []
            if window and window[0] == min(window):
                start, threshold = i - start_patience + 1, ratio * np.mean(window)
        elif min(losses[max(i - end_patience + 1, 0) : i + 1]) > threshold:
            end = i - end_patience
            break
    if start is None:
        return None, None
    last = len(losses) - 1 if end is None else end
    return np.mean(np.concatenate(iterates[start : last + 1]), 0), end


@pytest.mark.parametrize('patiences', [(2, 3), (3, 2), (1, 1)])
def test_the_average_is_that_of_the_algorithm(optim, patiences):
    rng, ends, starts = np.random.default_rng(0), 0, 0
    tx = optax.chain(optim.sgd(1.0), optim.average_in_valley('loss', *patiences, ratio=1.1))
    update, observe = jax.jit(tx.update), jax.jit(lambda state, value: optim.observe(state, {'loss': value, 'b': 0.0}))
    for trial in range(12):
        noise = rng.uniform(0.7, 1.3, 12)
        losses = ((np.arange(12) - 5.0) ** 2 / 10 + 1) * noise if trial % 3 else np.arange(12.0, 0, -1)
        params: Any = PARAMS
        state, iterates = tx.init(PARAMS), []
        for i, loss in enumerate(losses):
            visited = []
            for _ in range(1 + i % 3):  # segments of different length count by their updates
                updates, state = update({'w': jnp.asarray(rng.normal(size=2), jnp.float32)}, state, params)
                params = jax.tree.map(jnp.add, params, updates)
                visited.append(np.asarray(params['w'], np.float64))
            iterates.append(np.array(visited))
            if i < len(losses) - 1:
                state = observe(state, jnp.float32(loss))
                state = observe(state, jnp.float32(1e9))  # a second evaluation at the same step changes nothing
        expected, end = average_by_hand(iterates, [*losses[:-1], 0.0], *patiences, 1.1)
        assert optim.find_watched_metrics(state) == {'loss'}
        expected = params['w'] if expected is None else expected
        np.testing.assert_allclose(optim.eval_params(params, state)['w'], expected, rtol=2e-5, atol=2e-6)
        ends, starts = ends + (end is not None), starts + (expected is not params['w'])
    assert starts
    assert ends or patiences == (3, 2)


def test_bad_settings_of_a_valley(optim):
    with pytest.raises(UsageError, match='start_patience=0 must be an integer of at least 1'):
        optim.average_in_valley('loss', 0)
    with pytest.raises(UsageError, match=r'ratio=0\.5 must be at least 1'):
        optim.average_in_valley('loss', ratio=0.5)


def test_a_restarted_optimizer_is_a_new_one(optim):
    tx, rng = optim.restart(optim.adam(0.1), at=3), np.random.default_rng(1)
    grads = [{'w': jnp.asarray(rng.normal(size=2), jnp.float32)} for _ in range(6)]
    state = tx.init(PARAMS)
    ours = []
    for g in grads:
        updates, state = tx.update(g, state, PARAMS)
        ours.append(updates['w'])
    expected = []
    for part in (grads[:3], grads[3:]):
        adam = optim.adam(0.1)
        fresh = adam.init(PARAMS)
        for g in part:
            updates, fresh = adam.update(g, fresh, PARAMS)
            expected.append(updates['w'])
    np.testing.assert_array_equal(ours, expected)
