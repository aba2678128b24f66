"""Evaluation on the host, by several processes, and without any training."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import Mean, Rows
from canon.train import Evaluator, Experiment, Task, evaluate, evaluate_run, fit, replay_step, shard, write_report
from canon.train.evaluation import join_sums
from canon.train.log import read_rows
from tests.train.test_fit import stopping, toy_figure


class Points:
    """Three batches of four rows, of which a process of a job reads its half; `reads` counts how often."""

    batch_size = 4

    def __init__(self, index=0, count=1):
        self.index, self.count, self.reads = index, count, 0

    def __len__(self):
        return 3

    def iterate(self, start=0):
        self.reads += 1
        for number in range(start, 3):
            x = np.arange(4, dtype=np.float32) + 4 * number
            batch = {'x': x, 'id': x.astype(np.int8), 'mask': x != 11}
            size = 4 // self.count
            yield {k: v[self.index * size : (self.index + 1) * size] for k, v in batch.items()}

    def for_process(self, index, count):
        return Points(index, count)


def scaling():
    return Task(
        lambda key, batch: {'params': {'a': jnp.full((), 2.0)}}, None, lambda p, mutable, batch: p['a'] * batch['x']
    )


def measure_on_host(params, mutable, batch):
    from scipy.optimize import linear_sum_assignment

    assert all(type(x) is np.ndarray for x in batch.values())
    assert isinstance(params['a'], jax.Array)
    values = np.asarray(jax.jit(scaling().predict)(params, mutable, batch))
    rows, columns = linear_sum_assignment(np.abs(values[:, None] - values[::-1]))
    assert (rows == columns[::-1]).all()
    return {'mean': Mean(values[batch['mask']].sum(), batch['mask'].sum()), 'rows': Rows.of(batch['id'], batch['mask'])}


def finish(sums):
    ids = [int(i) for i in sums['rows'].each()]
    return {'mean': sums['mean'].value, 'ordered': float(ids == sorted(ids)), 'rows': len(ids)}


EVALUATOR = Evaluator(Points(), measure_on_host, finish, on_host=True)
PARAMS = {'a': jnp.full((), 2.0)}


def test_an_evaluator_on_the_host_receives_numpy():
    """Its measure calls scipy; rows keep their narrow types while sums are widened."""
    metrics, sums = evaluate(EVALUATOR, PARAMS, {}, shard.make_mesh(1))
    assert metrics == {'mean': pytest.approx(2 * np.mean(range(11))), 'ordered': 1.0, 'rows': 11.0}
    assert {part[0].dtype for part in sums['rows'].parts} == {np.dtype(np.int8)}
    assert {part[1].dtype for part in sums['rows'].parts} == {np.dtype(bool)}
    assert sums['mean'].total.dtype == np.float64
    assert sums['mean'].weight.dtype == np.int64


def test_rows_of_a_compiled_measure_stay_narrow():
    def measure(params, mutable, batch):
        return Rows.of({'id': batch['id'], 'half': batch['x'].astype(jnp.bfloat16)}, batch['mask'])

    _, sums = evaluate(Evaluator(Points(), measure, lambda rows: {}), PARAMS, {}, shard.make_mesh(1))
    assert {x.dtype.name for x in jax.tree.leaves(sums)} == {'int8', 'bfloat16', 'bool'}


def test_processes_add_what_each_measured_of_its_rows():
    """The sums of two halves, joined, are those of one process; rows come in the order of the batches."""
    mesh = shard.make_mesh(1)
    whole = evaluate(EVALUATOR, PARAMS, {}, mesh)
    halves = [evaluate(EVALUATOR._replace(data=Points(i, 2)), PARAMS, {}, mesh).sums for i in range(2)]
    assert finish(join_sums(halves)) == whole.metrics
    assert join_sums([None, None]) is None


def nothing_trained(data=None, **changes):
    draw = lambda params, mutable, sums: {'nothing': toy_figure()}  # noqa: E731
    return Experiment(scaling(), evals={'test': EVALUATOR._replace(data=data or Points(), draw=draw, **changes)})


CONFIG = dict(seed=0, run=dict(log=()))


def test_an_experiment_without_training_data_is_evaluated_once(tmp_path):
    experiment = nothing_trained()
    fitted = fit(experiment, CONFIG, tmp_path, quiet=True)
    data = experiment.evals['test'].data
    reads, expected = data.reads, {'test/mean': 10.0, 'test/ordered': 1.0, 'test/rows': 11.0}
    assert (fitted.status, fitted.step, fitted.metrics) == ('done', 0, expected)
    status = json.loads((tmp_path / 'status.json').read_text())
    assert (status['state'], status['metrics'], status['weights']) == ('done', expected, 'untrained weights')
    assert [row['test/mean'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [10.0]
    assert (tmp_path / 'figures' / 'test-nothing.png').exists()
    assert 'src="data:image/png;base64,' in write_report(tmp_path).read_text()
    again = fit(experiment, CONFIG, tmp_path, quiet=True)
    assert (again.status, again.metrics) == ('done', expected)
    assert data.reads == reads + 1  # the batch that gives the shapes
    assert evaluate_run(experiment, CONFIG, tmp_path)['test/mean'] == 10.0
    with pytest.raises(UsageError, match='nothing is trained, so there is no step to replay'):
        replay_step(experiment, CONFIG, tmp_path, 1)


def test_a_metric_of_a_single_evaluation_may_be_nan(tmp_path):
    experiment = nothing_trained(finish=lambda sums: {'mean': math.nan})
    for _ in range(2):
        assert math.isnan(fit(experiment, CONFIG, tmp_path, quiet=True).metrics['test/mean'])


def test_published_weights_are_evaluated(tmp_path):
    read = lambda path, leaves: {'a': np.float32(3)}  # noqa: E731
    experiment = nothing_trained()._replace(read=read)
    config = dict(run=dict(log=(), init_from=dict(path='published.npz')))
    fitted = fit(experiment, config, tmp_path, quiet=True)
    assert fitted.metrics['test/mean'] == 15.0
    assert fitted.weights == 'weights from published.npz'


def test_a_single_evaluation_stops_and_resumes(tmp_path):
    data = stopping(2, length=3)  # the first reading gives the shapes
    measure = lambda params, mutable, batch: Mean(batch['mask'].sum(), np.float64(1))  # noqa: E731
    task = Task(lambda key, batch: {'params': {}}, None, None)
    experiment = Experiment(task, evals={'test': Evaluator(data, measure, lambda s: {'n': s.value}, on_host=True)})
    assert fit(experiment, CONFIG, tmp_path, quiet=True).status == 'stopped'
    assert fit(experiment, CONFIG, tmp_path, quiet=True).status == 'done'
    assert len(read_rows(tmp_path / 'metrics.jsonl')) == 1


@pytest.mark.parametrize(
    ('run', 'message'),
    [
        (dict(steps=3), r'run\.steps=3: the experiment has no training data'),
        (dict(steps='2 epochs'), r"run\.steps='2 epochs': the experiment has no training data"),
        (dict(log_every='1 epoch'), r"run\.log_every='1 epoch' cannot be turned into steps"),
        (dict(evals=dict(tset=dict(every=1))), r'run\.evals\.tset: the experiment has no such evaluator'),
    ],
)
def test_lengths_of_a_training_are_refused_without_one(tmp_path, run, message):
    with pytest.raises(UsageError, match=message):
        fit(nothing_trained(), dict(run=run), tmp_path, quiet=True)


def test_nothing_to_train_and_nothing_to_evaluate_is_refused(tmp_path):
    with pytest.raises(UsageError, match='neither training data nor an evaluator'):
        fit(Experiment(scaling()), CONFIG, tmp_path, quiet=True)
