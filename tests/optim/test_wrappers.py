"""Groups, precision, skipped updates, averages without a schedule, matrices: what stands around or inside a rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon.backend import forms
from canon.errors import UsageError

RNG = np.random.default_rng(1)


def normal(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def network():
    return {
        'Conv_0': {'kernel': normal(3, 3, 2, 4), 'bias': normal(4)},
        'head': {'kernel': normal(6, 3), 'bias': normal(3)},
    }


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# groups


def test_the_first_rule_wins_and_states_hold_their_own_leaves_only(optim):
    params, grads = network(), network()
    tx = optim.partition({'^head/bias': optim.freeze(), 'bias': optim.sgd(0.5), '.*': optim.adam(0.1)})
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    same(updates['head']['bias'], jnp.zeros(3))
    same(updates['Conv_0']['bias'], -0.5 * grads['Conv_0']['bias'])
    np.testing.assert_allclose(jnp.abs(updates['head']['kernel']), 0.1, rtol=1e-5)
    assert {x.shape for x in jax.tree.leaves(optim.find_state(state, optim.AdamState).mu)} == {(3, 3, 2, 4), (6, 3)}
    assert set(optim.hyperparams(state)) == {'bias/learning_rate', 'rest/learning_rate'}


def test_rules_must_fit_the_parameters(optim):
    with pytest.raises(UsageError, match="no rule matches the parameter 'Conv_0/bias'"):
        optim.partition({'kernel': optim.sgd(0.1)}).init(network())
    with pytest.raises(UsageError, match="'kernal' matches no parameter"):
        optim.partition({'kernal': optim.sgd(0.1), '.*': optim.sgd(0.1)}).init(network())
    with pytest.raises(UsageError, match="'haed' matches no parameter"):
        optim.freeze('haed').init(network())
    with pytest.raises(UsageError, match="no rule matches the parameter 'Conv_0/kernel'"):
        optim.scale_rates({'bias': 2.0}).init(network())


def test_a_norm_in_a_group_is_of_the_group(optim):
    params = {'a': jnp.ones(2), 'b': jnp.ones(2)}
    grads = {'a': jnp.array([3.0, 4.0]), 'b': jnp.array([30.0, 40.0])}
    tx = optim.partition({'a': optim.clip_by_global_norm(1.0), 'b': optim.clip_by_global_norm(10.0)})
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates['a'], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(updates['b'], [6.0, 8.0], rtol=1e-6)


def test_freeze_and_multipliers(optim):
    params, grads = network(), network()
    tx = optax.chain(optim.sgd(1.0), optim.scale_rates({'bias': 2.0, '.*': 1.0}), optim.freeze('^Conv'))
    updates, _ = tx.update(grads, tx.init(params), params)
    same(updates['Conv_0'], jax.tree.map(jnp.zeros_like, params['Conv_0']))
    same(updates['head'], {'kernel': -grads['head']['kernel'], 'bias': -2 * grads['head']['bias']})


def test_integer_leaves_can_be_frozen_and_nothing_else(optim):
    params = {'table': jnp.arange(3), 'w': jnp.ones(2)}
    with pytest.raises(UsageError, match='table is int32'):
        optim.adam(0.1).init(params)
    grads = jax.grad(lambda p: jnp.sum(p['w'] ** 2), allow_int=True)(params)
    for wrap in (lambda tx: tx, optim.skip_nonfinite):
        tx = wrap(optim.partition({'table': optim.freeze(), '.*': optim.adam(0.1)}))
        updates, _ = tx.update(grads, tx.init(params), params)
        moved = optax.apply_updates(params, updates)
        same(moved['table'], params['table'])
        assert moved['table'].dtype == jnp.int32
        np.testing.assert_allclose(moved['w'], 0.9, rtol=1e-5)


def test_look_ahead_and_average_inside_a_group(optim):
    params = {'a': jnp.ones(2), 'b': jnp.ones(2)}
    tx = optim.partition({'a': optim.nesterov(0.1, stored='theta'), 'b': optax.chain(optim.sgd(0.1), optim.ema(1.0))})
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params)
    ahead = optim.lookahead_params(params, state)
    np.testing.assert_allclose(ahead['a'], 1 - 0.9 * 0.19, rtol=1e-6)
    same(ahead['b'], params['b'])
    evaluated = optim.eval_params(params, state)
    np.testing.assert_allclose(evaluated['b'], 0.9, rtol=1e-6)
    same(evaluated['a'], params['a'])


def test_partition_from_a_config(optim):
    spec = dict(
        name='partition',
        rules=(('bias$', 'biases'), ('.*', 'adam')),
        biases=dict(name='sgd', learning_rate=0.5),
        adam=dict(learning_rate=dict(name='cosine', init=0.1, steps=10)),
    )
    by_hand = optim.partition({'bias$': optim.sgd(0.5), '.*': optim.adam(optim.cosine(0.1, steps=10))})
    params, grads = network(), network()
    a, b = (tx.update(grads, tx.init(params), params)[0] for tx in (optim.make_optimizer(spec), by_hand))
    same(a, b)
    with pytest.raises(UsageError, match=r"tx\.baises is in no rule of tx\.rules; did you mean 'biases'"):
        optim.make_optimizer({**spec, 'baises': {}})
    with pytest.raises(UsageError, match=r'tx\.biases: no optimizer is called'):
        optim.make_optimizer({k: v for k, v in spec.items() if k != 'biases'})


def test_wrappers_from_a_config(optim):
    spec = dict(name='skip_nonfinite', tx=dict(name='master_weights', tx=dict(name='adam', learning_rate=0.1)))
    state = optim.make_optimizer(spec).init(network())
    assert isinstance(state, optim.SkipState)
    assert isinstance(state.inner, optim.MasterState)


# precision


def test_bfloat16_parameters_move_by_steps_below_their_precision(optim):
    params = {'w': jnp.ones(3, jnp.bfloat16)}
    grads = {'w': jnp.ones(3, jnp.bfloat16)}
    for wrap, expected in ((lambda tx: tx, 1.0), (optim.master_weights, 1 - 1000 * 2**-13)):
        tx = wrap(optim.adam(2**-13))

        def step(carry, _, tx=tx):
            p, s = carry
            updates, s = tx.update(grads, s, p)
            return (optax.apply_updates(p, updates), s), None

        (moved, state), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=1000)
        assert moved['w'].dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(moved['w'], np.float32), expected, rtol=2**-8)
    np.testing.assert_allclose(state.master['w'], 1 - 1000 * 2**-13, rtol=1e-6)
    same(moved['w'], state.master['w'].astype(jnp.bfloat16))


def test_accumulators_are_float32_whatever_the_parameters(optim):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), network())
    for tx in (optim.adam(), optim.momentum(0.1), optim.adadelta(), optim.ema(0.9), optim.lion(), optim.soap()):
        state = tx.init(params)
        _, state = tx.update(params, state, params)
        assert {x.dtype for x in jax.tree.leaves(state) if x.ndim} == {jnp.dtype(jnp.float32)}


def test_a_narrow_state_gives_the_update_of_the_stored_value(optim):
    grads = {'w': normal(100)}
    for make in (optim.momentum, optim.adam):
        tx = make(0.125, state_dtype=jnp.bfloat16)
        updates, state = tx.update(grads, tx.init(grads), grads)
        narrow = [x for x in jax.tree.leaves(state) if x.ndim]
        assert {x.dtype for x in narrow} == {jnp.dtype(jnp.bfloat16)}
        assert updates['w'].dtype == jnp.float32
        if make is optim.momentum:
            same(updates['w'], narrow[0].astype(jnp.float32))
        else:
            s, r = (x.astype(jnp.float32) for x in narrow)
            np.testing.assert_allclose(updates['w'], -0.125 * (s / 0.1) / (jnp.sqrt(r / 0.001) + 1e-8), rtol=1e-5)


# non-finite gradients


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_non_finite_gradients_are_always_skipped(optim, bad):
    params, grads = network(), network()
    poison = {**grads, 'head': {**grads['head'], 'bias': jnp.array([0.0, bad, 1.0])}}
    plain, tx = optim.adamw(0.1), optim.skip_nonfinite(optim.adamw(0.1))
    state, reference = tx.init(params), plain.init(params)
    for k in range(12):
        updates, state = jax.jit(tx.update)(poison if k % 4 else grads, state, params)
        if k % 4:
            same(updates, jax.tree.map(jnp.zeros_like, params))
        else:
            expected, reference = jax.jit(plain.update)(grads, reference, params)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.inner, reference)
    assert int(optim.hyperparams(state)['skipped_updates']) == 9


# schedule-free


def test_schedule_free_evaluates_the_average(optim):
    """x is the weighted mean of the z, by hand in float64, the gradient at y."""
    rates = [0.0, 0.1, 0.2, 0.2, 0.2, 0.2]
    tx = optim.schedule_free(optim.sgd(lambda k: jnp.asarray(rates, jnp.float32)[k]), interpolation=0.8)
    params = {'w': jnp.array([1.0, -2.0])}
    state = tx.init(params)
    z = x = y = np.array([1.0, -2.0])
    total = 0.0
    for rate in rates:
        updates, state = tx.update(jax.tree.map(lambda p: 3 * p, params), state, params)
        params = optax.apply_updates(params, updates)
        z = z - rate * 3 * y
        total += rate**2
        c = rate**2 / total if total else 0.0
        x = (1 - c) * x + c * z
        y = 0.2 * z + 0.8 * x
        np.testing.assert_allclose(params['w'], y, atol=1e-6)
        np.testing.assert_allclose(optim.eval_params(params, state)['w'], x, atol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, optim.lookahead_params(params, state), params)


# matrices


def newton_schulz(g, steps=5):
    x = g / (np.linalg.norm(g) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize('shape', [(6, 4), (4, 6), (3, 3, 2, 4)])
@pytest.mark.parametrize('scale', ['width', 'rms'])
def test_muon_is_its_author_s(optim, shape, scale):
    rng = np.random.default_rng(0)
    tx = optim.scale_by_muon(momentum=0.95, scale=scale)
    with jax.enable_x64(True):
        params = jnp.asarray(rng.normal(size=shape))
        state, m = tx.init(params), 0.0
        for _ in range(4):
            g = rng.normal(size=shape)
            u, state = tx.update(jnp.asarray(g), state, params)
            m = 0.95 * m + 0.05 * g
            rows = int(np.prod(shape[:-1]))
            flat = (0.05 * g + 0.95 * m).reshape(rows, shape[-1])
            factor = np.sqrt(max(1, shape[-1] / rows)) if scale == 'width' else 0.2 * np.sqrt(max(rows, shape[-1]))
            np.testing.assert_allclose(u, factor * newton_schulz(flat).reshape(shape), rtol=1e-9, atol=1e-11)


def test_muon_brings_singular_values_near_one(optim):
    matrix = normal(20, 30) @ jnp.diag(jnp.logspace(-1, 1, 30))
    values = np.linalg.svd(np.asarray(optim.orthogonalize(matrix)), compute_uv=False)
    assert values.min() > 0.3
    assert values.max() < 1.3
    same(optim.orthogonalize(jnp.zeros((3, 4))), jnp.zeros((3, 4)))


@pytest.mark.parametrize('spread', [0, -6])
@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('shape', [(96, 12), (12, 96), (30, 20)])
def test_both_forms_of_newton_schulz_map_singular_values_by_the_polynomial(optim, shape, form, spread):
    u, s, v = np.linalg.svd(np.random.default_rng(0).normal(size=shape), full_matrices=False)
    s = s * np.logspace(0, spread, len(s))
    with forms(form):
        got = optim.orthogonalize(jnp.asarray(u * s @ v, jnp.float32))
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    # The product X X^T has the squares of singular values: the CPU's form resolves the small ones less.
    np.testing.assert_allclose(got, u * s @ v, atol=2e-3 if (form, spread) == ('cpu', -6) else 1e-4)


def test_muon_takes_convolutions_and_leaves_vectors_and_the_head_to_adam(optim):
    params, grads = network(), network()
    tx = optim.muon(0.1, adam_where='^head', adam_learning_rate=0.01)
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    by_adam = [updates['Conv_0']['bias'], updates['head']['kernel'], updates['head']['bias']]
    for u in by_adam:
        np.testing.assert_allclose(jnp.abs(u), 0.01, rtol=1e-4)
    values = np.linalg.svd(np.asarray(updates['Conv_0']['kernel']).reshape(18, 4), compute_uv=False)
    assert np.all((values > 0.05) & (values < 0.13))  # 0.1 times about 1: the kernel as one matrix [H W I, O]


def soap_oracle(grads, b1, b2, eps, every):
    """Vyas et al. 2024, algorithms 3 and 4, on one matrix."""
    m, v, left, right, updates = 0.0, 0.0, 0.0, 0.0, []
    for k, g in enumerate(grads, start=1):
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if k == 1:
            ql, qr = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
        elif k % every == 0:
            order = np.argsort(-np.diag(ql.T @ left @ ql), kind='stable')
            v, ql = v[order], np.linalg.qr(left @ ql[:, order])[0]
            order = np.argsort(-np.diag(qr.T @ right @ qr), kind='stable')
            v, qr = v[:, order], np.linalg.qr(right @ qr[:, order])[0]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (ql.T @ g @ qr) ** 2
        n = (ql.T @ m @ qr / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
        updates.append(ql @ n @ qr.T)
    return updates


@pytest.mark.parametrize('shape', [(4, 4), (3, 3, 2, 5)])
def test_soap_is_the_paper_s(optim, shape):
    """A gradient of full rank in square form; for [18, 5] the left basis has a null space, which Adam cannot see."""
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=shape) for _ in range(9)]
    tx = optim.scale_by_soap(0.9, 0.95, 1e-6, every=3)
    with jax.enable_x64(True):
        state = tx.init(jnp.zeros(shape))
        for g, expected in zip(
            grads, soap_oracle([g.reshape(-1, shape[-1]) for g in grads], 0.9, 0.95, 1e-6, 3), strict=True
        ):
            u, state = jax.jit(tx.update)(jnp.asarray(g), state)
            if shape == (4, 4):
                np.testing.assert_allclose(u, expected.reshape(shape), rtol=1e-7, atol=1e-9)
    assert u.shape == shape
    assert np.all(np.isfinite(u))


def test_soap_is_equivariant_to_rotations_and_adam_is_not(optim):
    """The property that names it: in rotated axes it makes the rotated step."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    grads = [rng.normal(size=(4, 4)) for _ in range(7)]
    with jax.enable_x64(True):
        for tx, invariant in ((optim.scale_by_soap(every=2), True), (optim.scale_by_adam(), False)):
            a, b = tx.init(jnp.zeros((4, 4))), tx.init(jnp.zeros((4, 4)))
            for g in grads:
                u, a = tx.update(jnp.asarray(g), a)
                turned, b = tx.update(jnp.asarray(q @ g), b)
            gap = float(jnp.max(jnp.abs(q @ u - turned)))
            assert (gap < 1e-6) == invariant


def test_soap_keeps_long_sides_and_vectors_in_their_own_axes(optim):
    grads = {'w': normal(3, 4), 'b': normal(5)}
    long = optim.scale_by_soap(0.9, 0.99, max_size=2)
    adam = optim.scale_by_adam(0.9, 0.99)
    a, b = long.init(grads), adam.init(grads)
    for _ in range(3):
        u, a = long.update(grads, a)
        v, b = adam.update(grads, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), u, v)


@pytest.mark.parametrize('name', ['lamb', 'lars'])
def test_vectors_are_not_scaled_by_default(optim, name):
    params = {'b': jnp.array([3.0, 4.0]), 'zero': jnp.zeros((2, 2)), 'w': jnp.full((2, 2), 2.0)}
    grads = {'b': jnp.array([1.0, 1.0]), 'zero': jnp.ones((2, 2)), 'w': jnp.ones((2, 2))}
    out = {}
    for vectors in (False, True):
        tx = getattr(optim, name)(0.1, weight_decay=0.5, vectors=vectors)
        out[vectors], _ = tx.update(grads, tx.init(params), params)
    plain = -0.1 * jnp.ones(2)
    np.testing.assert_allclose(out[False]['b'], plain, rtol=1e-5)
    if name == 'lars':
        expected = -0.1 * 0.001 * 5 / (np.sqrt(2) + 0.5 * 5) * np.array([2.5, 3.0])
    else:
        expected = -0.1 * 5 / np.hypot(2.5, 3.0) * np.array([2.5, 3.0])
    np.testing.assert_allclose(out[True]['b'], expected, rtol=1e-5)
    np.testing.assert_allclose(out[True]['zero'], -0.1, rtol=1e-5)  # a norm of zero: the ratio is 1


# bad input


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda o: o.sgd(-0.1), 'learning_rate=-0.1'),
        (lambda o: o.sgd(float('nan')), 'learning_rate=nan'),
        (lambda o: o.sgd(float('inf')), 'learning_rate=inf'),
        (lambda o: o.adam(None), 'learning_rate=None'),
        (lambda o: o.adam('1e-3'), "learning_rate='1e-3' is not a number"),
        (lambda o: o.adamw(0.1, where='*b').init({'b': jnp.ones(2)}), 'is not a valid regular expression'),
        (lambda o: o.partition({'(b': o.sgd(0.1)}).init({'b': jnp.ones(2)}), 'is not a valid regular expression'),
        (lambda o: o.adadelta(eps=0.0), 'eps=0'),
        (lambda o: o.adam(0.1, b1=1.0), 'b1=1.0'),
        (lambda o: o.adam(0.1, b2=-0.1), 'b2=-0.1'),
        (lambda o: o.adam(0.1, eps=-1.0), 'eps=-1.0'),
        (lambda o: o.momentum(0.1, 1.0), 'momentum=1.0'),
        (lambda o: o.rmsprop(0.1, decay=1.0), 'decay=1.0'),
        (lambda o: o.adamw(0.1, weight_decay=-1), 'weight_decay=-1'),
        (lambda o: o.clip_by_global_norm(0), 'max_norm=0'),
        (lambda o: o.ema(1.5), 'decay=1.5'),
        (lambda o: o.nesterov(0.1, stored='thta'), "did you mean 'theta'"),
        (lambda o: o.muon(0.1, scale='wdth'), "did you mean 'width'"),
        (lambda o: o.schedule_free(o.trace(0.9)).init(jnp.ones(2)), 'one learning rate'),
        (lambda o: o.schedule_free(o.sgd(0.1), interpolation=0.0), 'interpolation=0'),
        (lambda o: o.cosine(0.1, steps=0), 'steps=0'),
        (lambda o: o.linear_decay(0.1, 0.0, 10.5), 'steps=10.5'),
        (lambda o: o.step_decay(0.1, (5, 3)), 'must increase'),
        (lambda o: o.warmup(5, 0.1), 'is not a schedule'),
        (lambda o: o.adamw(0.1).update(jnp.ones(2), o.adamw(0.1).init(jnp.ones(2))), 'needs the parameters'),
        (lambda o: o.bucket_leaves(o.lamb(0.1)).init({'a': jnp.ones(2)}), 'bucket'),
        (lambda o: o.bucket_leaves(o.adamw(0.1, where='a')).init({'a': jnp.ones(2)}), 'bucket'),
        (lambda o: o.bucket_leaves(o.ema(0.9)).init({'a': jnp.ones(2)}), 'bucket'),
        (lambda o: o.bucket_leaves(o.nesterov(0.9)).init({'a': jnp.ones(2)}), 'bucket'),
        (lambda o: o.adam(0.1).init({'a': jnp.ones(2, jnp.complex64)}), 'a is complex64'),
    ],
)
def test_bad_input_is_refused(optim, make, message):
    with pytest.raises(UsageError, match=message):
        make(optim)


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'adam', 'adadelta', 'lion', 'lamb', 'soap'])
def test_an_update_of_another_shape_or_tree_is_refused(optim, name):
    params = {'w': jnp.ones((3, 1)), 'b': jnp.ones(3)}
    tx = getattr(optim, name)(0.1)
    state = tx.init(params)
    with pytest.raises(UsageError, match=r'b has shape \(1,\), the parameter \(3,\)'):
        tx.update({'w': jnp.ones((3, 1)), 'b': jnp.ones(1)}, state, params)
    with pytest.raises(UsageError, match='tree of the updates differs'):
        tx.update({'w': jnp.ones((3, 1))}, state, params)


@pytest.mark.parametrize('name', ['sgd', 'nesterov', 'adam', 'adadelta', 'nadam', 'lion', 'lamb', 'muon', 'soap'])
def test_an_empty_tree_is_a_no_op(optim, name):
    tx = optax.chain(optim.clip_by_global_norm(1.0), getattr(optim, name)(0.1), optim.ema(0.9))
    state = tx.init({})
    updates, state = tx.update({}, state, {})
    assert updates == {}
    assert optim.eval_params({}, state) == {}


@pytest.mark.parametrize('name', ['adam', 'adamw', 'nadam', 'rmsprop', 'lamb'])
def test_a_square_that_overflows_does_not_make_nan(optim, name):
    """A gradient above 1.8e19 has an infinite square in float32; its average stays infinite, as optax's does."""
    tx = getattr(optim, name)(0.1)
    params = {'a': jnp.array([1.0, 2.0])}
    state = tx.init(params)
    for gradient in ([2e19, 1.0], [1.0, 1.0], [2e19, 1.0], [1.0, 1.0]):
        updates, state = tx.update({'a': jnp.array(gradient)}, state, params)
        assert np.isfinite(updates['a']).all(), name
        params = {'a': params['a'] + updates['a']}
