"""Rivals side by side: each as if it were alone, on surfaces whose minima and gradients are known."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import optim, plots
from canon.errors import UsageError
from canon.train import fit
from canon.train.log import read_rows
from canon.train.runs import Run
from experiments import configs
from experiments.claims.optimizers import best_rates
from experiments.optimizer_lab import adding, chosen, make, rates, side_by_side
from experiments.optimizer_lab.surfaces import SURFACES
from tests.train import toy

PATHS = 'configs/optimizer_lab/paths.py'
QUIET = dict(log_every=5, tensorboard=False, checkpoint=dict(every=1000))


def walk(tx, surface, start, steps):
    """A loop by hand, as a user of the optimizer alone would write it."""
    point = jnp.asarray(start, jnp.float32)
    state, seen = tx.init(point), [np.asarray(point)]
    for _ in range(steps):
        grads = jax.grad(surface.height)(optim.lookahead_params(point, state))
        updates, state = tx.update(grads, state, point)
        point = optax.apply_updates(point, updates)
        seen.append(np.asarray(optim.eval_params(point, state)))
    return np.array(seen)


def paths_config(root, surface='ravine', steps=12, **changes):
    config = configs.load(f'{root}/{PATHS}:{surface}')
    with config.unlocked():
        config.update(changes)
        config.run = dict(steps=steps, evals=dict(surface=dict(every=steps)), **QUIET)
    return config


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
def test_minima_are_minima_and_lie_in_the_picture_with_the_start(name):
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


def test_heights_that_are_known():
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


# rivals


@pytest.fixture(scope='module')
def walked(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('walk')
    config = paths_config(root)
    extra = dict(averaged=dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.03), ema=dict(decay=0.5)))
    with config.unlocked():
        config.rivals.update(extra)
    return config, fit(make(config), config, folder, quiet=True)


def test_each_path_is_that_of_a_hand_loop(walked):
    config, fitted = walked
    specs = chosen(config)
    assert len(specs) == 9
    for name, spec in specs.items():
        spec = {k: v for k, v in spec.items() if k != 'name'} if 'chain' in spec else spec
        expected = walk(optim.make(spec), SURFACES['ravine'], SURFACES['ravine'].start, 12)
        path = np.asarray(fitted.state.mutable['paths'][name])
        assert path.shape == (13, 2)
        # an ulp more or less in a product, which the ravine stretches by up to |1 - 50 epsilon| a step
        np.testing.assert_allclose(path, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert fitted.metrics[f'surface/{name}/loss'] == pytest.approx(
            float(SURFACES['ravine'].height(expected[-1])), rel=2e-3
        )


def test_nesterov_is_drawn_at_theta_in_both_of_its_forms(root, tmp_path):
    rivals = {
        form: dict(name='nesterov', learning_rate=0.01, momentum=0.9, stored=form) for form in ('theta', 'lookahead')
    }
    config = paths_config(root, steps=10)
    with config.unlocked():
        config.rivals = rivals
    paths = fit(make(config), config, tmp_path, quiet=True).state.mutable['paths']
    np.testing.assert_allclose(paths['theta'], paths['lookahead'], rtol=1e-4, atol=1e-5)
    theta, v = np.array(SURFACES['ravine'].start), np.zeros(2)
    for k in range(10):
        v = 0.9 * v - 0.01 * np.array([1, 50]) * (theta + 0.9 * v)
        theta = theta + v
        np.testing.assert_allclose(paths['theta'][k + 1], theta, rtol=1e-4, atol=1e-5)


def test_the_pictures_and_the_log_of_a_walk(walked):
    _, fitted = walked
    figures = {path.name for path in (fitted.workdir / 'figures').iterdir()}
    assert figures == {'surface-paths.png', 'surface-walk.gif'}
    assert (fitted.workdir / 'figures' / 'surface-walk.gif').stat().st_size < 600_000
    last = read_rows(fitted.workdir / 'metrics.jsonl')[-2]
    assert last['train/adam/learning_rate'] == pytest.approx(0.3)
    assert last['train/sgd/loss'] > 0
    losses = [fitted.metrics[f'surface/{name}/loss'] for name in fitted.state.params]
    assert fitted.metrics['surface/worst/loss'] == max(losses)


def test_one_that_diverges_stands_still_and_the_others_go_on(root, tmp_path):
    config = paths_config(root, steps=120, only=('sgd', 'adam'))
    config.rivals.sgd.learning_rate = 1.0
    fitted = fit(make(config), config, tmp_path, quiet=True)
    rows = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'train/loss' in row]
    assert rows[-1]['train/sgd/skipped_updates'] > 0
    assert rows[-1]['train/adam/skipped_updates'] == 0
    assert np.isfinite(rows[-1]['train/loss'])
    assert fitted.metrics['surface/adam/loss'] < 1e-3


def test_rivals_on_any_experiment_are_as_if_alone(tmp_path):
    """With dropout and BatchNorm: the same keys, the same batches, statistics of their own."""
    specs = {'a': dict(name='sgd', learning_rate=0.1), 'b': dict(name='adam', learning_rate=1e-2)}
    config = toy.config(steps=6, checkpoint=dict(every=100))
    together = fit(side_by_side(toy.experiment(), specs, config['seed']), config, tmp_path / 'both', quiet=True)
    for name, spec in specs.items():
        alone = fit(toy.experiment(tx=optim.make(spec)), config, tmp_path / name, quiet=True)
        same = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)  # noqa: E731
        jax.tree.map(same, together.state.params[name], alone.state.params)
        jax.tree.map(same, together.state.mutable['rivals'][name], alone.state.mutable)
        assert together.metrics[f'test/{name}/accuracy'] == pytest.approx(alone.metrics['test/accuracy'], abs=0.03)
    accuracies = [together.metrics[f'test/{name}/accuracy'] for name in specs]
    assert together.metrics['test/worst/accuracy'] == min(accuracies)


def test_effective_rates():
    """On a constant gradient AdaGrad's is epsilon / (delta + g sqrt k); RMSProp's and Adadelta's settle."""
    params, grads = {'w': jnp.zeros(3), 'dark': jnp.zeros(2)}, {'w': jnp.full(3, 2.0), 'dark': jnp.zeros(2)}
    specs = {
        'adagrad': dict(name='adagrad', learning_rate=0.5),
        'rmsprop': dict(name='rmsprop', learning_rate=0.5, decay=0.5, eps=0.25),
        'adadelta': dict(name='adadelta', learning_rate=3.0, decay=0.5, eps=0.25, eps_in_sqrt=True),
    }
    for name, spec in specs.items():
        tx = optim.make(spec)
        state = tx.init(params)
        for k in range(1, 31):
            _, state = tx.update(grads, state, params)
            found = float(rates.effective_rate(spec, state))
            if name == 'adagrad':
                assert found == pytest.approx(0.5 / (2 * k**0.5), rel=1e-5)
            if name == 'rmsprop':
                assert found == pytest.approx(0.5 / (0.25 + 2 * (1 - 0.5**k) ** 0.5), rel=1e-5)
        if name == 'adadelta':
            t = float(optim.find(state, optim.AdadeltaState).mean_square_update['w'][0])
            assert found == pytest.approx(3.0 * ((t + 0.25) / (4 + 0.25)) ** 0.5, rel=1e-5)
    assert rates.effective_rate(dict(name='sgd', learning_rate=0.1), optim.sgd(0.1).init(params)) is None


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(only=('adm',)), r"only=.*no rival is called 'adm'; did you mean 'adam'"),
        (dict(compare=('adam', 'lion')), r'compare=.*must be two of the rivals'),
        (dict(of='surface'), r"of='surface' is no experiment; did you mean 'surfaces'"),
        (dict(surface=dict(name='beal')), r"surface\.name='beal' is no surface; did you mean 'beale'"),
        (dict(surface=dict(name='beale', start=(1.0,))), r'surface\.start=\(1\.0,\) must be a point'),
        (dict(rivals=dict(adam=dict(learning_rat=0.1))), r"rivals\.adam\.learning_rat.*did you mean 'learning_rate'"),
        (dict(rivals={}), r'rivals is empty'),
        (dict(scale=2.0), r'scale=2\.0: rivals\.schedule_free\.learning_rate must be a number'),
    ],
)
def test_what_does_not_fit_is_named(root, changes, message):
    config = paths_config(root)
    with config.unlocked():
        for key, value in changes.items():
            config[key] = value
    with pytest.raises(UsageError, match=message):
        make(config)


def test_rates_are_scaled(root):
    config = configs.load(f'{root}/configs/optimizer_lab/digits.py')
    config.scale = 0.1
    before, after = (chosen({**config.to_dict(), 'scale': scale}) for scale in (1.0, 0.1))
    assert before.keys() == after.keys()
    for name in before:
        assert after[name]['learning_rate'] == pytest.approx(before[name]['learning_rate'] / 10)


# the adding problem


def test_the_answer_is_the_mean_of_the_flagged_numbers():
    batch = adding.sequences(0, 3, 500, 40)
    value, flag = batch['heard'][..., 0], batch['heard'][..., 1]
    assert np.array_equal(flag.sum(1), np.full(500, 2))
    first, second = np.sort(np.argsort(-flag, 1, kind='stable')[:, :2], 1).T
    assert first.max() == 3
    assert (second.min(), second.max()) == (4, 19)
    rows = np.arange(500)
    np.testing.assert_allclose(batch['answer'], (value[rows, first] + value[rows, second]) / 2, rtol=1e-6)
    assert np.mean((batch['answer'] - 0.5) ** 2) == pytest.approx(1 / 24, rel=0.1)
    again, other = adding.sequences(0, 3, 500, 40), adding.sequences(0, 4, 500, 40)
    assert np.array_equal(batch['heard'], again['heard'])
    assert not np.array_equal(batch['heard'], other['heard'])


def test_the_network_is_the_recurrence_of_the_paper():
    params, heard = adding.initial(1, 20, 1.1), adding.sequences(1, 0, 4, 12)['heard']
    h = np.zeros((4, 20))
    for t in range(12):
        h = np.tanh(h @ params['recurrent'] + heard[:, t] @ params['input'] + params['bias'])
    expected = (h @ params['readout'] + params['offset'])[:, 0]
    np.testing.assert_allclose(adding.said(params, heard), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(np.linalg.eigvals(params['recurrent'])).max() == pytest.approx(1.1, rel=1e-5)
    assert np.array_equal((params['recurrent'] != 0).sum(0), np.full(20, 15))


# pictures


def a_run(folder, scale, seed, losses, state='done'):
    """A finished run of two rivals as it would be read from disk."""
    folder.mkdir(parents=True)
    rivals = dict(adam=dict(learning_rate=0.1), sgd=dict(learning_rate=1.0))
    (folder / 'config.json').write_text(json.dumps(dict(rivals=rivals, scale=scale)))
    rows = [{'step': s, 'train/adam/loss': losses[0] * 4 / s, 'train/sgd/loss': losses[1] * 4 / s} for s in (1, 2, 4)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    metrics = {'test/adam/loss': losses[0], 'test/sgd/loss': losses[1]}
    return Run(folder, 'c.py', dict(scale=scale, seed=seed), {}, state, metrics=metrics)


def test_a_sweep_is_drawn_with_each_at_its_best_rate(tmp_path):
    found = [
        a_run(tmp_path / 'a', 0.1, 0, (3.0, 1.0)),
        a_run(tmp_path / 'b', 0.1, 1, (5.0, 1.2)),
        a_run(tmp_path / 'c', 1.0, 0, (2.0, 0.5)),
        a_run(tmp_path / 'd', 1.0, 1, (2.2, float('nan'))),  # a rate at which one seed diverged
        a_run(tmp_path / 'e', 10.0, 0, (0.0, 0.0), 'failed'),
    ]
    figure = best_rates(found, 'test/*/loss', {'loss': 'train/*/loss'})['best rates']
    first, second = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ['adam  0.1: 2.1', 'sgd  0.1: 1.1']
    assert [list(line.get_xdata()) for line in first.lines[::3]] == [[0.01, 0.1], [0.1, 1.0]]
    np.testing.assert_allclose(second.lines[0].get_ydata(), [8.4, 4.2, 2.1])
    assert best_rates(found[-1:], 'test/*/loss', {}) == {}


def test_the_best_is_by_the_median_and_a_diverged_seed_is_worst():
    assert plots.middle([1.0, 2.0, float('nan')]) == 2.0
    assert plots.middle([1.0, float('nan')]) == float('inf')
    assert plots.best_of({0.1: [1.0, 9.0, 1.2], 1.0: [1.1, 1.1, 1.1]}) == 1.0


def test_a_table_draws_what_the_config_defines(root, tmp_path):
    from launch import table

    config = tmp_path / 'mine.py'
    config.write_text(
        'def get_config(arg=""):\n    return {}\n\n\ndef pictures(runs):\n    from matplotlib.figure import Figure\n'
        '    return {f"{len(runs)} runs": Figure((1, 1))}\n'
    )
    found = [Run(tmp_path / name, f'{config}:smoke', {}, {}, 'done') for name in 'ab']
    (path,) = table.draw_own(found, tmp_path)
    assert path.name == '2 runs.png'
    assert Path(path).stat().st_size > 100
    assert table.draw_own([*found, found[0]._replace(config='other.py')], tmp_path) == []
    assert table.draw_own([found[0]._replace(config='?')], tmp_path) == []
