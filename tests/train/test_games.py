"""Games between networks: the simultaneous gradient, however the batch is cut up and wherever it is taken."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import Experiment, Task, fit, game, games, init_state, make_step, replay_step
from canon.train.log import read_rows

RATE = 0.1


def quadratic_game():
    """The generator minimises z.x + |x|^2/2 + x.y over real rows, the critic z.y - x.y + |y|^2 over valid rows.

    Their masks differ, so a microbatch weighs the two losses differently.
    """

    def init(key, batch):
        return {'params': {'generator': {'x': jnp.array([1.0, -2.0])}, 'critic': {'y': jnp.array([0.5, 3.0])}}}

    def generator(params, mutable, batch, at):
        x, y = params['generator']['x'], params['critic']['y']
        values = batch['z'] @ x + jnp.dot(x, x) / 2 + jnp.dot(x, y)
        return Mean.of(values, batch['real']), ({'calls': mutable['calls'] + 1}, {})

    def critic(params, mutable, batch, at):
        x, y = params['generator']['x'], params['critic']['y']
        values = batch['z'] @ y - jnp.dot(x, y) + jnp.dot(y, y)
        return Mean.of(values, batch['mask']), ({'calls': mutable['calls'] + 10}, {'margin': Mean.of(values)})

    gradient = game({'generator': ('^generator/', generator), 'critic': ('^critic/', critic)})
    return Task(lambda key, batch: init(key, batch) | {'calls': jnp.zeros(())}, None, lambda *_: None, gradient)


def make_batch(step):
    rng = np.random.default_rng(step)
    return {
        'z': rng.normal(size=(8, 2)).astype(np.float32),
        'real': rng.random(8) < 0.5,
        'mask': np.arange(8) != step % 8,
    }


def closed_form(params, batch):
    """Each player's gradient of its own mean loss, in float64."""
    z, x, y = (np.asarray(v, np.float64) for v in (batch['z'], params['generator']['x'], params['critic']['y']))
    return z[batch['real']].mean(0) + x + y, z[batch['mask']].mean(0) - x + 2 * y


@pytest.mark.parametrize('accumulate', [1, 4])
def test_a_step_is_simultaneous_gradient_descent(accumulate):
    task, tx, batch = quadratic_game(), optim.sgd(RATE), make_batch(0)
    state = init_state(task, tx, 0, batch)
    new, metrics = jax.jit(make_step(task, tx, 0, accumulate))(state, batch)
    by_x, by_y = closed_form(state.params, batch)
    np.testing.assert_allclose(new.params['generator']['x'], state.params['generator']['x'] - RATE * by_x, rtol=2e-6)
    np.testing.assert_allclose(new.params['critic']['y'], state.params['critic']['y'] - RATE * by_y, rtol=2e-6)
    np.testing.assert_allclose(metrics['grad_norm'].value, np.sqrt((by_x**2).sum() + (by_y**2).sum()), rtol=1e-6)
    assert float(new.mutable['calls']) == 11 * accumulate  # each player's loss once per microbatch, in their order
    assert {'loss', 'generator_loss', 'critic_loss', 'critic_margin'} <= metrics.keys()
    assert float(metrics['generator_loss'].weight) == batch['real'].sum()
    assert float(metrics['loss'].weight) == batch['real'].sum() + 7


def test_the_gradient_of_a_game_is_taken_at_the_lookahead():
    """Two steps of Nesterov's method; a gradient at the parameters themselves would differ in the second."""
    task, tx, batch = quadratic_game(), optim.nesterov(RATE, momentum=0.9, stored='theta'), make_batch(0)
    state = init_state(task, tx, 0, batch)
    step = jax.jit(make_step(task, tx, 0))
    theta = [np.asarray(v, np.float64) for v in (state.params['generator']['x'], state.params['critic']['y'])]
    velocity = [np.zeros(2), np.zeros(2)]
    for _ in range(2):
        points = [t + 0.9 * v for t, v in zip(theta, velocity, strict=True)]
        grads = closed_form({'generator': {'x': points[0]}, 'critic': {'y': points[1]}}, batch)
        velocity = [0.9 * v - RATE * g for v, g in zip(velocity, grads, strict=True)]
        theta = [t + v for t, v in zip(theta, velocity, strict=True)]
        state, _ = step(state, batch)
    np.testing.assert_allclose(state.params['generator']['x'], theta[0], rtol=5e-6)
    np.testing.assert_allclose(state.params['critic']['y'], theta[1], rtol=5e-6)


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_game_is_trained_logged_and_replayed(tmp_path, accumulate):
    experiment = Experiment(quadratic_game(), dict(name='sgd', learning_rate=RATE), Generated(make_batch, 8))
    config = dict(seed=0, run=dict(steps=4, log_every=1, accumulate=accumulate, log=()))
    fitted = fit(experiment, config, tmp_path, quiet=True)
    rows = {row['step']: row for row in read_rows(tmp_path / 'metrics.jsonl')}
    replayed = replay_step(experiment, config, tmp_path, 4)
    assert replayed.metrics['critic_loss'] == pytest.approx(rows[4]['train/critic_loss'], rel=1e-6)
    assert replayed.metrics['grad_norm'] == pytest.approx(rows[4]['train/grad_norm'], rel=1e-6)
    norm = np.sqrt(sum(gradient**2 for _, _, gradient, _, _ in replayed.leaves))
    assert norm == pytest.approx(rows[4]['train/grad_norm'], rel=1e-6)
    params = {'generator': {'x': np.array([1.0, -2.0])}, 'critic': {'y': np.array([0.5, 3.0])}}
    for number in range(4):
        by_x, by_y = closed_form(params, make_batch(number))
        params = {
            'generator': {'x': params['generator']['x'] - RATE * by_x},
            'critic': {'y': params['critic']['y'] - RATE * by_y},
        }
    np.testing.assert_allclose(fitted.state.params['generator']['x'], params['generator']['x'], rtol=1e-5)
    np.testing.assert_allclose(fitted.state.params['critic']['y'], params['critic']['y'], rtol=1e-5)


@pytest.mark.parametrize(
    ('patterns', 'message'),
    [
        (('^generator/', '^judge/'), 'critic/y belongs to no player'),
        (('.', '^critic/'), r'critic/y belongs to several players \(a, b\)'),
    ],
)
def test_every_parameter_belongs_to_one_player(patterns, message):
    loss = lambda params, mutable, batch, at: (Mean.of(batch['z']), (mutable, {}))  # noqa: E731
    gradient = game({name: (pattern, loss) for name, pattern in zip('ab', patterns, strict=True)})
    params = {'generator': {'x': jnp.zeros(2)}, 'critic': {'y': jnp.zeros(2)}}
    with pytest.raises(UsageError, match=message):
        gradient(params, {}, make_batch(0), None)


def test_the_example_of_the_documentation():
    result = doctest.testmod(games, extraglobs={'jnp': jnp, 'Mean': Mean})
    assert result.attempted
    assert not result.failed
