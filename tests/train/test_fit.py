"""What fit does besides steps: guards, cadences, early stop, partial restores, stages, what it leaves and refuses."""

import functools
import json
import signal
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import optim
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import (
    Evaluator,
    Experiment,
    NonFinite,
    Stage,
    Task,
    evaluate_run,
    fit,
    load_trained,
    replay_step,
    run_stages,
)
from canon.train.code import digest_code
from canon.train.guard import Stopper, Watchdog
from canon.train.log import read_rows
from canon.train.settings import WatchdogSettings
from canon.train.statistics import evaluated_variables
from tests.train import toy


def test_a_task_of_ones_own_in_twenty_lines(tmp_path):
    """The example of the README."""

    def batch(step):
        x = np.random.default_rng(step).uniform(-1, 1, 32).astype(np.float32)
        return {'x': x, 'y': 3 * x + 1}

    def loss(params, mutable, batch, at):
        error = params['a'] * batch['x'] + params['b'] - batch['y']
        return Mean.of(error**2), (mutable, {})

    line = Task(
        init=lambda key, batch: {'params': {'a': jnp.zeros(()), 'b': jnp.zeros(())}},
        loss=loss,
        predict=lambda params, mutable, batch: params['a'] * batch['x'] + params['b'],
    )
    fitted = fit(Experiment(line, optim.sgd(0.3), Generated(batch)), {'run': {'steps': 200}}, tmp_path, quiet=True)
    assert fitted.state.params['a'] == pytest.approx(3, abs=1e-4)
    assert fitted.state.params['b'] == pytest.approx(1, abs=1e-4)


def poisoned(at, experiment=toy.experiment):
    """An experiment, whose batch of step `at` (counted from 1) holds an infinity in an unmasked row."""

    class Poisoned(toy.Stream):
        def __getitem__(self, step):
            batch = super().__getitem__(step)
            if step == at - 1:
                batch['mask'][0] = True
                batch['image'][0, 0, 0, 0] = np.inf
            return batch

    return experiment()._replace(train=Poisoned())


def test_a_non_finite_loss_stops_names_the_step_and_can_be_replayed(tmp_path):
    config = toy.config(steps=40, log_every=20, checkpoint=dict(every=5, keep=3))
    with pytest.raises(NonFinite, match=rf'step 13 is not finite: loss nan.*step 10.*--workdir={tmp_path} --step=13'):
        fit(poisoned(13, toy.linear), config, tmp_path, quiet=True)
    status = json.loads((tmp_path / 'status.json').read_text())
    assert status['state'] == 'failed'
    assert 'step 13' in status['error']
    # No checkpoint holds the poison.
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [5, 10]
    replayed = replay_step(poisoned(13, toy.linear), config, tmp_path, 13)
    assert not np.isfinite(replayed.metrics['loss'])
    assert sum(bad for *_, bad in replayed.leaves) > 0
    assert np.isinf(replayed.batch['image']).sum() == 1


def test_a_replayed_step_is_the_step_that_happened(tmp_path):
    config = toy.config(steps=10, log_every=1)
    fit(toy.experiment(), config, tmp_path, quiet=True)
    rows = {r['step']: r for r in read_rows(tmp_path / 'metrics.jsonl') if 'train/loss' in r}
    for step in (1, 5, 8):
        replayed = replay_step(toy.experiment(), config, tmp_path, step)
        assert replayed.metrics['loss'] == pytest.approx(rows[step]['train/loss'], rel=1e-6)
        assert replayed.metrics['grad_norm'] == pytest.approx(rows[step]['train/grad_norm'], rel=1e-5)


def test_evaluators_keep_their_own_cadence_and_run_at_the_end(tmp_path):
    experiment = toy.linear()
    experiment = experiment._replace(evals={'often': experiment.evals['test'], 'seldom': experiment.evals['test']})
    fit(experiment, toy.config(steps=10, evals=dict(often=dict(every=3))), tmp_path, quiet=True)
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert [r['step'] for r in rows if 'often/accuracy' in r] == [3, 6, 9, 10]
    assert [r['step'] for r in rows if 'seldom/accuracy' in r] == [10]


def test_a_summary_is_made_once_of_the_log_of_the_whole_run(tmp_path):
    def summarise(rows):
        return {'best': max(row['test/accuracy'] for row in rows if 'test/accuracy' in row)}

    config = toy.config(steps=6, evals=dict(test=dict(every=2)))
    experiment = toy.linear(summarise=summarise)
    fit(experiment, {**config, 'run': {**config['run'], 'stop_after': 3}}, tmp_path, quiet=True)
    assert not any('summary/best' in row for row in read_rows(tmp_path / 'metrics.jsonl'))
    fitted = fit(experiment, config, tmp_path, quiet=True, force=True)
    again = fit(experiment, config, tmp_path, quiet=True)  # done already: nothing is written
    rows = read_rows(tmp_path / 'metrics.jsonl')
    measured = [row['test/accuracy'] for row in rows if 'test/accuracy' in row]
    assert [row for row in rows if 'summary/best' in row] == [{'step': 6, 'summary/best': max(measured)}]
    assert fitted.metrics['summary/best'] == again.metrics['summary/best'] == max(measured)
    assert json.loads((tmp_path / 'status.json').read_text())['metrics']['summary/best'] == max(measured)


def test_evaluation_is_exact_and_of_the_average(tmp_path):
    """The metric of the run equals one computed in numpy from the averaged parameters."""
    experiment = toy.experiment()
    fitted = fit(experiment, toy.config(), tmp_path, quiet=True)
    average, mutable = evaluated_variables(fitted.state)
    assert not np.array_equal(average['Dense_0']['bias'], fitted.state.params['Dense_0']['bias'])
    right = count = 0
    for batch in experiment.evals['test'].data.iterate():
        guess = np.asarray(experiment.task.predict(average, mutable, batch)).argmax(-1)
        right += ((guess == batch['label']) & batch['mask']).sum()
        count += batch['mask'].sum()
    assert fitted.metrics['test/accuracy'] == pytest.approx(right / count, abs=1e-12)


def scripted(values):
    """A small experiment with an evaluator whose accuracies are given."""
    made = toy.linear()
    return made._replace(evals={'test': made.evals['test']._replace(finish=script(values))})


def script(values):
    """A `finish` that gives one value after another; sums of zeros only ask for the names."""
    left = iter(values)
    return lambda sums: {'accuracy': next(left) if sums['accuracy'].weight else 0.0}


def test_early_stop_counts_evaluations_without_improvement_across_a_resume(tmp_path):
    config = toy.config(
        steps=40,
        evals=dict(test=dict(every=2)),
        early_stop=dict(metric='test/accuracy', patience=3, min_delta=0.05, mode='max'),
    )
    experiment = scripted([0.5, 0.7, 0.72, 0.74, float('nan'), 0.9])
    stopped = fit(experiment, config | {'run': config['run'] | {'stop_after': 7}}, tmp_path, quiet=True)
    assert stopped.status == 'stopped'
    fitted = fit(experiment, config, tmp_path, quiet=True)
    assert (fitted.status, int(fitted.state.step)) == ('early', 10)
    again = fit(experiment, config, tmp_path, quiet=True)
    assert (again.status, int(again.state.step)) == ('early', 10)
    assert json.loads((tmp_path / 'status.json').read_text())['state'] == 'done'


def test_a_plateau_rule_is_fed_by_the_evaluator_and_resumes(tmp_path):
    """Accuracies that stand still: the rate falls tenfold after `patience` evaluations, in one run or in two."""
    spec = dict(
        chain=('sgd', 'plateau'),
        sgd=dict(learning_rate=0.1),
        plateau=dict(name='divide_on_plateau', by=10, patience=2, metric='test/accuracy', mode='max'),
    )
    config = toy.config(steps=12, log_every=1, evals=dict(test=dict(every=2)))
    experiment = scripted([0.5] * 20)._replace(tx=optim.make_optimizer(spec))
    fit(experiment, config | {'run': config['run'] | {'stop_after': 5}}, tmp_path, quiet=True)
    fitted = fit(experiment, config, tmp_path, quiet=True)
    factors = [float(v) for k, v in optim.hyperparams(fitted.state.opt).items() if 'factor' in k]
    assert factors == [pytest.approx(0.01)]
    misspelt = optim.make_optimizer(spec | {'plateau': spec['plateau'] | {'metric': 'tset/accuracy'}})
    with pytest.raises(UsageError, match=r'the plateau rule=.tset/accuracy. names no evaluator'):
        fit(experiment._replace(tx=misspelt), config, tmp_path / 'other', quiet=True)


def test_an_early_stop_evaluates_with_all(tmp_path):
    """The step of the stop is saved before the other evaluators measure it; the command again keeps their values."""
    experiment = scripted([0.9, 0.1])
    experiment = experiment._replace(evals={'val': experiment.evals['test'], 'final': toy.evaluator(experiment.task)})
    early = dict(metric='val/accuracy', patience=1, mode='max')
    config = toy.config(40, evals=dict(val=dict(every=2)), early_stop=early, checkpoint=dict(every=2))
    fitted = fit(experiment, config, tmp_path, quiet=True)
    assert (fitted.status, int(fitted.state.step)) == ('early', 4)
    assert fitted.metrics.keys() == {'val/accuracy', 'final/accuracy'}
    before = json.loads((tmp_path / 'status.json').read_text())['metrics']
    assert fit(experiment, config, tmp_path, quiet=True).metrics == fitted.metrics
    assert json.loads((tmp_path / 'status.json').read_text())['metrics'] == before == fitted.metrics


def test_a_step_that_is_saved_on_stopping_is_ranked_when_it_is_evaluated(tmp_path):
    """SIGTERM in the evaluation of step 4, the best one: it is saved without its value, and must not be lost."""
    experiment = scripted([])
    test = experiment.evals['test']._replace(data=stopping(3), finish=script([0.1, 0.9, 0.3, 0.2]))
    experiment = experiment._replace(evals={'test': test})
    config = toy.config(
        8,
        evals=dict(test=dict(every=2)),
        checkpoint=dict(every=100, best='test/accuracy', mode='max', keep=1),
        log_every=1,
    )
    assert fit(experiment, config, tmp_path, quiet=True).status == 'stopped'
    assert fit(experiment, config, tmp_path, quiet=True).status == 'done'
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit()) == [4, 8]


def stopping(at, then=lambda: signal.raise_signal(signal.SIGTERM), **options):
    """Evaluation data: `then` happens when they are read for the `at`-th time, the look at the first batch included."""
    remaining = {'reads': at}

    class Stopping(toy.Stream):
        def iterate(self, start=0):
            remaining['reads'] -= 1
            if remaining['reads'] == 0:
                then()
            return super().iterate(start)

    return Stopping(**(dict(length=3, seed=9) | options))


def test_a_signal_in_an_evaluation_of_an_early_stop_loses_nothing(tmp_path):
    """The step is saved before; the command again does the evaluations that were broken off, and no others."""
    experiment = scripted([0.9, 0.1])
    final = toy.evaluator(experiment.task)._replace(data=stopping(1))
    experiment = experiment._replace(evals={'val': experiment.evals['test'], 'final': final})
    early = dict(metric='val/accuracy', patience=1, mode='max')
    config = toy.config(40, evals=dict(val=dict(every=2)), early_stop=early)
    stopped = fit(experiment, config, tmp_path, quiet=True)
    assert (stopped.status, int(stopped.state.step)) == ('stopped', 4)
    fitted = fit(experiment, config, tmp_path, quiet=True)
    assert (fitted.status, fitted.metrics.keys()) == ('early', {'val/accuracy', 'final/accuracy'})
    before = (tmp_path / 'status.json').read_text()
    again = fit(experiment, config, tmp_path, quiet=True)  # the scripted accuracies are used up: nothing is evaluated
    assert (again.status, again.metrics) == ('early', fitted.metrics)
    assert json.loads((tmp_path / 'status.json').read_text())['metrics'] == json.loads(before)['metrics']


def test_a_signal_while_pictures_are_made_again_stops_the_run(tmp_path):
    experiment = toy.linear()
    drawing = experiment.evals['test']._replace(draw=lambda *_: {'nothing': toy_figure()})
    fit(toy.linear(), toy.config(), tmp_path, quiet=True)  # a run that ended before its pictures
    assert (
        fit(experiment._replace(evals={'test': drawing._replace(data=stopping(1))}), toy.config(), tmp_path).status
        == 'stopped'
    )
    assert fit(experiment._replace(evals={'test': drawing}), toy.config(), tmp_path, quiet=True).status == 'done'
    assert (tmp_path / 'figures' / 'test-nothing.png').exists()


def toy_figure():
    from matplotlib.figure import Figure

    return Figure(figsize=(1, 1), dpi=20)


@pytest.mark.parametrize('evals', [{}, dict(test=dict(every=7))], ids=['at the end', 'between saves'])
def test_an_evaluation_that_raises_loses_no_step(tmp_path, evals):
    def fail():
        raise OSError('the data are gone')

    experiment = toy.linear()
    experiment = experiment._replace(evals={'test': experiment.evals['test']._replace(data=stopping(1, fail))})
    steps = 7 if evals else 9
    with pytest.raises(OSError, match='the data are gone'):
        fit(experiment, toy.config(9, evals=evals), tmp_path, quiet=True)
    assert max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == steps
    fitted = fit(experiment, toy.config(9, evals=evals), tmp_path, quiet=True)
    straight = fit(toy.linear(), toy.config(9, evals=evals), tmp_path / 'straight', quiet=True)
    assert fitted.metrics == straight.metrics


def test_training_data_that_raise_lose_no_step(tmp_path):
    class Broken(toy.Stream):
        def __getitem__(self, step):
            if step == 7:
                raise OSError('a file is gone')
            return super().__getitem__(step)

    with pytest.raises(OSError, match='a file is gone'):
        fit(toy.linear()._replace(train=Broken()), toy.config(), tmp_path, quiet=True)
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [5, 7]


def test_a_plateau_rule_knows_an_evaluation_that_came_after_the_save(tmp_path):
    """The state of step 4 is saved, then evaluated, then killed: what the rule has counted must come back."""
    spec = dict(
        chain=('sgd', 'plateau'),
        sgd=dict(learning_rate=0.1),
        plateau=dict(name='divide_on_plateau', by=10, patience=2, metric='test/accuracy', mode='max'),
    )
    config = toy.config(steps=8, log_every=1, evals=dict(test=dict(every=2)), checkpoint=dict(every=2, keep=9))

    class Killed(toy.Stream):
        def __getitem__(self, step):
            if step == 6:
                raise KeyboardInterrupt
            return super().__getitem__(step)

    experiment = scripted([0.5] * 20)._replace(tx=optim.make_optimizer(spec))
    with pytest.raises(KeyboardInterrupt):
        fit(experiment._replace(train=Killed()), config, tmp_path, quiet=True)
    assert max(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == 6
    fitted = fit(experiment, config, tmp_path, quiet=True)
    factors = [float(v) for k, v in optim.hyperparams(fitted.state.opt).items() if 'factor' in k]
    assert factors == [pytest.approx(0.1)]  # evaluations at 2 (best), 4, 6 (divides), 8


def test_what_a_run_reports_is_what_it_hands_on(tmp_path):
    """The best step's metrics, by all evaluators, as `evaluate_run` finds them; averages are evaluated themselves."""
    experiment = toy.linear()
    experiment = experiment._replace(
        evals={'val': toy.evaluator(experiment.task), 'rare': toy.evaluator(experiment.task, length=2)}
    )
    for name, checkpoint in [
        ('best', dict(every=2, keep=1, best='val/accuracy', mode='min')),
        ('average', dict(every=2, keep=3, average=2)),
        ('last', dict(every=2)),
    ]:
        config = toy.config(8, evals=dict(val=dict(every=2)), checkpoint=checkpoint)
        fitted = fit(experiment, config, tmp_path / name, quiet=True)
        evaluated = evaluate_run(experiment, config, tmp_path / name)
        assert evaluated['weights'] == name
        assert {k: v for k, v in evaluated.items() if '/' in k} == pytest.approx(fitted.metrics, abs=1e-12)
        status = json.loads((tmp_path / name / 'status.json').read_text())
        assert (status['metrics'], status['weights']) == (fitted.metrics, fitted.weights)
        assert fitted.weights.startswith(f'{name} weights, of step')
        assert fitted.weights.endswith(str(evaluated['step']))
        assert fit(experiment, config, tmp_path / name, quiet=True).metrics == fitted.metrics
    values = [r['val/accuracy'] for r in read_rows(tmp_path / 'best' / 'metrics.jsonl') if 'val/accuracy' in r]
    assert min(values) < values[-1]  # the best by this direction is not the last
    best = json.loads((tmp_path / 'best' / 'status.json').read_text())
    assert best['metrics']['val/accuracy'] == pytest.approx(min(values), abs=1e-12)


class Centred(NamedTuple):
    """y = batch normalisation of w x, without a gamma: its statistics are w times those of x, in closed form."""

    decay: float = 0.9

    def init(self, key, batch):
        return {'params': {'w': jnp.ones(2)}, 'batch_stats': {'mean': jnp.zeros(2), 'var': jnp.ones(2)}}

    def loss(self, params, mutable, batch, at):
        x = params['w'] * batch['x']
        stats = {'mean': x.mean(0), 'var': x.var(0)}
        new = jax.tree.map(lambda a, b: self.decay * a + (1 - self.decay) * b, mutable['batch_stats'], stats)
        return Mean.of((x**2).sum(-1)), ({**mutable, 'batch_stats': new}, {})

    def predict(self, params, mutable, batch):
        return params['w'] * batch['x'] - mutable['batch_stats']['mean']


@pytest.mark.parametrize('average', [1, 2])
def test_averaged_weights_have_statistics_of_their_own(tmp_path, average):
    """Evaluation, what is handed on, and weights for another run agree, and are w_average times the data's own."""
    task = Task(*(getattr(Centred(), name) for name in ('init', 'loss', 'predict')))
    x = np.random.default_rng(0).normal(3, 2, size=(20, 64, 2)).astype(np.float32)
    tx = optax.chain(optim.sgd(0.003), optim.ema(0.9))
    data = Generated(lambda step: {'x': x[step]}, 64)

    def measure(params, mutable, batch):
        return Mean.of(task.predict(params, mutable, batch))

    one = Evaluator(Generated(lambda step: {'x': x[step]}, 64, length=20), measure, lambda sums: {'mean': sums.value})
    experiment = Experiment(task, tx, data, {'test': one})
    run = dict(steps=20, bn_batches=20, checkpoint=dict(every=19, keep=2, average=average), log=())
    fitted = fit(experiment, {'run': run}, tmp_path, quiet=True)
    selected = load_trained(experiment, {'run': run}, tmp_path)
    w = np.asarray(selected.params['w'], np.float64)
    assert np.abs(w - fitted.state.params['w']).min() > 0.02
    mean, var = x.astype(np.float64).mean((0, 1)), x.astype(np.float64).var(1).mean(0)
    tolerance = dict(rtol=1e-5) if average == 1 else dict(rtol=0.1)  # a mean of two runs of statistics
    np.testing.assert_allclose(selected.mutable['batch_stats']['mean'], w * mean, **tolerance)
    np.testing.assert_allclose(selected.mutable['batch_stats']['var'], w**2 * var, **tolerance)
    assert set(selected.mutable) == {'batch_stats'}
    from canon.train.init_from import read_model

    given = read_model(tmp_path)
    np.testing.assert_allclose(given['w'], w, rtol=1e-6)
    np.testing.assert_allclose(given['batch_stats/mean'], selected.mutable['batch_stats']['mean'], rtol=1e-6)
    assert fitted.metrics['test/mean'] == pytest.approx(0, abs=1e-4 if average == 1 else 0.1)
    assert evaluate_run(experiment, {'run': run}, tmp_path)['test/mean'] == pytest.approx(fitted.metrics['test/mean'])


def test_metrics_that_nothing_measures_are_found_before_the_first_step(tmp_path):
    config = toy.config(checkpoint=dict(best='test/acuracy', mode='max'))
    with pytest.raises(UsageError, match=r"run\.checkpoint\.best='test/acuracy' .*did you mean 'test/accuracy'"):
        fit(toy.linear(), config, tmp_path / 'a', quiet=True)
    assert not (tmp_path / 'a').exists()
    config = toy.config() | {'target': dict(metric='test/accurcy', at_least=0.5)}
    with pytest.raises(UsageError, match=r"target\.metric='test/accurcy' is measured by no evaluator"):
        fit(toy.linear(), config, tmp_path / 'a', quiet=True)
    early = toy.config(early_stop=dict(metric='test/loss', patience=1, mode='min'))
    with pytest.raises(UsageError, match=r"run\.early_stop\.metric='test/loss' is measured by no evaluator"):
        fit(toy.linear(), early, tmp_path / 'a', quiet=True)


def test_metrics_that_zeros_cannot_name_are_checked_when_they_are_measured(tmp_path):
    experiment = toy.linear()
    test = experiment.evals['test']._replace(finish=lambda sums: {'share': 1 / int(sums['accuracy'].weight)})
    config = toy.config(4, checkpoint=dict(every=5, best='test/shar', mode='max'))
    with pytest.raises(UsageError, match=r"run\.checkpoint\.best='test/shar' .*did you mean 'test/share'"):
        fit(experiment._replace(evals={'test': test}), config, tmp_path, quiet=True)
    assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['4']


def test_a_finished_run_of_edited_code_says_so(tmp_path, caplog, capsys):
    def experiment(scale):
        of = toy.linear_task()

        def loss(params, mutable, batch, at):
            mean, rest = of.loss(params, mutable, batch, at)
            return Mean(scale * mean.total, mean.weight), rest

        return toy.linear()._replace(task=of._replace(loss=loss))

    fit(experiment(1.0), toy.config(4), tmp_path, quiet=True)
    fit(experiment(1.0), toy.config(4), tmp_path)
    shown = capsys.readouterr().out
    assert 'was already done at step 4: nothing is trained' in shown
    assert 'To train it longer, give more --config.run.steps with --force' in shown
    assert 'code of the experiment' not in caplog.text
    fit(experiment(2.0), toy.config(4), tmp_path)
    assert 'the code of the experiment is not the one that the run began with' in caplog.text


def test_a_digest_of_code_knows_values_and_instructions():
    def experiment(loss):
        return digest_code(toy.experiment()._replace(task=toy.task()._replace(loss=loss)))

    def power(n):
        return lambda params, mutable, batch, at: params**n

    assert experiment(power(2)) == experiment(power(2))
    assert experiment(power(2)) != experiment(power(3))
    assert experiment(lambda p, m, b, k: p + 1) != experiment(lambda p, m, b, k: p - 1)
    assert experiment(functools.partial(power, 2)) != experiment(functools.partial(power, 3))

    def network(slope):
        class Net(nn.Module):
            width: int = 2

            @nn.compact
            def __call__(self, x):
                return slope * nn.Dense(self.width)(x)

        return Net

    def through(net):
        return lambda params, mutable, batch, at: net.apply(params, batch)

    assert experiment(through(network(1)())) == experiment(through(network(1)()))
    assert experiment(through(network(1)())) != experiment(through(network(2)()))
    assert experiment(through(network(1)())) != experiment(through(network(1)(width=3)))


def test_a_run_whose_every_update_is_skipped_fails(tmp_path):
    class Bad(toy.Stream):
        def __getitem__(self, step):
            return super().__getitem__(step) | {'image': np.full((16, 6, 6, 1), np.nan, np.float32)}

    experiment = toy.linear(tx=optim.skip_nonfinite(optim.sgd(0.1)), train=Bad())
    with pytest.raises(NonFinite, match=r'all of the last 4 updates were skipped, up to step 4'):
        fit(experiment, toy.config(4), tmp_path / 'short', quiet=True)
    with pytest.raises(NonFinite, match=r'all of the last 100 updates were skipped, up to step 100'):
        fit(experiment, toy.config(400, log_every=200, checkpoint=dict(every=400)), tmp_path / 'long', quiet=True)


def test_skipping_within_groups_goes_on_and_is_counted(tmp_path):
    """Each group of the optimizer skips by itself, and its count has a name of its own."""
    groups = {'Dense': optim.skip_nonfinite(optim.sgd(0.1)), '.*': optim.skip_nonfinite(optim.adam(0.01))}
    experiment = poisoned(4)._replace(tx=optim.partition(groups))
    fitted = fit(experiment, toy.config(log_every=2), tmp_path, quiet=True)
    assert fitted.status == 'done'
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fitted.state.params, fitted.state.mutable)))
    skipped = {r['step']: r['train/skipped'] for r in read_rows(tmp_path / 'metrics.jsonl') if 'train/skipped' in r}
    assert skipped == {2: 0, 4: 0.5, 6: 0, 8: 0, 10: 0}


def test_a_group_that_does_not_skip_ends_the_run(tmp_path):
    groups = {'Dense': optim.skip_nonfinite(optim.sgd(0.1)), '.*': optim.sgd(0.1)}
    experiment = poisoned(4)._replace(tx=optim.partition(groups))
    with pytest.raises(NonFinite):
        fit(experiment, toy.config(), tmp_path, quiet=True)
    assert not list((tmp_path / 'checkpoints').iterdir())


def test_an_update_that_is_not_finite_is_not_saved(tmp_path):
    """Behind a finite loss and gradient: an optimizer that divides by zero at step 5, where a checkpoint is due."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: jnp.where(state == 4, jnp.nan, -0.1 * u), updates), state + 1

    tx = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    with pytest.raises(NonFinite, match=r'step 5 is not finite: its update made BatchNorm_0/bias and 4 more so'):
        fit(toy.experiment(tx=tx), toy.config(), tmp_path, quiet=True)
    assert not list((tmp_path / 'checkpoints').iterdir())


def test_a_stop_keeps_no_more_checkpoints_than_asked(tmp_path):
    config = toy.config(steps=12, checkpoint=dict(every=5, keep=2))
    for stop in (6, 7, 8, None):
        fit(toy.linear(), config | {'run': config['run'] | {'stop_after': stop}}, tmp_path, quiet=True)
        assert len(list((tmp_path / 'checkpoints').iterdir())) <= 2
    assert sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir()) == [10, 12]


def test_the_last_step_that_is_best_after_a_stop_is_kept_alone(tmp_path):
    """SIGTERM in the evaluation of step 8, the last and best one: after the command again step 4 is not kept."""
    experiment = scripted([])
    test = experiment.evals['test']._replace(data=stopping(5), finish=script([0.1, 0.5, 0.3, 0.9]))
    experiment = experiment._replace(evals={'test': test})
    checkpoint = dict(every=100, best='test/accuracy', mode='max', keep=1)
    config = toy.config(8, evals=dict(test=dict(every=2)), checkpoint=checkpoint)
    assert fit(experiment, config, tmp_path, quiet=True).status == 'stopped'
    assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['4', '8']
    assert fit(experiment, config, tmp_path, quiet=True).status == 'done'
    assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['8']


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_the_second_interrupt_outlives_a_finaliser():
    """Python prints and drops what a finaliser raises; the next look at the stopper raises it again."""

    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with Stopper() as stopper:
        signal.raise_signal(signal.SIGINT)
        assert stopper.is_stopping(1)
        Finalised()
        with pytest.raises(KeyboardInterrupt):
            stopper.is_stopping(2)


def test_evaluations_and_saves_are_no_part_of_a_step(tmp_path):
    experiment = toy.linear()

    class Slow(toy.Stream):
        def iterate(self, start=0):
            time.sleep(0.5)
            return super().iterate(start)

    class Steady(toy.Stream):
        def __getitem__(self, step):
            time.sleep(0.01)
            return super().__getitem__(step)

    test = experiment.evals['test']._replace(data=Slow(length=1, seed=9))
    experiment = experiment._replace(train=Steady(), evals={'test': test})
    fit(experiment, toy.config(20, log_every=4, evals=dict(test=dict(every=2))), tmp_path, quiet=True)
    times = [r['train/step_seconds'] for r in read_rows(tmp_path / 'metrics.jsonl') if 'train/loss' in r][1:]
    assert min(times) > 0.009  # no step is left out
    assert min(times) < 0.2  # and two evaluations of 0.5 s in a window of four steps would add 0.25 s to each


def test_init_from_takes_what_the_rules_name(tmp_path):
    fit(toy.experiment(), toy.config(), tmp_path / 'old', quiet=True)
    init = dict(path=str(tmp_path / 'old'), rules=(('^Conv_0/(.*)', r'Conv_0/\1'),), new='^Dense_0/')
    experiment = toy.experiment(tx=optim.sgd(0.0))
    fitted = fit(experiment, toy.config(steps=1, init_from=init), tmp_path / 'new', quiet=True)
    from canon.train.init_from import read_model

    old, new = read_model(tmp_path / 'old'), fitted.state.params
    np.testing.assert_array_equal(new['Conv_0']['kernel'], old['Conv_0/kernel'])
    assert not np.array_equal(new['Dense_0']['kernel'], old['Dense_0/kernel'])


def test_init_from_takes_what_the_experiment_reads(tmp_path):
    """Published weights: a path that is no run, which `Experiment.read` knows."""
    calls = []

    def read(path, leaves):
        calls.append((path, set(leaves)))
        return {name: np.full(leaf.shape, 7.0, np.float32) for name, leaf in leaves.items()}

    experiment = toy.experiment(tx=optim.sgd(0.0))._replace(read=read)
    fitted = fit(experiment, toy.config(steps=1, init_from=dict(path='x.pth')), tmp_path / 'new', quiet=True)
    assert calls[0][0] == 'x.pth'
    assert {'Conv_0/kernel', 'batch_stats/BatchNorm_0/mean'} <= calls[0][1]
    assert all((np.asarray(leaf) == 7).all() for leaf in jax.tree.leaves(fitted.state.params))


def test_init_from_gives_averages_their_start_too(tmp_path):
    old, _ = evaluated_variables(fit(toy.experiment(), toy.config(), tmp_path / 'old', quiet=True).state)
    config = toy.config(steps=1, init_from=dict(path=str(tmp_path / 'old')))
    for name, tx in [
        (
            'ema',
            optim.make_optimizer(
                dict(chain=('sgd', 'ema'), sgd=dict(learning_rate=0.0), ema=dict(decay=0.9, debias=False))
            ),
        ),
        ('master', optim.master_weights(optim.sgd(0.0))),
    ]:
        state = fit(toy.experiment(tx=tx), config, tmp_path / name, quiet=True).state
        for found in (state.params, optim.eval_params(state.params, state.opt)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, old)


def test_skipping_non_finite_updates_goes_on(tmp_path):
    experiment = poisoned(4)._replace(tx=optim.skip_nonfinite(optim.sgd(0.1)))
    of = toy.task(toy.Net(batch_norm=False))
    experiment = experiment._replace(task=of, evals={'test': toy.evaluator(of)})
    fitted = fit(experiment, toy.config(log_every=1), tmp_path, quiet=True)
    assert fitted.status == 'done'
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state.params))


def test_a_signal_while_the_pictures_are_drawn_waits_for_them(tmp_path):
    def draw(params, mutable, sums):
        signal.raise_signal(signal.SIGTERM)
        return {}

    experiment = toy.linear()
    experiment = experiment._replace(evals={'test': experiment.evals['test']._replace(draw=draw)})
    assert fit(experiment, toy.config(), tmp_path, quiet=True).status == 'done'
    assert json.loads((tmp_path / 'status.json').read_text())['state'] == 'done'


def test_init_from_lists_what_does_not_fit(tmp_path):
    fit(toy.experiment(), toy.config(), tmp_path / 'old', quiet=True)
    init = dict(path=str(tmp_path / 'old'), rules=(('^Conv_0/kernel', 'Conv_O/kernel'),))
    with pytest.raises(
        UsageError, match=r"Missing there: \[.Conv_O/kernel; did you mean 'Conv_0/kernel'.*Left over: \[.*Conv_0/kernel"
    ):
        fit(toy.experiment(), toy.config(init_from=init), tmp_path / 'new', quiet=True)
    with pytest.raises(UsageError, match='holds no checkpoint'):
        fit(toy.experiment(), toy.config(init_from=dict(path=str(tmp_path))), tmp_path / 'newer', quiet=True)


def test_a_step_of_ones_own(tmp_path):
    """The override sees the state and decides the update; a game between networks has its place here."""

    def step(state, batch):
        params = jax.tree.map(lambda p: p - 1, state.params)
        return state._replace(step=state.step + 1, params=params), {'loss': Mean(jnp.float32(1), jnp.float32(1))}

    experiment = toy.linear(make_step=lambda task, tx, seed: step)
    start = fit(experiment, toy.config(steps=1), tmp_path / 'a', quiet=True).state.params
    end = fit(experiment, toy.config(steps=4), tmp_path / 'b', quiet=True).state.params
    np.testing.assert_allclose(end['Dense_0']['bias'], start['Dense_0']['bias'] - 3)


def test_stages_run_in_order_resume_and_hand_on(tmp_path):
    built = []

    def first(stages):
        built.append('first')
        assert stages == {}
        return toy.experiment(), toy.config(steps=4)

    def second(stages):
        built.append('second')
        assert stages == {'first': tmp_path / '0-first'}
        init = dict(path=str(stages['first']))
        return toy.experiment(tx=optim.sgd(0.0)), toy.config(steps=6, init_from=init)

    stages = [Stage('first', first), Stage('second', second)]
    fitted = run_stages(stages, {}, tmp_path, quiet=True)
    resumed = run_stages(stages, {}, tmp_path, quiet=True)
    assert built == ['first', 'second', 'second']
    assert fitted.workdir == tmp_path / '1-second'
    from canon.train.init_from import read_model

    for name, value in read_model(tmp_path / '0-first').items():
        if 'batch_stats' not in name:
            np.testing.assert_array_equal(read_model(resumed.workdir)[name], value)


def test_the_watchdog_dumps_stacks_of_a_step_that_hangs(tmp_path, capfd):
    with Watchdog(tmp_path, WatchdogSettings(factor=3.0, least=0.2)) as dog:
        for _ in range(8):
            dog.beat()
            time.sleep(0.01)
        time.sleep(0.6)
        dog.rest()
    text = (tmp_path / 'stacks.txt').read_text()
    assert 'test_the_watchdog_dumps' in text
    assert text.count('a step has taken') == 1
    assert 'stacks in' in capfd.readouterr().err


def test_the_watchdog_watches_the_first_step_after_an_evaluation(tmp_path, capfd):
    with Watchdog(tmp_path, WatchdogSettings(factor=3.0, least=0.2)) as dog:
        for _ in range(8):
            dog.beat()
            time.sleep(0.01)
        dog.rest()
        dog.resume()
        time.sleep(0.6)
    assert (tmp_path / 'stacks.txt').read_text().count('a step has taken') == 1


def test_the_watchdog_lets_evaluations_take_their_time(tmp_path):
    with Watchdog(tmp_path, WatchdogSettings(factor=3.0, least=0.1)) as dog:
        for _ in range(8):
            dog.beat()
            time.sleep(0.01)
        dog.rest()
        time.sleep(0.4)
    assert not (tmp_path / 'stacks.txt').exists()


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(toy.linear(), toy.config(log=('tensorboard',)), tmp_path, quiet=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    rows = {r['step']: r['train/loss'] for r in read_rows(tmp_path / 'metrics.jsonl') if 'train/loss' in r}
    assert {e.step: pytest.approx(e.value, rel=1e-6) for e in events.Scalars('train/loss')} == rows


def test_the_profiler_switch(tmp_path):
    fit(toy.linear(), toy.config(profile=dict(start=3, steps=2)), tmp_path, quiet=True)
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_a_profile_cut_short_by_the_end_is_written(tmp_path):
    fit(toy.linear(), toy.config(profile=dict(start=8, steps=50)), tmp_path, quiet=True)
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_figures_of_an_evaluator_are_saved(tmp_path):
    from canon import plots

    experiment = toy.linear()

    def pictures(params, mutable, sums):
        assert isinstance(jax.tree.leaves(params)[0], np.ndarray)
        return {'confusion': plots.draw_confusion_matrix(sums['confusion'], list('abc'))}

    experiment = experiment._replace(evals={'test': experiment.evals['test']._replace(draw=pictures)})
    fit(experiment, toy.config(), tmp_path, quiet=True)
    assert (tmp_path / 'figures' / 'test-confusion.png').stat().st_size > 1000


def test_an_animation_of_an_evaluator_is_saved_and_stands_in_the_report(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    from canon import plots
    from canon.train import write_report

    def pictures(params, mutable, sums):
        figure = Figure(figsize=(1, 1), dpi=50)
        axes = figure.subplots()
        axes.set(xlim=(-1, 3), ylim=(-1, 3))
        (dot,) = axes.plot([], [], 'o')
        return {'dot': plots.Animation(figure, lambda i: dot.set_data([i], [i]), range(3), milliseconds=120)}

    experiment = toy.linear()
    experiment = experiment._replace(evals={'test': experiment.evals['test']._replace(draw=pictures)})
    fit(experiment, toy.config(), tmp_path, quiet=True)
    with Image.open(tmp_path / 'figures' / 'test-dot.gif') as picture:
        assert (picture.size, picture.n_frames, picture.info['duration']) == ((50, 50), 3, 120)
    assert 'src="data:image/gif;base64,' in Path(write_report(tmp_path)).read_text()


@pytest.mark.parametrize(
    ('run', 'message'),
    [
        (dict(steps=0.5), r'run\.steps=0\.5 must be a whole number'),
        (dict(stepps=3, steps=1), r"run\.stepps: Settings takes no such key; did you mean 'steps'"),
        (dict(steps=3, checkpoint=dict(evry=3)), r"run\.checkpoint\.evry.*did you mean 'every'"),
        (dict(steps=3, accumulate=3), r'batch size 16 is not a multiple of 1 devices x 3 microbatches; try 18'),
        (dict(steps=3, mesh=dict(data=2)), r'run\.mesh: data=2 x model=1 does not fit the 1 devices'),
        (dict(steps=3, evals=dict(tset=dict(every=1))), r'run\.evals\.tset: the experiment has no such evaluator'),
        (dict(steps='3 epoochs'), r'run\.steps=.3 epoochs. is not a length'),
        (dict(steps='5%'), r'a percentage of itself'),
        (
            dict(steps=3, checkpoint=dict(best='test/acuracy', mode='max')),
            r"run\.checkpoint\.best='test/acuracy' is measured by no",
        ),
        (
            dict(steps=3, early_stop=dict(metric='tset/loss', patience=1, mode='min')),
            r"metric='tset/loss' names no evaluator",
        ),
        (dict(steps=3, checkpoint=dict(every=0)), r'run\.checkpoint\.every=0 must be a whole number at least 1'),
        (dict(steps=3, stop_after='abc'), r"run\.stop_after='abc' must be a whole number"),
        (dict(steps=3, mesh=dict(model=0)), r'run\.mesh\.model=0 must be'),
        (dict(steps=3, checkpoint='x'), r"run\.checkpoint='x' must be a dict of every, keep"),
        (
            dict(steps=3, shard=dict(rules=(('(', ('data',)),))),
            r"run\.shard\.rules: '\(' is not a valid regular expression",
        ),
        (
            dict(steps=3, checkpoint=dict(best='test/loss')),
            r"run\.checkpoint\.mode=None must be 'min' or 'max': is 'test/loss'",
        ),
        (
            dict(steps=3, early_stop=dict(metric='test/loss', patience=1)),
            r"run\.early_stop\.mode=None must be 'min' or 'max'",
        ),
        (dict(steps=3, checkpoint=dict(mode='up')), r"run\.checkpoint\.mode='up' must be 'min' or 'max'"),
        (dict(steps=3, shard=dict(rules=(('Dense_0/kernel', ('modle',)),))), r"'modle' is not an axis of the mesh"),
        ({}, r"run: Settings needs 'steps'"),
        (dict(steps='1.5.2 epochs'), r"run\.steps='1\.5\.2 epochs' is not a length"),
        (dict(steps='. steps'), r"run\.steps='\. steps' is not a length"),
        (dict(steps='1e400 steps'), r"run\.steps='1e400 steps' is too long"),
        (dict(steps=10**12), r'run\.steps=1000000000000 must be a whole number at least 0 and at most 2147483647'),
        (dict(steps=3, watchdog=dict(least=0)), r'run\.watchdog\.least=0'),
        (dict(steps=3, watchdog=dict(factor=float('nan'))), r'run\.watchdog\.factor=nan'),
        (dict(steps=3, bn_batches=-1), r'run\.bn_batches=-1 must be a whole number at least 0'),
        (dict(steps=3, shard=dict(rules=('kernel',))), r"run\.shard\.rules: 'kernel' is not a pair"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, run, message):
    with pytest.raises(UsageError, match=message):
        fit(toy.linear(), {'run': run}, tmp_path, quiet=True)


@pytest.mark.parametrize('seed', [2**32, -1, 1.5, True, '5'])
def test_a_seed_outside_of_a_key_is_refused(tmp_path, seed):
    """Seeds that differ beyond 32 bits would be one key."""
    with pytest.raises(UsageError, match=r'seed=.* must be a whole number from 0 to 4294967295'):
        fit(toy.linear(), toy.config() | {'seed': seed}, tmp_path, quiet=True)


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'workdir .*file/run cannot be written: Not a directory'):
        fit(toy.linear(), toy.config(), tmp_path / 'file' / 'run', quiet=True)


def test_a_loss_that_is_no_mean_is_explained(tmp_path):
    experiment = toy.linear()

    def loss(params, mutable, batch, at):
        total, (mutable, _) = experiment.task.loss(params, mutable, batch, at)
        return total, (mutable, {'accuracy': jnp.zeros(3)})

    with pytest.raises(UsageError, match="the metric 'accuracy' of the task is not a Mean"):
        fit(experiment._replace(task=experiment.task._replace(loss=loss)), toy.config(), tmp_path, quiet=True)


def test_the_report_holds_everything_itself(tmp_path):
    from canon.train import write_report

    fit(toy.linear(), toy.config(), tmp_path, quiet=True, about={'command': 'python <b> & co'})
    page = Path(write_report(tmp_path)).read_text()
    assert 'src="data:image/png;base64,' in page
    assert 'python &lt;b&gt; &amp; co' in page
    assert not [word for word in ('src="http', 'href="http', '<script src') if word in page]
