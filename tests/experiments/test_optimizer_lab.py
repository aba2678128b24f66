"""Optimizers side by side from a config: their paths against a loop by hand, the log, the figures of a sweep."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import optim
from canon.errors import UsageError
from canon.tasks.optimizer_lab import SURFACES
from canon.train import bind, fit
from canon.train.log import read_rows
from canon.train.runs import Run
from experiments import configs
from experiments.claims.optimizers import draw_best_rates
from experiments.optimizer_lab import make, select_optimizers

PATHS = 'configs/optimizer_lab/paths.py'
QUIET = dict(log_every=5, log=(), checkpoint=dict(every=1000))


def descend(tx, surface, start, steps):
    """A loop by hand, as a user of the optimizer alone would write it."""
    point = jnp.asarray(start, jnp.float32)
    state, points = tx.init(point), [np.asarray(point)]
    for _ in range(steps):
        grads = jax.grad(surface.height)(optim.lookahead_params(point, state))
        updates, state = tx.update(grads, state, point)
        point = optax.apply_updates(point, updates)
        points.append(np.asarray(optim.eval_params(point, state)))
    return np.array(points)


def paths_config(root, surface='ravine', steps=12, **changes):
    config = configs.load(f'{root}/{PATHS}:{surface}')
    with config.unlocked():
        config.update(changes)
        config.run = dict(steps=steps, evals=dict(surface=dict(every=steps)), **QUIET)
    return config


@pytest.fixture(scope='module')
def descended(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('descent')
    config = paths_config(root)
    extra = dict(averaged=dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.03), ema=dict(decay=0.5)))
    with config.unlocked():
        config.optimizers.update(extra)
    return config, fit(make(config), config, folder, quiet=True)


def test_each_path_is_that_of_a_hand_loop(descended):
    config, fitted = descended
    specs = select_optimizers(config)
    assert len(specs) == 9
    for name, spec in specs.items():
        spec = {k: v for k, v in spec.items() if k != 'name'} if 'chain' in spec else spec
        expected = descend(optim.make_optimizer(spec), SURFACES['ravine'], SURFACES['ravine'].start, 12)
        path = np.asarray(fitted.state.mutable['paths'][name])
        assert path.shape == (13, 2)
        # an ulp more or less in a product, which the ravine stretches by up to |1 - 50 epsilon| a step
        np.testing.assert_allclose(path, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert fitted.metrics[f'surface/{name}/loss'] == pytest.approx(
            float(SURFACES['ravine'].height(expected[-1])), rel=2e-3
        )


def test_nesterov_is_drawn_at_theta_in_both_of_its_forms(root, tmp_path):
    optimizers = {
        form: dict(name='nesterov', learning_rate=0.01, momentum=0.9, stored=form) for form in ('theta', 'lookahead')
    }
    config = paths_config(root, steps=10)
    with config.unlocked():
        config.optimizers = optimizers
    paths = fit(make(config), config, tmp_path, quiet=True).state.mutable['paths']
    np.testing.assert_allclose(paths['theta'], paths['lookahead'], rtol=1e-4, atol=1e-5)
    theta, v = np.array(SURFACES['ravine'].start), np.zeros(2)
    for k in range(10):
        v = 0.9 * v - 0.01 * np.array([1, 50]) * (theta + 0.9 * v)
        theta = theta + v
        np.testing.assert_allclose(paths['theta'][k + 1], theta, rtol=1e-4, atol=1e-5)


def test_the_figures_and_the_log_of_make_run(descended):
    _, fitted = descended
    figures = {path.name for path in (fitted.workdir / 'figures').iterdir()}
    assert figures == {'surface-paths.png', 'surface-walk.gif'}
    assert (fitted.workdir / 'figures' / 'surface-walk.gif').stat().st_size < 600_000
    last = read_rows(fitted.workdir / 'metrics.jsonl')[-2]
    assert last['train/adam/learning_rate'] == pytest.approx(0.3)
    assert last['train/sgd/loss'] > 0
    losses = [fitted.metrics[f'surface/{name}/loss'] for name in fitted.state.params]
    assert fitted.metrics['surface/worst/loss'] == max(losses)


def test_an_optimizer_that_diverges_stands_still_and_the_others_go_on(root, tmp_path):
    config = paths_config(root, steps=120, only=('sgd', 'adam'))
    config.optimizers.sgd.learning_rate = 1.0
    fitted = fit(make(config), config, tmp_path, quiet=True)
    rows = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'train/loss' in row]
    assert rows[-1]['train/sgd/skipped_updates'] > 0
    assert rows[-1]['train/adam/skipped_updates'] == 0
    assert np.isfinite(rows[-1]['train/loss'])
    assert fitted.metrics['surface/adam/loss'] < 1e-3


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(only=('adm',)), r"only=.*no optimizer is called 'adm'; did you mean 'adam'"),
        (dict(compare=('adam', 'lion')), r'compare=.*must be two of the optimizers'),
        (dict(of='surface'), r"of='surface' is not an experiment; did you mean 'surfaces'"),
        (dict(surface=dict(name='beal')), r"surface\.name='beal' must be one of .*did you mean 'beale'"),
        (dict(surface=dict(name='beale', start=(1.0,))), r'surface\.start=\(1\.0,\) must be a point'),
        (
            dict(optimizers=dict(adam=dict(learning_rat=0.1))),
            r"optimizers\.adam\.learning_rat.*did you mean 'learning_rate'",
        ),
        (dict(optimizers={}), r'optimizers is empty'),
        (dict(scale=2.0), r'scale=2\.0: optimizers\.schedule_free\.learning_rate must be a number'),
    ],
)
def test_what_is_refused(root, changes, message):
    config = paths_config(root)
    with config.unlocked():
        for key, value in changes.items():
            config[key] = value
    with pytest.raises(UsageError, match=message):
        bind(make(config), config)


def test_rates_are_scaled(root):
    config = configs.load(f'{root}/configs/optimizer_lab/digits.py')
    config.scale = 0.1
    before, after = (select_optimizers({**config.to_dict(), 'scale': scale}) for scale in (1.0, 0.1))
    assert before.keys() == after.keys()
    for name in before:
        assert after[name]['learning_rate'] == pytest.approx(before[name]['learning_rate'] / 10)


# figures


def make_run(folder, scale, seed, losses, state='done'):
    """A finished run of two optimizers as it would be read from disk."""
    folder.mkdir(parents=True)
    optimizers = dict(adam=dict(learning_rate=0.1), sgd=dict(learning_rate=1.0))
    (folder / 'config.json').write_text(json.dumps(dict(optimizers=optimizers, scale=scale)))
    rows = [{'step': s, 'train/adam/loss': losses[0] * 4 / s, 'train/sgd/loss': losses[1] * 4 / s} for s in (1, 2, 4)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    metrics = {'test/adam/loss': losses[0], 'test/sgd/loss': losses[1]}
    return Run(folder, 'c.py', dict(scale=scale, seed=seed), {}, state, metrics=metrics)


def test_a_sweep_is_drawn_with_each_optimizer_at_its_best_rate(tmp_path):
    all_runs = [
        make_run(tmp_path / 'a', 0.1, 0, (3.0, 1.0)),
        make_run(tmp_path / 'b', 0.1, 1, (5.0, 1.2)),
        make_run(tmp_path / 'c', 1.0, 0, (2.0, 0.5)),
        make_run(tmp_path / 'd', 1.0, 1, (2.2, float('nan'))),  # a rate at which one seed diverged
        make_run(tmp_path / 'e', 10.0, 0, (0.0, 0.0), 'failed'),
    ]
    figure = draw_best_rates(all_runs, 'test/*/loss', {'loss': 'train/*/loss'})['best rates']
    first, second = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ['adam  0.1: 2.1', 'sgd  0.1: 1.1']
    assert [list(line.get_xdata()) for line in first.lines[::3]] == [[0.01, 0.1], [0.1, 1.0]]
    np.testing.assert_allclose(second.lines[0].get_ydata(), [8.4, 4.2, 2.1])
    assert draw_best_rates(all_runs[-1:], 'test/*/loss', {}) == {}


def test_a_table_draws_what_the_config_defines(root, tmp_path):
    from launch import table

    config = tmp_path / 'mine.py'
    config.write_text(
        'def get_config(arg=""):\n    return {}\n\n\ndef pictures(runs):\n    from matplotlib.figure import Figure\n'
        '    return {f"{len(runs)} runs": Figure((1, 1))}\n'
    )
    all_runs = [Run(tmp_path / name, f'{config}:smoke', {}, {}, 'done') for name in 'ab']
    (path,) = table.draw_own(all_runs, tmp_path)
    assert path.name == '2 runs.png'
    assert Path(path).stat().st_size > 100
    assert table.draw_own([*all_runs, all_runs[0]._replace(config='other.py')], tmp_path) == []
    assert table.draw_own([all_runs[0]._replace(config='?')], tmp_path) == []
