"""From a config to a transform: what is built, in which order, and how a slip is answered."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from canon import optim
from canon.errors import UsageError

PARAMS = {'a': jnp.array([1.0, -2.0, 0.5]), 'b': {'kernel': jnp.full((2, 3), 0.25, jnp.float32)}}
GRADS = {'a': jnp.array([3.0, -1.0, 0.0]), 'b': {'kernel': jnp.arange(6.0).reshape(2, 3) - 2}}


def run(tx, steps=3, params=PARAMS):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_one_link_is_the_function_called():
    same(run(optim.make_optimizer(dict(name='adam', learning_rate=0.1, b1=0.5))), run(optim.adam(0.1, b1=0.5)))


def test_a_chain_keeps_the_order_that_a_config_dict_would_sort():
    spec = ConfigDict(
        dict(
            chain=('zclip', 'descent', 'average'),
            zclip=dict(name='clip_by_global_norm', max_norm=1.0),
            descent=dict(name='momentum', learning_rate=0.1),
            average=dict(name='ema', decay=0.9),
        )
    )
    by_hand = optax.chain(optim.clip_by_global_norm(1.0), optim.momentum(0.1), optim.ema(0.9))
    same(run(optim.make_optimizer(spec)), run(by_hand))


def test_schedules_nest():
    spec = dict(name='sgd', learning_rate=dict(name='warmup', steps=2, then=dict(name='cosine', init=1.0, steps=4)))
    tx = optim.make_optimizer(spec)
    state, rates = tx.init(PARAMS), []
    for _ in range(7):
        _, state = tx.update(GRADS, state, PARAMS)
        rates.append(float(optim.hyperparams(state)['learning_rate']))
    half = np.sin(np.pi * np.array([4, 3, 2, 1, 0]) / 8) ** 2
    np.testing.assert_allclose(rates, [0.0, 0.5, *half], atol=1e-7)
    assert rates[2] == 1.0
    assert rates[-1] == 0.0


def test_optax_by_name():
    spec = dict(name='optax.lion', learning_rate=dict(name='linear_decay', init=0.1, final=0.0, steps=2))
    by_hand = optax.lion(optax.linear_schedule(0.1, 0.0, 2))
    same(run(optim.make_optimizer(spec))[0], run(by_hand)[0])
    assert isinstance(optim.make_optimizer(dict(name='optax.contrib.muon', learning_rate=0.1)), tuple)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (dict(name='adamm', learning_rate=0.1), "tx: no optimizer is called 'adamm'; did you mean 'adam'"),
        (dict(name='adam', learning_rat=0.1), "tx.learning_rat: .*did you mean 'learning_rate'"),
        (dict(name='sgd'), "tx: sgd needs 'learning_rate'"),
        (dict(name='sgd', learning_rate=dict(name='cosin')), "tx.learning_rate: .*did you mean 'cosine'"),
        (dict(name='sgd', learning_rate=dict(name='cosine', init=1, step=5)), "tx.learning_rate.step: .*'steps'"),
        (dict(name='sgd', learning_rate=dict(name='cosine', init=1, steps=-5)), 'tx.learning_rate: steps=-5'),
        (dict(name='sgd', learning_rate=-0.1), 'tx: learning_rate=-0.1'),
        (dict(name='sgd', learning_rate=float('nan')), 'tx: learning_rate=nan'),
        (dict(name='cosine', init=1, steps=5), 'is a schedule'),
        (dict(chain=('adam',), adma=dict()), "tx.adma is not in tx.chain; did you mean 'adam'"),
        (dict(chain=('adam',), adam=dict(epss=0.9)), "tx.adam.epss: .*did you mean 'eps'"),
        (dict(learning_rate=0.1), 'tx needs a name, or a chain'),
        (dict(name='optax.adafacto'), "did you mean 'adafactor'"),
        (dict(name='optax.adafactor', learning_rte=0.1), "tx.learning_rte: .*'learning_rate'"),
        (dict(name='optax.nosuch.muon'), "no module 'optax.nosuch'"),
        (dict(name='optax.l2_loss', predictions=0.0), 'does not return a gradient transformation'),
    ],
)
def test_misspelt_names_are_answered_with_near_ones(spec, message):
    with pytest.raises(UsageError, match=message):
        optim.make_optimizer(spec)


PLATEAU = dict(name='divide_on_plateau', metric='test/loss', patience=2, mode='min')
RECIPES = {  # notes 2.5
    'alexnet': (0.01, 0.0005),
    'vgg': (0.01, 0.0005),
    'resnet': (0.1, 0.0001),
}


@pytest.mark.parametrize('name', RECIPES)
def test_the_recipes_of_the_notes(name):
    """v <- 0.9 v - decay rate w - rate g (Krizhevsky et al. 2012, section 5), the rate divided by 10 on a plateau."""
    rate, decay = RECIPES[name]
    spec = ConfigDict(
        dict(
            chain=('decay', 'plateau', 'momentum'),
            decay=dict(name='add_decayed_weights', weight_decay=decay),
            plateau=PLATEAU,
            momentum=dict(learning_rate=rate),
        )
    )
    tx = optim.make_optimizer(spec)
    params, state = PARAMS, tx.init(PARAMS)
    w = np.asarray(PARAMS['a'], np.float64)
    g, v = np.asarray(GRADS['a'], np.float64), 0.0
    for k in range(8):
        if k == 4:
            for _ in range(3):  # the first sets the best, two more are a plateau
                state = optim.observe(state, {'test/loss': 1.0})
        now = rate if k < 4 else rate / 10
        v = 0.9 * v - decay * now * w - now * g
        w = w + v
        updates, state = tx.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params['a'], w, rtol=1e-6, atol=1e-7)


def test_the_recipe_of_crnn():
    spec = dict(name='adadelta', decay=0.9, eps=1e-6, eps_in_sqrt=True)
    same(run(optim.make_optimizer(spec)), run(optim.adadelta(eps_in_sqrt=True)))


def test_a_chain_inside_a_wrapper():
    inner = dict(
        chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(learning_rate=0.1)
    )
    tx = optim.make_optimizer(dict(name='schedule_free', tx={**inner, 'adam': dict(learning_rate=0.1, b1=0.0)}))
    by_hand = optim.schedule_free(optax.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1, b1=0.0)))
    same(run(tx), run(by_hand))
    with pytest.raises(UsageError, match=r'tx\.tx\.adam\.b3: .*'):
        optim.make_optimizer(dict(name='skip_nonfinite', tx={**inner, 'adam': dict(learning_rate=0.1, b3=0.0)}))
