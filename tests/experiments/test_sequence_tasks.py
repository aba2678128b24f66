"""The copy and the adding task by their definitions, and gradients over time against float64 products of Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from experiments import configs, sequence_tasks
from experiments.sequence_tasks import BLANK, COPIED, DELIMITER, adding, baseline, copying

MEMORY = 'configs/claims/memory.py'


def config_of(root, **changes):
    config = configs.load(f'{root}/{MEMORY}:smoke')
    config.update_from_flattened_dict(changes)
    return config


def test_the_copy_task_repeats_its_letters_behind_the_gap():
    batch = copying(np.random.default_rng(0), 5, gap=7)
    tokens = batch['heard'].argmax(-1)
    assert tokens.shape == batch['answer'].shape == (5, 27)
    np.testing.assert_array_equal(tokens[:, :COPIED], batch['answer'][:, -COPIED:])
    assert (tokens[:, :COPIED] < BLANK).all()
    assert (batch['answer'][:, :-COPIED] == BLANK).all()
    np.testing.assert_array_equal(np.argwhere(tokens == DELIMITER)[:, 1], 16)  # ten answers are asked for behind it
    assert (tokens == BLANK).sum() == 5 * (6 + COPIED)


def test_the_adding_task_flags_one_number_in_each_half():
    batch = adding(np.random.default_rng(0), 400, gap=9)
    value, flag = np.moveaxis(batch['heard'].astype(np.float64), -1, 0)
    assert (flag[:, :4].sum(1) == 1).all()
    assert (flag[:, 4:].sum(1) == 1).all()
    assert (flag[:, 8].any(), flag[:, 4].any(), flag[:, 3].any(), flag[:, 0].any()) == (True,) * 4
    np.testing.assert_allclose(batch['answer'], (value * flag).sum(1), rtol=1e-6)


def test_baselines_are_the_losses_of_who_remembers_nothing():
    answer = adding(np.random.default_rng(0), 200_000, gap=10)['answer'].astype(np.float64)
    np.testing.assert_allclose(((answer - 1) ** 2).mean(), baseline('adding', 10), rtol=0.01)
    letters = copying(np.random.default_rng(0), 3, gap=30)['answer']
    p = np.full((3, 50, 10), 1e-30)
    p[:, :40, BLANK] = 1
    p[:, 40:, :BLANK] = 1 / 8
    nats = -np.log(np.take_along_axis(p, letters[..., None], -1)).mean()
    np.testing.assert_allclose(nats, baseline('copy', 30))


def test_batches_are_a_function_of_seed_and_number(root):
    train, other = (sequence_tasks.make(config_of(root, seed=seed, **{'data.gap': 10})).train for seed in (0, 1))
    np.testing.assert_array_equal(train[3]['heard'], train[3]['heard'])
    assert (train[3]['heard'] != train[4]['heard']).any()
    assert (train[3]['heard'] != other[3]['heard']).any()


def test_gradients_over_time_are_products_of_jacobians():
    """Of a tanh RNN in float64, by hand: d s_t / d s_{t-1} = diag(1 - s_t^2) W^T, and u runs back through them."""
    reader = sequence_tasks._reader(features=1, cell='rnn', hidden=6)
    heard = np.random.default_rng(0).normal(size=(3, 9, 2))
    with jax.enable_x64(True):
        params = reader.init(jax.random.key(0), jnp.asarray(heard))['params']
        found = sequence_tasks.gradients(reader, params, jnp.asarray(heard)).value
        u = np.asarray(jax.random.normal(jax.random.key(0), (3, 6)))
    layer = jax.tree.map(lambda x: np.asarray(x, np.float64), params['layer']['forward_0'])
    u, states, expected = u / np.linalg.norm(u, axis=1, keepdims=True), [np.zeros((3, 6))], []
    for t in range(9):
        states.append(np.tanh(heard[:, t] @ layer['kernel'] + states[-1] @ layer['recurrent'] + layer['bias']))
    for t in range(9, 0, -1):
        expected.append(np.linalg.norm(u, axis=1).mean())
        u = (u * (1 - states[t] ** 2)) @ layer['recurrent'].T
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('cell', ['lstm', 'gru'])
def test_gradients_of_gated_cells_against_finite_differences(cell):
    reader = sequence_tasks._reader(features=1, cell=cell, hidden=4)
    with jax.enable_x64(True):
        heard = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5, 2)))
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), reader.init(jax.random.key(1), heard)['params'])
        found = sequence_tasks.gradients(reader, params, heard).value
        u = np.asarray(jax.random.normal(jax.random.key(0), (1, 4)))[0]
        go_on = jax.jit(lambda before, x: reader.layer.bind({'params': params['layer']})(x, initial=before))
        _, middle = go_on(None, heard[:, :3])
        flat, back = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float64), middle))

        def told(state):
            return float(np.asarray(go_on(back(state), heard[:, 3:])[0])[0, -1] @ (u / np.linalg.norm(u)))

        steps = 1e-3 * np.eye(len(flat))
        slopes = [(told(flat + step) - told(flat - step)) / 2e-3 for step in steps]
    np.testing.assert_allclose(found[2], np.linalg.norm(slopes), rtol=1e-5)


def test_what_the_tasks_do_not_take(root):
    for changes, message in (
        ({'data.task': 'coppy'}, "data.task='coppy' is none of copy, adding; did you mean 'copy'"),
        ({'data.gap': 1}, 'data.gap=1 must be a whole number at least 2'),
        ({'model.cell': 'grv'}, "model.cell='grv' is none of rnn, lstm, gru"),
    ):
        with pytest.raises(UsageError, match=message):
            sequence_tasks.make(config_of(root, **changes))
