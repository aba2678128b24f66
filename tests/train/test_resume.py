"""A resumed run is bitwise the run that never stopped, however it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim
from canon.errors import CanonError, UsageError
from canon.train import fit
from canon.train.checkpoint import Checkpoints
from canon.train.digests import find_damage
from canon.train.init_from import read_model
from canon.train.log import read_rows
from canon.train.restore import load_trained
from canon.train.settings import make_settings
from canon.train.types import State
from tests.train import toy


def leaves(state):
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(state)}


def assert_same(a, b):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize('accumulate', [pytest.param(1, marks=pytest.mark.slow), 4])
def test_ten_steps_are_five_and_five(tmp_path, accumulate):
    straight = fit(toy.experiment(), toy.config(accumulate=accumulate), tmp_path / 'a', quiet=True)
    first = fit(toy.experiment(), toy.config(accumulate=accumulate, stop_after=5), tmp_path / 'b', quiet=True)
    assert (first.status, int(first.state.step)) == ('stopped', 5)
    resumed = fit(toy.experiment(), toy.config(accumulate=accumulate), tmp_path / 'b', quiet=True)
    assert (resumed.status, int(resumed.state.step)) == ('done', 10)
    assert_same(straight.state, resumed.state)
    assert straight.metrics == resumed.metrics
    rows = [[r for r in read_rows(tmp_path / x / 'metrics.jsonl') if 'train/loss' in r] for x in 'ab']
    assert [r['train/loss'] for r in rows[0]] == [r['train/loss'] for r in rows[1]]


def test_the_seed_matters(tmp_path):
    config = toy.config()
    a = fit(toy.linear(), config, tmp_path / 'a', quiet=True)
    b = fit(toy.linear(), config | {'seed': 4}, tmp_path / 'b', quiet=True)
    assert not np.array_equal(*(jax.tree.leaves(x.state.params)[1] for x in (a, b)))


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    """A kill between a log row and the next checkpoint must not leave two rows of one step."""
    fit(toy.linear(), toy.config(stop_after=5), tmp_path, quiet=True)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 7, "train/loss": 1.0}\n{"step": 8, "train/l')
    fit(toy.linear(), toy.config(), tmp_path, quiet=True)
    assert [r['step'] for r in read_rows(tmp_path / 'metrics.jsonl')] == [5, 10, 10]


SLOW_RUN = """
import time
from canon.train import fit
from tests.train import toy

class Slow(toy.Stream):
    def __getitem__(self, step):
        time.sleep(0.02)
        return super().__getitem__(step)

experiment = toy.experiment()._replace(train=Slow())
fitted = fit(experiment, toy.config(steps=60, log_every=1, checkpoint=dict(every=1000, keep=2)), {workdir!r})
print('STATUS', fitted.status, int(fitted.state.step))
"""


def start(root, code):
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=root)


def wait_for(path, text, process, seconds=120):
    for _ in range(seconds * 20):
        if path.exists() and text in path.read_text():
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError(f'{text!r} never stood in {path}')


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends_well(root, same_pool, tmp_path, number):
    process = start(root, same_pool + SLOW_RUN.format(workdir=str(tmp_path / 'run')))
    wait_for(tmp_path / 'run' / 'metrics.jsonl', '"step": 3,', process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    step = int(out.split()[-1])
    assert f'STATUS stopped {step}' in out
    assert 3 <= step < 60
    assert json.loads((tmp_path / 'run' / 'status.json').read_text())['state'] == 'stopped'
    config = toy.config(steps=60, log_every=1, checkpoint=dict(every=1000, keep=2))
    resumed = fit(toy.experiment(), config, tmp_path / 'run', quiet=True)
    straight = fit(toy.experiment(), config, tmp_path / 'straight', quiet=True)
    assert_same(resumed.state, straight.state)


KILLED_RUN = """
import pathlib
from canon.train import fit
from tests.train import test_resume

workdir = pathlib.Path({workdir!r})
fit(test_resume.killed_experiment(workdir / 'place'), test_resume.KILLED, workdir)
"""
KILLED = toy.config(20, log_every=3, evals=dict(test=dict(every=2)), checkpoint=dict(every=1, keep=2))


def killed_experiment(place=None):
    """An experiment whose data note where they are read."""

    class Stream(toy.Stream):
        def __getitem__(self, step):
            if place is not None:
                place.write_text('evaluation' if self.length else 'training')
                time.sleep(0.02)
            return super().__getitem__(step)

    net = toy.Net(batch_norm=False, width=200)
    experiment = toy.experiment(net, train=Stream())
    return experiment._replace(evals={'test': toy.evaluator(toy.task(net))._replace(data=Stream(length=3, seed=9))})


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.slow  # three processes
def test_kill_9_loses_nothing_that_was_saved(root, same_pool, tmp_path):
    """Kills in an evaluation, in a save, and at a random moment; then the run is the one that was never killed."""
    run, rng = tmp_path / 'run', np.random.default_rng()
    (run / 'checkpoints').mkdir(parents=True)
    place = run / 'place'
    place.touch()

    def steps():
        return sorted(int(p.name) for p in (run / 'checkpoints').iterdir() if p.name.isdigit())

    newest = 0
    for where in ('evaluation', 'save', 'anywhere'):
        process = start(root, same_pool + KILLED_RUN.format(workdir=str(run)))
        wait_until(lambda seen=newest: steps() and steps()[-1] >= seen + 2, process)
        if where == 'evaluation':
            wait_until(lambda: place.read_text() == 'evaluation', process)
        elif where == 'save':
            wait_until(lambda: list((run / 'checkpoints').glob('*tmp*')), process)
        else:
            time.sleep(rng.uniform(0, 0.1))
        before = steps()[-1]
        process.kill()
        process.wait()
        newest = steps()[-1]
        assert newest >= before, where
        assert find_damage(run / 'checkpoints' / str(newest)) is None, where
    resumed = fit(killed_experiment(), KILLED, run, quiet=True)
    straight = fit(killed_experiment(), KILLED, tmp_path / 'straight', quiet=True)
    assert_same(resumed.state, straight.state)
    assert resumed.metrics == straight.metrics
    logs = [
        [{k: v for k, v in row.items() if not k.endswith('seconds')} for row in read_rows(x / 'metrics.jsonl')]
        for x in (run, tmp_path / 'straight')
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize('damage', ['truncate', pytest.param('remove', marks=pytest.mark.slow)])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, damage, caplog):
    config = toy.config(checkpoint=dict(every=2, keep=5))
    straight = fit(toy.experiment(), config, tmp_path, quiet=True)
    broken = tmp_path / 'checkpoints' / '10'
    for file in broken.rglob('*'):
        if file.is_file() and damage == 'truncate':
            os.truncate(file, file.stat().st_size // 3)
        elif file.is_file() and 'opt' in file.parts:
            file.unlink()
    resumed = fit(toy.experiment(), config, tmp_path, quiet=True)
    assert 'the checkpoint of step 10 is damaged' in caplog.text
    assert (tmp_path / 'checkpoints' / 'unreadable-10').is_dir()
    assert_same(straight.state, resumed.state)
    for file in broken.rglob('*'):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 3)
    assert_same(straight.state, fit(toy.experiment(), config, tmp_path, quiet=True).state)


@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_of_other_size_reads_what_was_saved(tmp_path, monkeypatch, processes):
    """One process writes a file an array, several write another format: each reads the other's."""
    from canon.train import checkpoint_files as files

    monkeypatch.setattr(files, 'make_handlers', lambda _, make=files.make_handlers: make(processes))
    fit(toy.experiment(), toy.config(stop_after=5), tmp_path / 'a', quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(files, 'make_handlers', lambda _, make=files.make_handlers: make(3 - processes))
    resumed = fit(toy.experiment(), toy.config(), tmp_path / 'a', quiet=True)
    straight = fit(toy.experiment(), toy.config(), tmp_path / 'b', quiet=True)
    assert_same(resumed.state, straight.state)


def test_another_model_is_refused_and_nothing_is_lost(tmp_path):
    fit(toy.experiment(), toy.config(), tmp_path, quiet=True)
    before = sorted(p.name for p in (tmp_path / 'checkpoints').iterdir())
    with pytest.raises(UsageError, match=r'BatchNorm_0/bias is \(16,\) there and \(8,\) here'):
        fit(toy.experiment(toy.Net(width=8)), toy.config(), tmp_path, quiet=True)
    assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == before


def test_a_refused_run_leaves_the_files_of_the_folder(tmp_path):
    """With --force a checkpoint of another model is refused late; the command that made the run still resumes it."""
    fit(toy.experiment(), toy.config(stop_after=5), tmp_path, quiet=True)
    names = ('config.json', 'run.json', 'status.json', 'metrics.jsonl')
    before = {name: (tmp_path / name).read_bytes() for name in names}
    message = r'is \(16,\) there and \(8,\) here .*; give the config that trained it, or another --workdir'
    with pytest.raises(UsageError, match=message):
        fit(toy.experiment(toy.Net(width=8)), toy.config(steps=12), tmp_path, force=True, quiet=True)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert fit(toy.experiment(), toy.config(stop_after=6), tmp_path, quiet=True).step == 6


def test_a_run_whose_start_is_refused_takes_another_config(tmp_path):
    init_from = {'path': str(tmp_path / 'missing')}
    with pytest.raises(UsageError, match='missing'):
        fit(toy.linear(), toy.config(steps=2, init_from=init_from), tmp_path / 'run', quiet=True)
    assert fit(toy.linear(), toy.config(steps=2), tmp_path / 'run', quiet=True).status == 'done'


def test_other_data_are_refused_but_not_by_force(tmp_path):
    made = toy.linear()._replace(about={'vocabulary': ['word', 7, 'ab12'], 'seen': 3})
    fit(made, toy.config(steps=2), tmp_path, quiet=True)
    other = made._replace(about={'vocabulary': ['word', 8, 'cd34'], 'seen': 3})
    with pytest.raises(UsageError, match=r"with other data: vocabulary was \['word', 7, 'ab12'\], is .*; give"):
        fit(other, toy.config(steps=2), tmp_path, quiet=True)
    fit(other, toy.config(steps=2), tmp_path, force=True, quiet=True)


def test_another_config_is_refused_but_not_by_force(tmp_path):
    fit(toy.linear(), toy.config(stop_after=5), tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r'run\.steps was 10, is 12'):
        fit(toy.linear(), toy.config(steps=12), tmp_path, quiet=True)
    assert int(fit(toy.linear(), toy.config(steps=12), tmp_path, force=True, quiet=True).state.step) == 12


def test_a_run_that_is_forced_on_at_another_rate_trains_at_it(tmp_path):
    """The rate of the config decides, not that of the checkpoint; config.json and the log say what was trained."""
    for steps, rate in ((2, 0.5), (4, 0.125)):
        config = toy.config(steps=steps, log_every=1, evals=dict(test=dict(every=4)))
        config['tx'] = dict(name='adamw', learning_rate=rate, weight_decay=rate)
        made = toy.linear(tx=optim.make_optimizer(config['tx']))
        fitted = fit(made, config, tmp_path, force=True, quiet=True)
    assert json.loads((tmp_path / 'config.json').read_text())['tx']['learning_rate'] == 0.125
    rows = [r for r in read_rows(tmp_path / 'metrics.jsonl') if 'train/learning_rate' in r]
    assert [r['train/learning_rate'] for r in rows] == [0.5, 0.5, 0.125, 0.125]
    assert [r['train/weight_decay'] for r in rows] == [0.5, 0.5, 0.125, 0.125]
    assert float(optim.hyperparams(fitted.state.opt)['learning_rate']) == 0.125


def test_a_checkpoint_of_an_earlier_optimizer_state_is_one_clear_line(tmp_path):
    """Before hyperparameters could be overridden, the states of momentum and of decay had no `pinned`."""
    params, tx = {'w': jnp.ones(2)}, optim.momentum(0.1)
    opt: Any = tx.init(params)
    state = State(jnp.zeros((), jnp.int32), params, {}, opt)
    earlier = state._replace(opt=(opt[0], {k: v for k, v in opt[1]._asdict().items() if k != 'pinned'}))
    with Checkpoints(tmp_path, make_settings({'steps': 1}).checkpoint) as checkpoints:
        checkpoints.save(earlier, {})
        checkpoints.wait()
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        with pytest.raises(UsageError, match=r'opt/1/pinned is absent there and \(\) here; .* run\.init_from'):
            checkpoints.restore(target)


def test_best_and_newest_are_kept(tmp_path, monkeypatch):
    """Evaluations give 0.1, 0.9, nan, 0.5, 0.2 at steps 2, 4, ...: the best is step 4, and it outlives a restart."""
    values = {2: 0.1, 4: 0.9, 6: float('nan'), 8: 0.5, 10: 0.2}

    def config(**more):
        return toy.config(
            evals=dict(test=dict(every=2)),
            checkpoint=dict(every=5, keep=1, best='test/accuracy', mode='max'),
            log_every=1,
            **more,
        )

    def experiment():
        experiment_of_values, count = toy.linear(), iter(values.items())

        def finish(sums):
            return {'accuracy': next(count)[1] if sums['accuracy'].weight else 0.0}

        return experiment_of_values._replace(evals={'test': experiment_of_values.evals['test']._replace(finish=finish)})

    started = experiment()
    fit(started, config(stop_after=6), tmp_path, quiet=True)
    fit(started, config(), tmp_path, quiet=True)
    kept = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())
    assert kept == [4, 10]


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(tmp_path, monkeypatch):
    """Space runs out at the second save, whose writing fails as a full file system fails."""
    import orbax.checkpoint as ocp

    real = ocp.CheckpointManager.save

    def save(self, step, *args, **kwargs):
        if step > 5:
            raise OSError(28, 'No space left on device')
        return real(self, step, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, 'save', save)
    with pytest.raises(CanonError, match=r'step 10 could not be written.*the disk is full.*that of step 5 is intact'):
        fit(toy.linear(), toy.config(), tmp_path, quiet=True)
    monkeypatch.undo()
    assert int(fit(toy.linear(), toy.config(), tmp_path, quiet=True).state.step) == 10


def test_the_mean_of_the_newest_checkpoints_is_used_afterwards(tmp_path, caplog):
    """With an average (EMA) in the chain it is the mean of those, as each checkpoint would be evaluated."""
    settings = dict(every=3, keep=3, average=2)
    fitted = fit(toy.experiment(), toy.config(checkpoint=settings), tmp_path, quiet=True)  # saves 3, 6, 9 and 10
    last, before = (load_trained(toy.experiment(), toy.config(), tmp_path, step).params for step in (10, 9))
    assert_same(last, optim.eval_params(fitted.state.params, fitted.state.opt))
    with caplog.at_level('INFO', 'canon'):
        run = load_trained(toy.experiment(), toy.config(checkpoint=settings), tmp_path)
    assert 'average weights, of steps 9, 10' in caplog.text
    assert run.step == 10
    expected = jax.tree.map(lambda a, b: (np.float32(a) + np.float32(b)) / 2, last, before)
    assert_same(run.params, expected)
    last, before = (load_trained(toy.experiment(), toy.config(), tmp_path, step).mutable for step in (10, 9))
    assert_same(run.mutable, jax.tree.map(lambda a, b: (np.float32(a) + np.float32(b)) / 2, last, before))
    with pytest.raises(UsageError, match=r'run.checkpoint.average=4 needs as many checkpoints: run.checkpoint.keep=3'):
        fit(toy.experiment(), toy.config(checkpoint=settings | {'average': 4}), tmp_path, quiet=True)


def test_the_best_checkpoint_is_found_from_the_run_and_from_its_checkpoints(tmp_path):
    """Lower is better: both paths take the step with the smallest value, and neither guesses a direction."""
    run = dict(evals=dict(test=dict(every=2)), checkpoint=dict(every=2, keep=5, best='test/accuracy', mode='min'))
    fit(toy.experiment(), toy.config(8, **run), tmp_path, quiet=True)
    values = {
        int(p.parent.parent.name): json.loads(p.read_text())['value']
        for p in tmp_path.glob('checkpoints/*/metrics/metrics')
    }
    assert len(set(values.values())) > 1
    best = read_model(tmp_path / 'checkpoints' / str(min(values, key=values.get)))
    for path in (tmp_path, tmp_path / 'checkpoints'):
        stored = read_model(path)
        assert all((stored[name] == best[name]).all() for name in best)
    (tmp_path / 'config.json').unlink()
    with pytest.raises(UsageError, match=r'does not state run\.checkpoint\.mode'):
        read_model(tmp_path / 'checkpoints')


def test_a_run_before_its_first_checkpoint_says_how_to_get_one(tmp_path):
    (tmp_path / 'checkpoints').mkdir()
    message = r'holds no checkpoint yet; wait .*run\.checkpoint\.every .* or continue it: run --workdir='
    with pytest.raises(UsageError, match=message):
        load_trained(toy.linear(), toy.config(), tmp_path)
