"""MCD in its three steps and ADDA, against the updates written out in double precision; a resumed run bitwise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import optim
from canon.errors import UsageError
from canon.optim.core import path_name
from canon.tasks import adaptation
from canon.tasks.adaptation.turns import select_owned
from canon.train import Experiment, fit, init_state, make_step
from tests.quick import quick_jit
from tests.tasks import small_domains as small

DATA, NETWORK = small.Domains(), small.make_network()
RATE, B1, B2, EPS = 0.05, 0.9, 0.999, 1e-8


def make_mcd(steps=2, tx=None):
    method = adaptation.make_method('mcd', steps=steps)
    task = adaptation.adaptation_task(NETWORK, small.make_input, method)
    tx = optim.adam(RATE) if tx is None else tx
    make = adaptation.adaptation_step(NETWORK, small.make_input, method)
    return task, tx, make


# --- MCD -------------------------------------------------------------------------------------------------------------


def source_risks(params, batch):
    x = small.features(params, batch['source'])
    return sum(small.cross_entropy(small.head(params, name, x), batch['source']['label']) for name in CLASSIFIERS)


def discrepancy(params, batch):
    x = small.features(params, batch['target'])
    return jnp.abs(
        jax.nn.softmax(small.head(params, 'classifier', x)) - jax.nn.softmax(small.head(params, CLASSIFIERS[1], x))
    ).mean()


CLASSIFIERS = ('classifier', 'second_classifier')
PHASES = [
    (('extractor', *CLASSIFIERS), source_risks, 1),
    (CLASSIFIERS, lambda params, batch: source_risks(params, batch) - discrepancy(params, batch), 1),
    (('extractor',), discrepancy, 2),
]


GRADIENTS = [quick_jit(jax.grad(objective)) for _, objective, _ in PHASES]


def adam_by_hand(state, batch, step):
    """Makes one step of Saito et al., section 3.3: each phase moves its parts, with Adam's corrections of the step."""
    params, mu, nu = state
    for (parts, _, repeats), gradient in zip(PHASES, GRADIENTS, strict=True):
        for _ in range(repeats):
            grads = gradient(params, batch)
            for part in parts:
                mu[part] = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, mu[part], grads[part])
                nu[part] = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g**2, nu[part], grads[part])
                params[part] = jax.tree.map(
                    lambda p, m, v: p - RATE * m / (1 - B1**step) / (np.sqrt(v / (1 - B2**step)) + EPS),
                    *(params[part], mu[part], nu[part]),
                )
    return params, mu, nu


def test_mcd_moves_in_three_steps():
    task, tx, make = make_mcd()
    state = init_state(task, tx, 0, DATA[0])
    step = quick_jit(make(task, tx, 0))
    with jax.enable_x64(True):
        params = small.to_double(state.params)
        by_hand = params, *(jax.tree.map(np.zeros_like, params) for _ in range(2))
    before = state.params['discriminator']
    for number in range(3):
        state, measured = step(state, DATA[number])
        with jax.enable_x64(True):
            by_hand = adam_by_hand(by_hand, DATA[number], number + 1)
    for part in ('extractor', *CLASSIFIERS):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params[part], by_hand[0][part])
    jax.tree.map(np.testing.assert_array_equal, state.params['discriminator'], before)
    assert int(state.step) == 3
    assert int(optim.find_state(state.opt, optim.AdamState).count) == 3
    # Of the last of the repeated updates: the discrepancy before it, which the updates have lowered.
    assert measured['discrepancy'].value < measured['discrepancy_before'].value


def test_a_resumed_game_is_bitwise_the_one_that_never_stopped(tmp_path):
    task, _, make = make_mcd()
    tx = dict(
        chain=('adam', 'ema'), adam=dict(learning_rate=dict(name='cosine', init=0.1, steps=6)), ema=dict(decay=0.9)
    )
    experiment = Experiment(task, tx, DATA, make_step=make)

    def run(folder, **settings):
        config = dict(seed=3, run=dict(steps=6, log_every=2, log=(), **settings))
        return fit(experiment, config, tmp_path / folder, quiet=True, force=True).state

    straight = run('straight')
    run('resumed', stop_after=3)
    jax.tree.map(np.testing.assert_array_equal, straight, run('resumed'))


def test_turns_need_their_step_and_their_leaves():
    task, tx, _ = make_mcd()
    state = init_state(task, tx, 0, DATA[0])
    with pytest.raises(UsageError, match='moves in turns: give the experiment make_step'):
        make_step(task, tx, 0)(state, DATA[0])
    assert adaptation.adaptation_step(NETWORK, small.make_input, adaptation.make_method('dann')) is None


@pytest.mark.parametrize(
    'tx',
    [
        optim.partition({'^extractor/': optim.momentum(0.1), '.': optim.adam(0.1)}),
        optim.soap(0.1),  # its factors have other shapes than the parameters
        optax.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1), optim.ema(0.9)),
    ],
    ids=['partition', 'soap', 'chain'],
)
def test_each_leaf_of_the_optimizer_belongs_to_its_player(tx):
    params = {'extractor': {'kernel': jnp.ones((2, 3))}, 'classifier': {'kernel': jnp.ones((3, 2))}}
    state = jax.eval_shape(tx.init, params)
    chosen, others = (jax.tree.map(lambda x, v=v: v, state) for v in ('chosen', 'others'))
    mixed = select_owned('^extractor/', params, chosen, others)
    for path, leaf in jax.tree_util.tree_flatten_with_path(mixed)[0]:
        words = path_name(path).split('/')
        owned = 'kernel' in words and words[words.index('kernel') - 1] == 'extractor'
        assert leaf == ('chosen' if owned else 'others'), path
    bucket = optim.bucket_leaves(optim.adam(0.1)).init(params)
    with pytest.raises(UsageError, match='bucket_leaves joins parameters'):
        select_owned('.', params, bucket, bucket)


# --- ADDA ------------------------------------------------------------------------------------------------------------


def test_adda_inverts_the_labels_of_the_target_encoder():
    batch, task, tx = DATA[0], small.make_task('adda'), optim.sgd(1.0)
    state = init_state(task, tx, 0, batch)
    jax.tree.map(np.testing.assert_array_equal, state.params, state.mutable['frozen']['params'])
    # The target encoder has moved away from the frozen one.
    moved = jax.tree.map(lambda x: x * 1.5 + 0.1, state.params)
    state = state._replace(params=moved)
    new, measured = quick_jit(make_step(task, tx, 0))(state, batch)
    frozen, params = small.to_double(state.mutable['frozen']['params']), small.to_double(moved)

    def risk_of(params, label):
        x = small.features(params, batch['target'])
        return small.cross_entropy(small.head(params, 'discriminator', x), np.full(6, label))

    def discriminator_risk(params):
        source = small.head(params, 'discriminator', small.features(frozen, batch['source']))
        return (small.cross_entropy(source, np.zeros(6, int)) + risk_of(params, 1)) / 2

    with jax.enable_x64(True):
        of_discriminator = jax.grad(discriminator_risk)(params)['discriminator']
        of_encoder = jax.grad(lambda p: risk_of(p, 0))(params)['extractor']
        risk = discriminator_risk(params)
    of_discriminator, of_encoder = (jax.tree.map(np.asarray, g) for g in (of_discriminator, of_encoder))
    for part, gradient in (('discriminator', of_discriminator), ('extractor', of_encoder)):
        expected = jax.tree.map(lambda p, g: p - g, params[part], gradient)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.params[part], expected)
    for part in CLASSIFIERS:
        jax.tree.map(np.testing.assert_array_equal, new.params[part], moved[part])
    jax.tree.map(np.testing.assert_array_equal, new.mutable['frozen'], state.mutable['frozen'])
    assert 0 <= measured['domain_accuracy'].value <= 1
    np.testing.assert_allclose(measured['discriminator_loss'].value, risk, rtol=1e-5)


@pytest.mark.slow
def test_adda_starts_from_a_run_on_the_source(tmp_path):
    """Both encoders are the trained one: `run.init_from` fills the frozen copy by its rules."""
    source = Experiment(small.make_task('source_only'), optim.sgd(0.1), DATA)
    settings = dict(steps=2, log_every=2, log=())
    trained = fit(source, dict(run=settings), tmp_path / 'source', quiet=True).state
    init = dict(path=str(tmp_path / 'source'), rules=(('^frozen/params/', ''),))
    stage = Experiment(small.make_task('adda'), optim.sgd(0.0), DATA)
    adapted = fit(stage, dict(run={**settings, 'init_from': init}), tmp_path / 'adda', quiet=True).state
    for params in (adapted.params, adapted.mutable['frozen']['params']):
        jax.tree.map(np.testing.assert_array_equal, params, trained.params)
