"""The copy and the adding problem by their definitions, and gradients over time against float64 Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import nn
from canon.tasks.sequence_memory import (
    BLANK,
    COPIED,
    DELIMITER,
    PROBLEMS,
    SequenceReadout,
    draw_adding_batch,
    draw_copy_batch,
    gradient_by_lag,
)


def test_the_copy_problem_repeats_its_letters_after_the_gap():
    batch = draw_copy_batch(np.random.default_rng(0), 5, gap=7)
    tokens = batch['input'].argmax(-1)
    assert tokens.shape == batch['target'].shape == (5, 27)
    np.testing.assert_array_equal(tokens[:, :COPIED], batch['target'][:, -COPIED:])
    assert (tokens[:, :COPIED] < BLANK).all()
    assert (batch['target'][:, :-COPIED] == BLANK).all()
    np.testing.assert_array_equal(np.argwhere(tokens == DELIMITER)[:, 1], 16)  # ten answers follow
    assert (tokens == BLANK).sum() == 5 * (6 + COPIED)


def test_the_adding_problem_flags_one_number_in_each_half():
    batch = draw_adding_batch(np.random.default_rng(0), 400, gap=9)
    value, flag = np.moveaxis(batch['input'].astype(np.float64), -1, 0)
    assert (flag[:, :4].sum(1) == 1).all()
    assert (flag[:, 4:].sum(1) == 1).all()
    assert (flag[:, 8].any(), flag[:, 4].any(), flag[:, 3].any(), flag[:, 0].any()) == (True,) * 4
    np.testing.assert_allclose(batch['target'], (value * flag).sum(1), rtol=1e-6)


def test_baselines_are_the_losses_without_memory():
    target = draw_adding_batch(np.random.default_rng(0), 200_000, gap=10)['target'].astype(np.float64)
    np.testing.assert_allclose(((target - 1) ** 2).mean(), PROBLEMS['adding'].baseline(10), rtol=0.01)
    letters = draw_copy_batch(np.random.default_rng(0), 3, gap=30)['target']
    probabilities = np.full((3, 50, 10), 1e-30)
    probabilities[:, :40, BLANK] = 1
    probabilities[:, 40:, :BLANK] = 1 / 8
    nats = -np.log(np.take_along_axis(probabilities, letters[..., None], -1)).mean()
    np.testing.assert_allclose(nats, PROBLEMS['copy'].baseline(30))


def test_gradients_over_time_are_products_of_jacobians():
    """Of a tanh RNN in float64, by hand: d s_t / d s_{t-1} = diag(1 - s_t^2) W^T, and u runs back through them."""
    model = SequenceReadout(nn.RNN(6), 1)
    inputs = np.random.default_rng(0).normal(size=(3, 9, 2))
    with jax.enable_x64(True):
        params = model.init(jax.random.key(0), jnp.asarray(inputs))['params']
        gradients = gradient_by_lag(model, params, jnp.asarray(inputs)).value
        u = np.asarray(jax.random.normal(jax.random.key(0), (3, 6)))
    layer = jax.tree.map(lambda x: np.asarray(x, np.float64), params['layer']['forward_0'])
    u, states, expected = u / np.linalg.norm(u, axis=1, keepdims=True), [np.zeros((3, 6))], []
    for t in range(9):
        states.append(np.tanh(inputs[:, t] @ layer['kernel'] + states[-1] @ layer['recurrent'] + layer['bias']))
    for t in range(9, 0, -1):
        expected.append(np.linalg.norm(u, axis=1).mean())
        u = (u * (1 - states[t] ** 2)) @ layer['recurrent'].T
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)


@pytest.mark.parametrize('cell', [nn.LSTM, nn.GRU])
def test_gradients_of_gated_cells_against_finite_differences(cell):
    model = SequenceReadout(cell(4), 1)
    with jax.enable_x64(True):
        inputs = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5, 2)))
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), model.init(jax.random.key(1), inputs)['params'])
        gradients = gradient_by_lag(model, params, inputs).value
        u = np.asarray(jax.random.normal(jax.random.key(0), (1, 4)))[0]
        run = jax.jit(lambda before, x: model.layer.bind({'params': params['layer']})(x, initial=before))
        _, middle = run(None, inputs[:, :3])
        flat, back = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float64), middle))

        def project(state):
            return float(np.asarray(run(back(state), inputs[:, 3:])[0])[0, -1] @ (u / np.linalg.norm(u)))

        steps = 1e-3 * np.eye(len(flat))
        slopes = [(project(flat + step) - project(flat - step)) / 2e-3 for step in steps]
    np.testing.assert_allclose(gradients[2], np.linalg.norm(slopes), rtol=1e-5)
