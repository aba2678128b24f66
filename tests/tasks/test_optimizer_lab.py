"""Optimizers side by side are each as if alone; surfaces and the adding problem by their formulas; effective rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim, plots
from canon.tasks.optimizer_lab import (
    SURFACES,
    draw_mean_batch,
    draw_sparse_rnn,
    effective_rate,
    run_tanh_rnn,
    side_by_side,
)
from canon.train import fit
from tests.train import toy

# surfaces


def gradient_ravine(x, y):
    return x, 50 * y


def gradient_rosenbrock(x, y):
    return -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


def gradient_beale(x, y):
    parts = [(c - x + x * y**k, k) for c, k in ((1.5, 1), (2.25, 2), (2.625, 3))]
    return sum(2 * f * (y**k - 1) for f, k in parts), sum(2 * f * x * k * y ** (k - 1) for f, k in parts)


def gradient_saddle(x, y):
    return x, y**3 - y


@pytest.mark.parametrize('name', SURFACES)
def test_gradients_are_those_of_the_formula(name):
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    with jax.enable_x64(True):
        found = jax.vmap(jax.grad(SURFACES[name].height))(jnp.stack([x, y], -1))
    np.testing.assert_allclose(found, np.stack(globals()[f'gradient_{name}'](x, y), -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('name', SURFACES)
def test_minima_are_minima_and_lie_in_the_figure_with_the_start(name):
    surface = SURFACES[name]
    x0, x1, y0, y1 = surface.box
    with jax.enable_x64(True):
        for minimum in surface.minima:
            place = jnp.asarray(minimum)
            np.testing.assert_allclose(jax.grad(surface.height)(place), 0, atol=1e-12)
            assert np.linalg.eigvalsh(jax.hessian(surface.height)(place)).min() > 0
    for x, y in (*surface.minima, surface.start):
        assert x0 < x < x1
        assert y0 < y < y1


def test_known_heights_and_curvatures():
    heights = {'ravine': 0.0, 'rosenbrock': 0.0, 'beale': 0.0, 'saddle': -0.25}
    for name, height in heights.items():
        for minimum in SURFACES[name].minima:
            assert float(SURFACES[name].height(jnp.asarray(minimum))) == pytest.approx(height, abs=1e-12)
    assert float(SURFACES['rosenbrock'].height(jnp.array([-1.2, 1.0]))) == pytest.approx(24.2, rel=1e-6)
    assert float(SURFACES['beale'].height(jnp.zeros(2))) == pytest.approx(1.5**2 + 2.25**2 + 2.625**2)
    curvatures = np.linalg.eigvalsh(jax.hessian(SURFACES['saddle'].height)(jnp.zeros(2)))
    np.testing.assert_allclose(curvatures, [-1, 1])
    curvatures = np.linalg.eigvalsh(jax.hessian(SURFACES['ravine'].height)(jnp.zeros(2)))
    np.testing.assert_allclose(curvatures, [1, 50])


# side by side


@pytest.mark.slow
def test_each_optimizer_learns_what_it_learns_alone(tmp_path):
    """With dropout and BatchNorm: the same keys, the same batches, statistics of their own; one of them diverges."""
    specs = {'a': dict(name='sgd', learning_rate=0.1), 'b': dict(name='adam', learning_rate=1e-2)}
    diverging = {'c': dict(name='sgd', learning_rate=1e38)}
    config = toy.config(steps=6, checkpoint=dict(every=100))
    experiment = side_by_side(toy.experiment(), specs | diverging)
    together = fit(experiment, config, tmp_path / 'together', quiet=True)
    for name, spec in specs.items():
        alone = fit(toy.experiment(tx=optim.make_optimizer(spec)), config, tmp_path / name, quiet=True)
        same = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)  # noqa: E731
        jax.tree.map(same, together.state.params[name], alone.state.params)
        jax.tree.map(same, together.state.mutable['optimizers'][name], alone.state.mutable)
        assert together.metrics[f'test/{name}/accuracy'] == pytest.approx(alone.metrics['test/accuracy'], abs=0.03)
    accuracies = [together.metrics[f'test/{name}/accuracy'] for name in specs | diverging]
    assert together.metrics['test/worst/accuracy'] == min(accuracies)
    skipped = {name: float(state.skipped_updates) for name, state in together.state.opt.groups.items()}
    assert (skipped['a'], skipped['b']) == (0, 0)
    assert skipped['c'] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together.state.mutable['optimizers']['c']))


def test_effective_rates_on_a_constant_gradient():
    """On a constant gradient AdaGrad's is epsilon / (delta + g sqrt k); RMSProp's and Adadelta's settle."""
    params, grads = {'w': jnp.zeros(3), 'dark': jnp.zeros(2)}, {'w': jnp.full(3, 2.0), 'dark': jnp.zeros(2)}
    specs = {
        'adagrad': dict(name='adagrad', learning_rate=0.5),
        'rmsprop': dict(name='rmsprop', learning_rate=0.5, decay=0.5, eps=0.25),
        'adadelta': dict(name='adadelta', learning_rate=3.0, decay=0.5, eps=0.25, eps_in_sqrt=True),
    }
    for name, spec in specs.items():
        tx = optim.make_optimizer(spec)
        state = tx.init(params)
        for k in range(1, 31):
            _, state = tx.update(grads, state, params)
            rate = float(effective_rate(spec, state))
            if name == 'adagrad':
                assert rate == pytest.approx(0.5 / (2 * k**0.5), rel=1e-5)
            if name == 'rmsprop':
                assert rate == pytest.approx(0.5 / (0.25 + 2 * (1 - 0.5**k) ** 0.5), rel=1e-5)
        if name == 'adadelta':
            t = float(optim.find_state(state, optim.AdadeltaState).mean_square_update['w'][0])
            assert rate == pytest.approx(3.0 * ((t + 0.25) / (4 + 0.25)) ** 0.5, rel=1e-5)
    assert effective_rate(dict(name='sgd', learning_rate=0.1), optim.sgd(0.1).init(params)) is None


# the adding problem


def test_the_target_is_the_mean_of_the_flagged_numbers():
    def sequences(number):
        return draw_mean_batch(np.random.default_rng((0, number)), 500, 40)

    batch = sequences(3)
    value, flag = batch['input'][..., 0], batch['input'][..., 1]
    assert np.array_equal(flag.sum(1), np.full(500, 2))
    first, second = np.sort(np.argsort(-flag, 1, kind='stable')[:, :2], 1).T
    assert first.max() == 3
    assert (second.min(), second.max()) == (4, 19)
    rows = np.arange(500)
    np.testing.assert_allclose(batch['target'], (value[rows, first] + value[rows, second]) / 2, rtol=1e-6)
    assert np.mean((batch['target'] - 0.5) ** 2) == pytest.approx(1 / 24, rel=0.1)
    again, other = sequences(3), sequences(4)
    assert np.array_equal(batch['input'], again['input'])
    assert not np.array_equal(batch['input'], other['input'])


def test_the_network_is_the_recurrence_of_the_paper():
    params, inputs = draw_sparse_rnn(1, 20, 1.1), draw_mean_batch(np.random.default_rng(0), 4, 12)['input']
    h = np.zeros((4, 20))
    for t in range(12):
        h = np.tanh(h @ params['recurrent'] + inputs[:, t] @ params['input'] + params['bias'])
    expected = (h @ params['readout'] + params['offset'])[:, 0]
    np.testing.assert_allclose(run_tanh_rnn(params, inputs), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(np.linalg.eigvals(params['recurrent'])).max() == pytest.approx(1.1, rel=1e-5)
    assert np.array_equal((params['recurrent'] != 0).sum(0), np.full(20, 15))


def test_the_best_is_by_the_median_and_a_diverged_seed_is_worst():
    assert plots.median_score([1.0, 2.0, float('nan')]) == 2.0
    assert plots.median_score([1.0, float('nan')]) == float('inf')
    assert plots.best_setting({0.1: [1.0, 9.0, 1.2], 1.0: [1.1, 1.1, 1.1]}) == 1.0
