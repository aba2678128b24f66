"""Stages: those that train begin from finished ones by name, those that compute leave whole artefacts."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim
from canon.data import Arrays, Generated, Once
from canon.errors import CanonError, UsageError
from canon.metrics import Mean
from canon.train import Evaluator, Experiment, Stage, Task, evaluate, fit, run_stages
from canon.train.init_from import read_model
from canon.train.log import read_rows
from canon.train.shard import make_local_mesh, put, replicated_sharding
from canon.train.stages import last_stage
from tests.two_processes import pretend_to_be_the_first


def line(**changes):
    """y = a x + b on batches of the line 3 x + 1."""

    def batch(step):
        x = np.random.default_rng(step).uniform(-1, 1, 8).astype(np.float32)
        return {'x': x, 'y': 3 * x + 1}

    def loss(params, mutable, batch, at):
        return Mean.of((params['a'] * batch['x'] + params['b'] - batch['y']) ** 2), (mutable, {})

    task = Task(lambda key, batch: {'params': {'a': jnp.zeros(()), 'b': jnp.zeros(())}}, loss, None)
    return Experiment(task, dict(name='sgd', learning_rate=0.3), Generated(batch, 8))._replace(**changes)


def config(steps, **run):
    return dict(seed=0, run=dict(steps=steps, log=(), **run))


def test_a_stage_begins_from_one_that_it_names(tmp_path):
    """Three stages: the last begins from the first, not from the one before it."""
    stages_seen = []

    def make(name, *changes, **run):
        def make_stage(stages):
            stages_seen.append((name, dict(stages)))
            return line(*changes), config(**run)

        return make_stage

    still = dict(tx=optim.sgd(0.0))
    stages = [
        Stage('first', make('first', steps=3)),
        Stage('second', make('second', steps=5)),
        Stage('third', lambda stages: (line(**still), config(1, init_from=dict(stage='first')))),
    ]
    fitted = run_stages(stages, {}, tmp_path, quiet=True)
    folders = {name: tmp_path / f'{i}-{name}' for i, name in enumerate(('first', 'second', 'third'))}
    assert stages_seen == [('first', {}), ('second', {'first': folders['first']})]
    _, made, folder = last_stage(stages, {}, tmp_path)
    assert (folder, made['run']['init_from']['path']) == (folders['third'], str(folders['first']))
    first = run_stages([*stages[:1]], {}, tmp_path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, fitted.state.params, first.state.params)


def test_a_name_that_is_not_a_finished_stage_is_refused(tmp_path):
    stages = [Stage('first', lambda stages: (line(), config(1, init_from=dict(stage='frist'))))]
    with pytest.raises(UsageError, match=r"run\.init_from\.stage='frist': no stage before 'first' has that name"):
        run_stages(stages, {}, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ([], 'has no stage'),
        ([Stage('a', run=print), Stage('a', run=print)], "two stages are called 'a'"),
        ([Stage('a')], "the stage 'a' needs either `make`, which trains, or `run`"),
        ([Stage('a', make=print, run=print)], "the stage 'a' needs either"),
    ],
)
def test_stages_that_are_no_list_of_tasks_are_refused(tmp_path, stages, message):
    with pytest.raises(UsageError, match=message):
        run_stages(stages, {}, tmp_path, quiet=True)


class Computing:
    """A stage with two artefacts; its second computation does `then` the first time."""

    def __init__(self, then=lambda artefacts: None):
        self.calls, self.then = [], then

    def run(self, stages, artefacts):
        def features(path):
            self.calls.append('features')
            np.savez(path, x=np.arange(5.0))

        def ridge(path):
            self.calls.append('ridge')
            path.mkdir()
            (path / 'half').write_text('half')
            then, self.then = self.then, lambda artefacts: None
            then(artefacts)
            (path / 'weights').write_text(str(np.load(x)['x'].sum()))

        x = artefacts.compute('features.npz', features)
        return {'ridge/sum': float((artefacts.compute('ridge', ridge) / 'weights').read_text())}


def fail(artefacts):
    raise OSError('the data are gone')


def be_stopped(artefacts):
    signal.raise_signal(signal.SIGTERM)
    artefacts.report(1, 10)


def test_artefacts_are_computed_once_and_found_by_later_stages(tmp_path):
    computing, folders_found = Computing(), []

    def make(stages):
        folder = stages['features'] / 'artefacts'
        folders_found.append(sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()))
        return line(), config(2)

    stages = [Stage('features', run=computing.run), Stage('fit', make)]
    for _ in range(2):
        assert run_stages(stages, config(2), tmp_path, quiet=True).status == 'done'
    assert computing.calls == ['features', 'ridge']
    assert folders_found == [['features.npz', 'ridge/half', 'ridge/weights']] * 2
    status = json.loads((tmp_path / '0-features' / 'status.json').read_text())
    assert (status['state'], status['metrics']) == ('done', {'ridge/sum': 10.0})
    assert [row['ridge/sum'] for row in read_rows(tmp_path / '0-features' / 'metrics.jsonl')] == [10.0]
    assert (tmp_path / '0-features' / 'report.html').exists()
    assert last_stage(stages, {}, tmp_path)[2] == tmp_path / '1-fit'


@pytest.mark.parametrize('then', [fail, be_stopped])
def test_a_computation_that_ends_early_leaves_whole_artefacts(tmp_path, then):
    """The next command computes what is missing, and nothing else."""
    computing = Computing(then)
    stages = [Stage('features', run=computing.run)]
    if then is fail:
        with pytest.raises(OSError, match='the data are gone'):
            run_stages(stages, config(0), tmp_path, quiet=True)
    else:
        assert run_stages(stages, config(0), tmp_path, quiet=True).status == 'stopped'
    folder = tmp_path / '0-features'
    expected = 'failed' if then is fail else 'stopped'
    assert json.loads((folder / 'status.json').read_text())['state'] == expected
    assert [p.name for p in (folder / 'artefacts').iterdir() if not p.name.startswith('.')] == ['features.npz']
    with pytest.raises(UsageError, match='holds no run'):
        last_stage(stages, {}, tmp_path)
    fitted = run_stages(stages, config(0), tmp_path, quiet=True)
    assert (fitted.status, fitted.state, fitted.metrics) == ('done', None, {'ridge/sum': 10.0})
    assert computing.calls == ['features', 'ridge', 'ridge']
    assert not (folder / 'artefacts' / '.part').exists()
    again = run_stages(stages, config(0), tmp_path, quiet=True)
    assert (again.status, again.metrics) == ('done', {'ridge/sum': 10.0})
    with pytest.raises(UsageError, match=r'belongs to another config: run\.steps'):
        run_stages(stages, config(1), tmp_path, quiet=True)


def test_an_artefact_that_was_not_written_is_named(tmp_path):
    def run(stages, artefacts):
        artefacts.compute('boxes.npz', lambda path: None)

    with pytest.raises(CanonError, match=r'artefacts/boxes\.npz: nothing was written'):
        run_stages([Stage('boxes', run=run)], {}, tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"'a/b' is not a name for an artefact"):
        run_stages([Stage('x', run=lambda s, artefacts: artefacts.compute('a/b', print))], {}, tmp_path, quiet=True)


def test_what_a_stage_computes_waits_for_no_other_process(tmp_path, monkeypatch):
    """In a job of several processes the first computes, and the others could not join a collective of it."""
    fit(line(), config(2), tmp_path, quiet=True)
    expected = read_model(tmp_path)
    pretend_to_be_the_first(monkeypatch)
    for name, value in read_model(tmp_path).items():
        np.testing.assert_array_equal(value, expected[name])
    mesh = make_local_mesh()
    params = put({'a': np.float32(2)}, replicated_sharding(mesh))
    data = Once(Arrays({'x': np.arange(5, dtype=np.float32)}), 2, threads=0)
    evaluator = Evaluator(
        data, lambda p, _, b: {'sum': Mean.of(p['a'] * b['x'], b['mask'])}, lambda s: {'mean': s['sum'].value}
    )
    assert evaluate(evaluator, params, {}, mesh).metrics['mean'] == 4
