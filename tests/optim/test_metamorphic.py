"""What must stay the same, and what must not, when the question is put another way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

RNG = np.random.default_rng(0)
SHAPES = {'a': (4, 6), 'b': (6,), 'c': (2, 3, 2)}
PARAMS = {k: jnp.asarray(RNG.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
GRADS = [{k: jnp.asarray(RNG.normal(size=s), jnp.float32) for k, s in SHAPES.items()} for _ in range(6)]
ELEMENTWISE = ['sgd', 'momentum', 'nesterov', 'adagrad', 'rmsprop', 'adadelta', 'adam', 'nadam', 'adamw', 'lion']
MATRIXWISE = ['lamb', 'lars', 'muon', 'soap']


def build(optim, name, **kwargs):
    if name in ('adamw', 'lion', 'lamb', 'lars', 'muon', 'soap'):
        kwargs = {'weight_decay': 0.0, **kwargs}
    return getattr(optim, name)(0.1, **kwargs)


def updates(tx, grads=GRADS, params=PARAMS):
    state, results = tx.init(params), []
    for g in grads:
        u, state = tx.update(g, state, params)
        results.append(u)
    return results


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b, by=1e-3):
    gaps = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))), a, b)
    assert max(jax.tree.leaves(gaps)) > by


@pytest.mark.parametrize('name', ELEMENTWISE + MATRIXWISE)
def test_oddness(optim, name):
    minus = [jax.tree.map(jnp.negative, g) for g in GRADS]
    tx = build(optim, name)
    negated = jax.tree.map(jnp.negative, updates(tx, minus))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), negated, updates(tx))


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_the_division_into_leaves_does_not_matter(optim, name):
    cut = lambda t: [t['a'][:1], jnp.ravel(t['a'][1:])[::-1], (t['c'], {'z': t['b']})]  # noqa: E731
    tx = build(optim, name)
    whole = [cut(u) for u in updates(tx)]
    same(updates(tx, [cut(g) for g in GRADS], cut(PARAMS)), whole)


@pytest.mark.parametrize('name', ['adagrad', 'rmsprop', 'adam', 'adamw', 'nadam', 'lion'])
def test_a_power_of_two_in_the_gradient_cancels(optim, name):
    kwargs = {} if name == 'lion' else {'eps': 0.0}
    larger = [jax.tree.map(lambda g: 2.0**10 * g, g) for g in GRADS]
    tx = build(optim, name, **kwargs)
    same(updates(tx, larger), updates(tx))


def test_momentum_zero_is_sgd_bit_for_bit(optim):
    plain = updates(optim.sgd(0.1))
    same(updates(optim.momentum(0.1, 0.0)), plain)
    same(updates(optim.nesterov(0.1, 0.0)), plain)


def test_rate_inside_is_rate_outside_until_it_drops(optim):
    for make in (optim.momentum, optim.nesterov):
        inside, outside = (updates(make(0.125, rate_inside=x)) for x in (True, False))
        same(inside, outside)  # a power of two, so that the order of the products does not round
        drop = optim.step_decay(0.125, (3,))
        inside, outside = (updates(make(drop, rate_inside=x)) for x in (True, False))
        same(inside[:3], outside[:3])
        differ(inside[3], outside[3])


def test_the_order_of_two_links_is_the_whole_difference(optim):
    links = optim.scale_by_learning_rate(optim.step_decay(0.1, (3,))), optim.trace(0.9)
    same(updates(optax.chain(*links)), updates(optim.momentum(optim.step_decay(0.1, (3,)))))
    same(updates(optax.chain(*links[::-1])), updates(optim.momentum(optim.step_decay(0.1, (3,)), rate_inside=False)))


def test_coupled_and_decoupled_decay(optim):
    decay = lambda: optim.add_decayed_weights(0.1)  # noqa: E731
    rate = lambda: optim.scale_by_learning_rate(0.1)  # noqa: E731
    before, behind = optax.chain(decay(), optim.sgd(0.1)), optax.chain(optim.trace(0.0), decay(), rate())
    same(updates(before), updates(behind))  # for SGD they are one
    before = optax.chain(decay(), optim.scale_by_adam(), rate())
    behind = optax.chain(optim.scale_by_adam(), decay(), rate())
    differ(updates(before)[-1], updates(behind)[-1])
    same(updates(behind), updates(optim.adamw(0.1, weight_decay=0.1)))


def test_both_conventions_of_adamw(optim):
    drop = optim.step_decay(0.1, (3,))
    paper = updates(optim.adamw(drop, weight_decay=0.05, base_learning_rate=0.1))
    usual = updates(optim.adamw(drop, weight_decay=0.5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), paper, usual)


def test_adam_without_a_first_moment_is_corrected_rmsprop(optim):
    adam = updates(optim.adam(0.1, b1=0.0, b2=0.9, eps=0.0))
    rms = updates(optim.rmsprop(0.1, decay=0.9, eps=0.0))
    for k, (a, r) in enumerate(zip(adam, rms, strict=True)):
        factor = np.sqrt(1 - 0.9 ** (k + 1))
        jax.tree.map(lambda a, r, f=factor: np.testing.assert_allclose(a, r * f, rtol=2e-6), a, r)


@pytest.mark.parametrize('name', [name for name in ELEMENTWISE if name != 'nesterov'])
def test_buckets_are_bit_exact(optim, name):
    for below in (7, 13, 10**6):
        same(updates(optim.bucket_leaves(build(optim, name), below)), updates(build(optim, name)))


@pytest.mark.parametrize('name', ELEMENTWISE + MATRIXWISE)
def test_a_partition_is_its_parts(optim, name):
    tx = optim.partition({'a|c': build(optim, name), '.*': optim.sgd(0.5)})
    part = lambda t: {k: t[k] for k in ('a', 'c')}  # noqa: E731
    alone = updates(build(optim, name), [part(g) for g in GRADS], part(PARAMS))
    together = updates(tx)
    same([part(u) for u in together], alone)
    same([u['b'] for u in together], [-0.5 * g['b'] for g in GRADS])


def test_adam_fails_where_reddi_et_al_say_and_adagrad_does_not(optim):
    """On the Convergence of Adam and Beyond, section 3: f_t = 3x every third step, else -x, on [-1, 1]; b2 = 1/(1+9).

    The average is best at -1; Adam goes to +1.
    """

    def play(tx):
        def step(carry, t):
            x, state = carry
            u, state = tx.update(jnp.where(t % 3 == 0, 3.0, -1.0), state, x)
            return (jnp.clip(x + u, -1.0, 1.0), state), None

        x = jnp.float32(0.0)
        return float(jax.lax.scan(step, (x, tx.init(x)), jnp.arange(6000))[0][0])

    assert play(optim.adam(0.01, b1=0.0, b2=0.1)) > 0.9
    assert play(optim.adagrad(0.5)) < -0.9


def test_schedules_end_exactly_and_are_exact_for_large_counts(optim):
    f32 = np.float32
    linear, cosine = optim.linear_decay(0.3, 0.007, 1000), optim.cosine(0.3, final=0.007, steps=1000)
    for rate in (linear, cosine):
        assert rate(0) == f32(0.3)
        assert rate(1000) == rate(2**31 - 1) == f32(0.007)
        assert rate(999) > f32(0.007)
        assert rate(1) < f32(0.3)
    np.testing.assert_allclose(linear(500), 0.1535, rtol=1e-6)
    np.testing.assert_allclose(cosine(250), 0.007 + 0.293 * (1 + np.cos(np.pi / 4)) / 2, rtol=1e-6)
    long = optim.linear_decay(1.0, 0.0, 2**30)
    for k in (2**24 + 1, 2**29 + 3, 2**30 - 1):
        np.testing.assert_allclose(long(k), 1 - k / 2**30, rtol=1e-6)
    np.testing.assert_allclose(optim.cosine(1.0, steps=10**6)(10**6 - 10), np.sin(np.pi / 2 * 1e-5) ** 2, rtol=1e-6)


def test_step_decay_divides_at_the_given_counts(optim):
    rate = optim.step_decay(0.1, (3, 2**24 + 1, 2**24 + 2))
    counts = [0, 2, 3, 2**24, 2**24 + 1, 2**24 + 2, 2**31 - 1]
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.0001, 0.0001]
    assert [float(rate(jnp.int32(k))) for k in counts] == [float(np.float32(x)) for x in expected]


def test_other_schedules(optim):
    noam = lambda n: min((n + 1e-30) ** -0.5, n * 400**-1.5)  # noqa: E731
    rate = optim.warmup(400, optim.inverse_sqrt(400**-0.5, 400))
    for k in (0, 1, 399, 400, 401, 10_000, 2**30):
        np.testing.assert_allclose(rate(k), noam(k), rtol=1e-6)
    slow, stairs = (optim.exponential(0.5, decay=0.94, steps=7, staircase=staircase) for staircase in (False, True))
    for k in (0, 1, 7, 20, 700):
        np.testing.assert_allclose(slow(k), 0.5 * 0.94 ** (k / 7), rtol=1e-6)
        np.testing.assert_allclose(stairs(k), 0.5 * 0.94 ** (k // 7), rtol=1e-6)
    assert slow(0) == 0.5
    then = optim.warmup(4, optim.linear_decay(1.0, 0.0, 10), init=0.2)
    np.testing.assert_allclose([then(k) for k in range(6)], [0.2, 0.4, 0.6, 0.8, 1.0, 0.9], rtol=1e-6)
