"""What every transform owes the loop, whatever its rule: stable types, no surprises under jit, scan, vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

from tests.optim.everything import ALL, some_fast

RNG = np.random.default_rng(2)
PARAMS = {'Dense_0': {'kernel': jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), 'bias': jnp.ones(3, jnp.float32)}}
GRADS = {'Dense_0': {'kernel': jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), 'bias': jnp.zeros(3, jnp.float32)}}


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.parametrize('name', some_fast(ALL))
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_types_are_those_of_init_and_none_is_weak(optim, name, dtype):
    tx = ALL[name](optim)
    params, grads = (jax.tree.map(lambda x: x.astype(dtype), t) for t in (PARAMS, GRADS))
    state = tx.init(params)
    updates, new = tx.update(grads, state, params)
    assert types(new) == types(state)
    assert not any(x.weak_type for x in jax.tree.leaves((new, updates)))
    assert {x.dtype for x in jax.tree.leaves(optax.apply_updates(params, updates))} == {jnp.dtype(dtype)}
    counts = [x for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert all(x.dtype == jnp.int32 for x in counts)
    assert types(jax.eval_shape(tx.init, params)) == types(state)


@pytest.mark.parametrize('name', ALL)
def test_a_scan_equals_the_loop_and_a_resumed_run_is_bitwise(optim, name):
    tx = ALL[name](optim)

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda g, p: g + 0.1 * p, GRADS, optim.lookahead_params(params, state))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry, n: jax.lax.scan(step, carry, None, length=n)[0], static_argnums=1)
    full = run((PARAMS, tx.init(PARAMS)), 6)
    half = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), run((PARAMS, tx.init(PARAMS)), 3))
    jax.tree.map(np.testing.assert_array_equal, run(half, 3), full)


@pytest.mark.parametrize('name', some_fast(ALL))
def test_one_trace_and_one_compilation(optim, name):
    tx, traces = ALL[name](optim), []

    def step(params, state):
        traces.append(1)
        updates, state = tx.update(GRADS, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    for k in range(4):
        params, state = step(params, state)
        state = optim.observe(state, {'loss': 1.0})
        if k == 1 and optim.hyperparams(state):
            rates = [n for n in optim.hyperparams(state) if n.endswith('learning_rate')]
            state = optim.set_hyperparams(state, **dict.fromkeys(rates, 0.01))
    assert len(traces) == 1
    assert step._cache_size() == 1


@pytest.mark.parametrize('name', some_fast(n for n in ALL if n != 'skip'))  # lax.cond has both branches
def test_a_zero_gradient_at_the_start_makes_no_nan(optim, name):
    tx = ALL[name](optim)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)

    def twice(params, grads):
        state = tx.init(params)
        updates, state = tx.update(grads, state, params)
        return tx.update(updates, state, optax.apply_updates(params, updates))

    checked = checkify.checkify(jax.jit(twice), errors=checkify.float_checks)
    error, (updates, _) = checked(zero, zero)
    assert error.get() is None or name == 'soap'  # eigh of nothing: checkify sees inside the library routine
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


@pytest.mark.parametrize('name', [n for n in ALL if n not in ('skip', 'rates, frozen')])
def test_a_nan_is_not_hidden(optim, name):
    """A parameter whose gradient is no number must show it, not stand still in silence."""
    tx = ALL[name](optim)
    bad = {'Dense_0': {**GRADS['Dense_0'], 'bias': jnp.array([0.0, jnp.nan, 0.0])}}
    updates, _ = tx.update(bad, tx.init(PARAMS), PARAMS)
    assert bool(jnp.isnan(updates['Dense_0']['bias'][1]))


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'nadam'])
def test_the_derivative_through_an_update_is_finite_away_from_zero(optim, name):
    tx = ALL[name](optim)

    def after(grads):
        updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
        updates, _ = tx.update(grads, state, PARAMS)
        return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates))

    some = jax.tree.map(lambda g: g + 0.5, GRADS)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(jax.grad(after)(some)))


@pytest.mark.parametrize('name', ['momentum', 'adam', 'lamb', 'partition', 'clip, ema', 'schedule_free'])
def test_vmap_over_models(optim, name):
    tx = ALL[name](optim)
    stack = lambda t: jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), t)  # noqa: E731
    states = jax.vmap(tx.init)(stack(PARAMS))
    updates, _ = jax.vmap(tx.update)(stack(GRADS), states, stack(PARAMS))
    params, grads = (jax.tree.map(lambda x: 2 * x, t) for t in (PARAMS, GRADS))
    alone, _ = tx.update(grads, tx.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=2e-6, atol=1e-7), updates, alone)


def test_none_leaves_are_left_alone(optim):
    params = {'w': jnp.ones(2), 'missing': None}
    tx = optax.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1), optim.ema(0.9))
    updates, state = tx.update({'w': jnp.ones(2), 'missing': None}, tx.init(params), params)
    assert updates['missing'] is None
    assert optim.eval_params(params, state)['missing'] is None


def test_it_is_an_optax_transform(optim):
    """Inside optax's own wrappers and Flax's TrainState."""
    from flax.training.train_state import TrainState

    mask = {'Dense_0': {'kernel': True, 'bias': False}}
    for wrap in (lambda tx: optax.masked(tx, mask), lambda tx: optax.MultiSteps(tx, 1), optax.with_extra_args_support):
        tx = wrap(optax.chain(optax.clip(10.0), optim.adam(0.1)))
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(jnp.abs(updates['Dense_0']['kernel']), 0.1, rtol=1e-5)
    state = TrainState.create(apply_fn=lambda: None, params=PARAMS, tx=optim.momentum(0.1))
    moved = state.apply_gradients(grads=GRADS).params['Dense_0']['kernel']
    np.testing.assert_allclose(moved, PARAMS['Dense_0']['kernel'] - 0.1 * GRADS['Dense_0']['kernel'], rtol=1e-6)


def test_optax_inside_ours(optim):
    tx = optim.skip_nonfinite(optim.partition({'bias': optax.sgd(0.5), '.*': optim.master_weights(optax.lion(0.1))}))
    grads = jax.tree.map(lambda g: g + 1, GRADS)
    updates, _ = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates['Dense_0']['bias'], -0.5)


def test_counts_stop_at_the_largest_integer(optim):
    tx = optim.adam(optim.linear_decay(1.0, 0.5, 10))
    state = jax.tree.map(lambda x: jnp.full_like(x, 2**31 - 1) if x.dtype == jnp.int32 else x, tx.init(PARAMS))
    _, state = tx.update(GRADS, state, PARAMS)
    assert optim.find_state(state, optim.AdamState).count == 2**31 - 1
    assert float(optim.hyperparams(state)['learning_rate']) == 0.5


def test_nothing_is_read_or_done_at_import():
    import subprocess
    import sys

    program = (
        'import sys, canon.optim, jax;'
        'assert not jax._src.xla_bridge._backends, "a device was touched";'
        'assert not [m for m in sys.modules if m.startswith(("canon.train", "canon.data", "flax", "tensorflow"))]'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
