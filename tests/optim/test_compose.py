"""Inside optax's and Flax's containers, and with hyperparameters that are traced: the argument decides."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from canon.errors import UsageError
from tests.optim.everything import ALL, some_fast

RNG = np.random.default_rng(3)
PARAMS = {'kernel': jnp.asarray(RNG.normal(size=(2, 2)), jnp.float32), 'bias': jnp.ones(2, jnp.float32)}
GRADS = [jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), PARAMS) for _ in range(4)]


def walk(optim, tx):
    """Three updates from PARAMS, one evaluation before the last: where they lead, and what is evaluated there."""
    params, state = PARAMS, tx.init(PARAMS)
    for step, grads in enumerate(GRADS[:3]):
        if step == 2:
            state = optim.observe(optim.observe(state, {'loss': 1.0}), {'loss': 0.95})
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, optim.eval_params(params, state)


def quick_jit(function):
    """jax.jit that spends little time on code which runs once."""
    return jax.jit(
        function, compiler_options={'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
    )


def close(a, b, rtol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=0.1 * rtol), a, b)


def schedules(o):
    def factory(init, final, by, decay, rising):
        then = o.exponential(o.linear_decay(o.cosine(init, final=final, steps=5)(1), final, 5)(1), decay=decay, steps=5)
        falling = o.step_decay(o.inverse_sqrt(then(1), 3)(1), (1,), by)
        return o.sgd(o.warmup(1, falling, init=rising))

    return factory


def plateau(o):
    return lambda by, min_delta: optax.chain(o.divide_on_plateau('loss', 1, by, min_delta, 'min'), o.sgd(0.1))


# name: (our factory, its numbers, its other arguments, optax's factory or None, optax's other arguments)
RATE = dict(learning_rate=0.1)
FACTORIES = {
    'sgd': (lambda o: o.sgd, RATE, {}, optax.sgd, {}),
    'sgd, momentum': (lambda o: o.sgd, RATE | dict(momentum=0.9), {}, optax.sgd, {}),
    'sgd, nesterov': (lambda o: o.sgd, RATE | dict(momentum=0.9), dict(nesterov=True), optax.sgd, dict(nesterov=True)),
    'momentum': (
        lambda o: o.momentum,
        RATE | dict(momentum=0.9),
        {},
        lambda learning_rate, momentum: optax.chain(optax.scale(-learning_rate), optax.trace(momentum)),
        {},
    ),
    'nesterov': (lambda o: o.nesterov, RATE | dict(momentum=0.9), {}, None, {}),
    'adagrad': (lambda o: o.adagrad, RATE | dict(eps=1e-2, initial_accumulator=0.1), {}, None, {}),
    'rmsprop': (
        lambda o: o.rmsprop,
        RATE | dict(decay=0.9, eps=1e-2),
        dict(eps_in_sqrt=True),
        optax.rmsprop,
        {},
    ),
    'adadelta': (
        lambda o: o.adadelta,
        dict(learning_rate=1.0, rho=0.9, eps=1e-2),
        dict(eps_in_sqrt=True),
        optax.adadelta,
        {},
    ),
    'adam': (lambda o: o.adam, RATE | dict(b1=0.9, b2=0.99, eps=1e-2), {}, optax.adam, {}),
    'adamw': (lambda o: o.adamw, RATE | dict(b1=0.4, b2=0.99, eps=1e-2, weight_decay=0.1), {}, optax.adamw, {}),
    'nadam': (
        lambda o: o.nadam,
        RATE | dict(b1=0.9, b2=0.99, eps=1e-2),
        dict(momentum_decay=None),
        optax.nadam,
        {},
    ),
    'nadam, Dozat': (lambda o: o.nadam, RATE | dict(b1=0.9, momentum_decay=0.004), {}, None, {}),
    'lion': (lambda o: o.lion, RATE | dict(b1=0.9, b2=0.99, weight_decay=0.1), {}, optax.lion, {}),
    'lamb': (
        lambda o: o.lamb,
        RATE | dict(b1=0.9, b2=0.99, eps=1e-2, weight_decay=0.1),
        dict(vectors=True),
        optax.lamb,
        {},
    ),
    'lars': (
        lambda o: o.lars,
        RATE | dict(momentum=0.9, weight_decay=0.1, trust_coefficient=0.1, eps=1e-2),
        {},
        None,
        {},
    ),
    'muon': (
        lambda o: o.muon,
        RATE | dict(momentum=0.9, steps=3, weight_decay=0.1, adam_learning_rate=0.1, adam_b1=0.9, adam_b2=0.9),
        {},
        None,
        {},
    ),
    'soap': (
        lambda o: o.soap,
        RATE | dict(b1=0.9, b2=0.9, eps=1e-2, weight_decay=0.1, every=2),
        {},
        None,
        {},
    ),
    'decay, clip': (
        lambda o: (
            lambda max_norm, decay: optax.chain(
                o.clip_by_global_norm(max_norm), o.add_decayed_weights(decay), o.sgd(0.1)
            )
        ),
        dict(max_norm=1.0, decay=0.1),
        {},
        lambda max_norm, decay: optax.chain(
            optax.clip_by_global_norm(max_norm), optax.add_decayed_weights(decay), optax.sgd(0.1)
        ),
        {},
    ),
    'ema': (lambda o: lambda decay: optax.chain(o.sgd(0.1), o.ema(decay)), dict(decay=0.9), {}, None, {}),
    'rates': (
        lambda o: lambda factor: optax.chain(o.sgd(0.1), o.scale_rates({'bias': factor, '.*': 1.0})),
        dict(factor=0.5),
        {},
        None,
        {},
    ),
    'plateau': (plateau, dict(by=4.0, min_delta=0.051), {}, None, {}),
    'schedule_free': (
        lambda o: (
            lambda interpolation, weight_power: o.schedule_free(
                o.sgd(o.linear_decay(0.05, 0.2, 3)), interpolation=interpolation, weight_power=weight_power
            )
        ),
        dict(interpolation=0.9, weight_power=2.0),
        {},
        None,
        {},
    ),
    'schedules': (schedules, dict(init=0.3, final=0.1, by=3.0, decay=0.5, rising=0.2), {}, None, {}),
    'wrappers': (
        lambda o: (
            lambda rate, b1: o.skip_nonfinite(o.master_weights(o.partition({'.*': o.bucket_leaves(o.adam(rate, b1))})))
        ),
        dict(rate=0.1, b1=0.9),
        {},
        lambda rate, b1: optax.adam(rate, b1),
        {},
    ),
}


@pytest.mark.parametrize(
    'name',
    some_fast(FACTORIES, ('sgd', 'momentum', 'adamw', 'soap', 'plateau', 'schedule_free', 'schedules', 'wrappers')),
)
def test_injected_under_jit_and_mapped_over_every_number(optim, name):
    """Row 0 has the numbers of the table, each further row another one of them changed."""
    make, numbers, others, theirs, their_others = FACTORIES[name]
    rows = [numbers, *({**numbers, k: v - 1 if isinstance(v, int) else 0.5 * v} for k, v in numbers.items())]
    stacked = {k: jnp.asarray([row[k] for row in rows]) for k in numbers}

    def run(factory, others):
        static = [k for k in ('max_size',) if k in inspect.signature(factory).parameters]
        injected = optax.inject_hyperparams(factory, static_args=static)
        return quick_jit(jax.vmap(lambda row: walk(optim, injected(**row, **others))))(stacked)

    ours = run(make(optim), others)
    if theirs is not None:
        close(ours, run(theirs, their_others), 1e-4)
    else:
        exact = [{k: v[i].item() for k, v in stacked.items()} for i in range(len(rows))]
        plain = [walk(optim, make(optim)(**row, **others)) for row in exact]
        close(ours, jax.tree.map(lambda *leaves: np.stack(leaves), *plain), 1e-5)
    for i, row in enumerate(rows[1:], 1):
        same = jax.tree.map(lambda x, i=i: bool(jnp.array_equal(x[0], x[i])), ours)
        assert not all(jax.tree.leaves(same)), f'{set(row.items()) - set(numbers.items())} changes nothing'


@pytest.mark.parametrize('name', some_fast(ALL))
def test_the_containers_of_optax_change_nothing(optim, name):
    """Masked, one group of several, and with the mean of two gradients at a time, all in one; under jit."""
    tx = ALL[name](optim)
    labels = {'mine': 'mine', 'hers': 'hers', 'frozen': 'hers'}
    inner = optax.multi_transform({'mine': optax.MultiSteps(tx, 2), 'hers': optax.sgd(1.0)}, labels)
    contained = optax.masked(inner, {'mine': True, 'hers': True, 'frozen': False})
    params = {'mine': PARAMS, 'hers': PARAMS, 'frozen': PARAMS}

    def step(carry, grads):
        params, state = carry
        updates, state = contained.update({k: grads for k in params}, state, params)
        return (optax.apply_updates(params, updates | {'frozen': jax.tree.map(jnp.zeros_like, grads)}), state), updates

    def step_alone(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    each = jax.tree.map(lambda *leaves: jnp.stack(leaves), *GRADS[:2])
    stacked = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), each)

    def run(params, stacked, each):
        contents = jax.lax.scan(step, (params, contained.init(params)), stacked)
        return *contents, jax.lax.scan(step_alone, (PARAMS, tx.init(PARAMS)), each)[0]

    (params, _), updates, (alone, _) = quick_jit(run)(params, stacked, each)
    jax.tree.map(np.testing.assert_array_equal, updates['frozen'], stacked)
    close(params['hers'], jax.tree.map(lambda p, g: p - g.sum(0), PARAMS, stacked), 1e-6)
    close(params['mine'], alone, 2e-5)


def test_a_schedule_injected_by_optax_decides(optim):
    tx = optax.inject_hyperparams(optim.sgd)(learning_rate=optax.linear_schedule(1.0, 0.0, 4))
    state, rates = tx.init(jnp.zeros(())), []
    for _ in range(3):
        update, state = tx.update(jnp.ones(()), state)
        rates.append(float(update))
        assert {k: float(v) for k, v in optim.hyperparams(state).items()} == {'learning_rate': -rates[-1]}
    assert rates == [-1.0, -0.75, -0.5]
    state.hyperparams['learning_rate'] = jnp.asarray(0.125)  # the schedule of the injection has the last word
    constant = optax.inject_hyperparams(optim.adamw)(learning_rate=1.0)
    state = constant.init(jnp.ones(()))
    state.hyperparams['learning_rate'] = jnp.asarray(0.125)
    update, state = constant.update(jnp.ones(()), state, jnp.ones(()))
    np.testing.assert_allclose(update, -0.125 * 1.01, rtol=1e-6)
    assert float(optim.find_state(state, optim.LearningRateState).learning_rate) == 0.125


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (lambda o, x: o.sgd(x), lambda x: optax.sgd(x)),
        (lambda o, x: o.sgd(0.1, x), lambda x: optax.sgd(0.1, x)),
        (lambda o, x: o.adamw(x, weight_decay=x), lambda x: optax.adamw(x, weight_decay=x)),
    ],
    ids=['rate', 'momentum', 'rate and decay'],
)
def test_a_replaced_transform_brings_its_own_numbers(optim, ours, theirs):
    def run(make):
        state = TrainState.create(apply_fn=None, params=PARAMS, tx=make(0.5))
        for grads, value in zip(GRADS[:3], (0.5, 0.25, 0.125), strict=True):
            state = state.replace(tx=make(value)).apply_gradients(grads=grads)
        return state.params

    close(run(lambda x: ours(optim, x)), run(theirs), 1e-4)


def test_a_replaced_plateau_rule_brings_its_own_patience_and_divisor(optim):
    rules = [optim.divide_on_plateau('loss', patience, by, mode='min') for patience, by in ((5, 10.0), (1, 4.0))]
    _, state = rules[1].update(GRADS[0], rules[0].init(PARAMS), PARAMS)
    for _ in range(2):
        state = optim.observe(state, {'loss': 1.0})
    assert float(optim.hyperparams(state)['rate_factor']) == 0.25


def test_nesterov_is_exact_through_a_change_of_the_momentum(optim):
    """Sutskever et al. 2013, eq. 3-4, with a momentum for each step, in both forms."""
    momenta = [0.5, 0.9, 0.25, 0.7, 0.8]
    gradient = lambda p: jnp.array([3.0, 0.5]) * p  # noqa: E731
    theta, v = np.ones(2), np.zeros(2)
    for ahead in (0.0, *momenta[:-1]):
        v = ahead * v - 0.1 * np.asarray(gradient(theta + ahead * v))
        theta = theta + v
    for stored in ('lookahead', 'theta'):
        params, state = jnp.ones(2), optim.nesterov(0.1, 0.0, stored=stored).init(jnp.ones(2))
        for momentum in momenta:
            tx = optim.nesterov(0.1, momentum, stored=stored)
            updates, state = tx.update(gradient(optim.lookahead_params(params, state)), state, params)
            params = params + updates
        np.testing.assert_allclose(optim.eval_params(params, state), theta, rtol=1e-5)


def test_a_value_that_is_set_overrides_the_argument_until_it_is_restored(optim):
    tx = optax.chain(optim.add_decayed_weights(0.5), optim.sgd(0.25, momentum=0.75))
    params = jnp.ones(())
    state = optim.set_hyperparams(tx.init(params), weight_decay=0.0, momentum=0.0, learning_rate=1.0)
    for _ in range(2):
        update, state = tx.update(jnp.ones(()), state, params)
        assert float(update) == -1
        assert {k: float(v) for k, v in optim.overrides(state).items()} == dict(
            weight_decay=0.0, momentum=0.0, learning_rate=1.0
        )
    state = optim.set_hyperparams(state, weight_decay=None, momentum=None, learning_rate=None)
    assert not optim.overrides(state)
    update, state = tx.update(jnp.ones(()), state, params)
    assert float(update) == -0.25 * (1 + 0.5 + 0.75)
    assert [float(v) for v in optim.hyperparams(state).values()] == [0.5, 0.75, 0.25]
    with pytest.raises(UsageError, match='rate_factor=None: it is not set by an argument'):
        optim.set_hyperparams(optim.divide_on_plateau('loss', 1, mode='min').init(params), rate_factor=None)


# --- the names of optax -----------------------------------------------------------------------------------------------


def test_the_names_of_optax(optim):
    same = lambda a, b: close(walk(optim, a), walk(optim, b), 1e-7)  # noqa: E731
    same(optim.adadelta(rho=0.5), optim.adadelta(decay=0.5))
    same(optim.adagrad(initial_accumulator_value=0.5), optim.adagrad(initial_accumulator=0.5))
    same(optim.trace(decay=0.5), optim.trace(0.5))
    same(optim.muon(0.1, beta=0.5, ns_steps=2), optim.muon(0.1, momentum=0.5, steps=2))
    same(optim.make_optimizer(dict(name='adadelta', rho=0.5)), optim.adadelta(decay=0.5))
    theirs = optim.schedule_free(optim.sgd(0.1), b1=0.5, weight_lr_power=1.0)
    same(theirs, optim.schedule_free(optim.sgd(0.1), interpolation=0.5, weight_power=1.0))
    mask = {'kernel': True, 'bias': False}
    for make in (optim.adamw, optim.lion):
        by_regex = make(0.1, weight_decay=0.5, where='kernel')
        same(make(0.1, weight_decay=0.5, mask=mask), by_regex)
        same(make(0.1, weight_decay=0.5, mask=lambda params: mask), by_regex)
    moments = optim.adam(0.1, mu_dtype='bfloat16').init(PARAMS)[0]
    assert (moments.mu['bias'].dtype, moments.nu['bias'].dtype) == (jnp.bfloat16, jnp.float32)
    assert optim.sgd(0.1, 0.9, accumulator_dtype='bfloat16').init(PARAMS)[0].velocity['bias'].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (lambda o: o.cosine(init_value=0.1, decay_steps=10), lambda: optax.cosine_decay_schedule(0.1, 10)),
        (
            lambda o: o.exponential(init_value=0.1, transition_steps=3, decay_rate=0.5),
            lambda: optax.exponential_decay(0.1, 3, 0.5),
        ),
        (
            lambda o: o.linear_decay(init_value=0.1, end_value=0.01, transition_steps=10),
            lambda: optax.linear_schedule(0.1, 0.01, 10),
        ),
    ],
)
def test_the_names_of_optax_for_schedules(optim, ours, theirs):
    close([float(ours(optim)(k)) for k in (0, 1, 5, 10)], [float(theirs()(k)) for k in (0, 1, 5, 10)], 1e-6)


def test_configs_may_use_the_names_of_optax_for_schedules(optim):
    rate = dict(name='cosine', init_value=0.5, decay_steps=4)
    state = optim.make_optimizer(dict(name='sgd', learning_rate=rate)).init(PARAMS)
    assert float(optim.hyperparams(state)['learning_rate']) == 0.5
    with pytest.raises(UsageError, match="cosine needs 'steps'"):
        optim.make_optimizer(dict(name='sgd', learning_rate=dict(name='cosine', init_value=0.5)))


# Positional arguments of optax stay true or fail; none silently becomes another argument.
@pytest.mark.parametrize(
    'name',
    [
        *('adam', 'adamw', 'adagrad', 'rmsprop', 'adadelta', 'sgd', 'lars', 'lamb', 'lion', 'nadam', 'trace', 'ema'),
        *('scale_by_adam', 'scale_by_rss', 'scale_by_rms', 'scale_by_adadelta', 'scale_by_trust_ratio'),
        *('scale_by_lion', 'add_decayed_weights'),
    ],
)
def test_positional_arguments_are_those_of_optax(optim, name):
    function = getattr(optim, name)
    other_names = getattr(function, '__aliases__', {})
    parameters = inspect.signature(function).parameters.values()
    ours = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    theirs = [other_names.get(key, key) for key in inspect.signature(getattr(optax, name)).parameters]
    assert ours == theirs[: len(ours)]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda o: o.adam(lr=0.1), "adam takes no argument 'lr'; it is called learning_rate here"),
        (lambda o: o.adamw(weight_deca=0.1), "adamw takes no argument 'weight_deca'; did you mean 'weight_decay'"),
        (lambda o: o.cosine(init_valu=0.1, steps=3), "no argument 'init_valu'; did you mean 'init_value'"),
        (lambda o: o.cosine(0.1, init_value=0.1, steps=3), 'init_value is init of cosine; give one of them'),
        (lambda o: o.adadelta(decay=0.5, rho=0.9), 'rho is decay of adadelta; give one of them'),
        (lambda o: o.adadelta(1.0, 0.5, rho=0.9), 'rho is decay of adadelta'),
        (lambda o: o.adamw(where='kernel', mask={'kernel': True}), 'where=.* and mask both select parameters'),
        (
            lambda o: o.adamw(mask={'other': True}).init(PARAMS),
            'the tree of the mask differs from that of the parameters',
        ),
    ],
)
def test_two_names_for_one_argument_and_masks_that_do_not_fit(optim, make, message):
    with pytest.raises(UsageError, match=message):
        make(optim)


# --- what is refused --------------------------------------------------------------------------------------------------


def numbers():
    """(factory, its other arguments, the number, whether 1 is too much) for every number of the table."""
    decays = {'momentum', 'b1', 'b2', 'decay', 'rho', 'adam_b1', 'adam_b2', 'interpolation'}
    for name, (make, given, others, *_) in FACTORIES.items():
        for key in given:
            yield pytest.param(
                make,
                given,
                others,
                key,
                key in decays and name not in ('ema', 'schedules', 'decay, clip'),
                id=f'{name}-{key}',
            )


@pytest.mark.parametrize(('make', 'given', 'others', 'key', 'below_one'), list(numbers()))
def test_numbers_out_of_range_are_refused_where_they_are_given(optim, make, given, others, key, below_one):
    values = [
        -0.1,
        float('nan'),
        float('inf'),
        jnp.float32(-1),
        '0.1',
        True,
        jnp.ones(2),
        *([1.0] if below_one else []),
    ]
    if key not in ('learning_rate', 'adam_learning_rate', 'rate'):
        values.append(lambda count: 0.1)
    for value in values:
        with pytest.raises(UsageError, match=r'must be|is not a number|takes no schedule|expected a scalar'):
            make(optim)(**{**given, **others, key: value})


@pytest.mark.parametrize(
    'make',
    [
        lambda o, n: o.soap(0.1, max_size=n),
        lambda o, n: o.bucket_leaves(o.sgd(0.1), below=n),
        lambda o, n: o.divide_on_plateau('loss', n, mode='min'),
        lambda o, n: o.average_on_plateau('loss', n, mode='min'),
        lambda o, n: o.cosine(0.1, steps=n),
    ],
)
def test_lengths_are_integers_and_not_traced(optim, make):
    make(optim, np.int32(3))
    for bad in (2.5, -1, '3', None, True):
        with pytest.raises(UsageError, match='must be an integer of at least'):
            make(optim, bad)
    with pytest.raises(UsageError, match=r'determines shapes and cannot be traced; .*static_args'):
        jax.eval_shape(lambda n: make(optim, n) and n, 3)
