"""What `fit` prepares: the optimizer of a config, the rows of a process, the steps of every batch shape."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import Experiment, Task, bind, fit, shard
from canon.train.log import read_rows
from canon.train.ranking import best_step, is_better
from canon.train.setup import make_setup
from tests.train import toy

COSINE = dict(name='sgd', learning_rate=dict(name='cosine', init=0.1, final=0.0, steps='100%'))


def test_the_optimizer_of_a_config_is_made_with_lengths_in_steps():
    """2 epochs of 64 examples in batches of 16 are 8 steps; half of them are 4."""
    tx = COSINE | {'learning_rate': COSINE['learning_rate'] | {'steps': '50%'}}
    bound = bind(toy.linear()._replace(tx=tx), toy.config(steps='2 epochs'))
    expected = optim.make_optimizer(COSINE | {'learning_rate': COSINE['learning_rate'] | {'steps': 4}})
    params, grads = {'w': jnp.ones(3)}, {'w': jnp.full(3, 0.5)}
    states = [made.init(params) for made in (bound.tx, expected)]
    for _ in range(6):
        results = [made.update(grads, s, params) for made, s in zip((bound.tx, expected), states, strict=True)]
        jax.tree.map(np.testing.assert_array_equal, *results)
        states = [state for _, state in results]
    again = bind(bound, toy.config(steps='2 epochs'))
    assert again.tx is bound.tx


@pytest.mark.parametrize(
    ('tx', 'message'),
    [
        (dict(name='sgdd', learning_rate=0.1), r"tx: no optimizer is called 'sgdd'"),
        (COSINE | {'learning_rate': COSINE['learning_rate'] | {'steps': '3 epoochs'}}, r'tx\.learning_rate'),
    ],
)
def test_a_wrong_optimizer_is_named(tx, message):
    with pytest.raises(UsageError, match=message):
        bind(toy.linear()._replace(tx=tx), toy.config())


def test_data_are_cut_to_the_rows_of_a_process(monkeypatch):
    """By the loop and nobody else: training data and those of evaluators."""

    class Whole:
        """Data without the method."""

    class Sharded(toy.Stream):
        def for_process(self, index, count):
            cut = Sharded(self.batch_size, self.length, self.seed)
            cut.part = (index, count)
            return cut

    experiment = toy.linear()
    experiment = experiment._replace(
        train=Sharded(), evals={'test': experiment.evals['test']._replace(data=Sharded(length=3))}
    )
    assert bind(experiment, toy.config()).train is experiment.train  # one process reads everything
    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    monkeypatch.setattr(jax, 'process_index', lambda: 2)
    bound = bind(bind(experiment, toy.config()), toy.config())
    assert bound.train.part == bound.evals['test'].data.part == (2, 4)
    whole = experiment.evals['test']._replace(data=Whole())
    with pytest.raises(UsageError, match=r'evals\.test: Whole has no method for_process\(index, count\)'):
        bind(experiment._replace(evals={'test': whole}), toy.config())
    with pytest.raises(UsageError, match=r'data: Whole has no method for_process'):
        bind(experiment._replace(train=Whole()), toy.config())


def test_a_step_of_ones_own_does_not_accumulate():
    one = Mean(jnp.ones(()), jnp.ones(()))
    experiment = toy.linear(make_step=lambda task, tx, seed: lambda state, batch: (state, {'loss': one}))
    with pytest.raises(UsageError, match=r'run\.accumulate=2: the experiment defines its own step'):
        make_setup(experiment, toy.config(accumulate=2))
    assert make_setup(experiment, toy.config()).names == ('loss',)


def test_a_new_batch_shape_is_compiled_in_peace(tmp_path, capfd):
    """The watchdog does not count the compilation as a step that hangs, and the log row does not count its time."""
    seconds = 1.0

    def loss(params, mutable, batch, at):
        if batch['x'].shape[1] == 3:
            time.sleep(seconds)  # in tracing: a compilation that takes long
        return Mean.of((params['w'] * batch['x'].mean(1)) ** 2), (mutable, {})

    task = Task(lambda key, batch: {'params': {'w': jnp.ones(())}}, loss, None)
    data = Generated(lambda step: {'x': np.ones((4, 3 if step == 12 else 2), np.float32)}, 4)
    run = dict(steps=16, log_every=16, watchdog=dict(factor=1.0, least=0.2), log=())
    fit(Experiment(task, optim.sgd(0.1), data), dict(run=run), tmp_path)
    assert not (tmp_path / 'stacks.txt').exists()
    (row,) = read_rows(tmp_path / 'metrics.jsonl')
    assert row['train/step_seconds'] < seconds / 15  # of 14 steps without their compilations
    lines = [line for line in capfd.readouterr().out.splitlines() if 'compiled' in line]
    assert len(lines) == 2
    assert 'for a new batch shape, at step 13' in lines[1]


def test_a_metric_has_a_direction():
    assert is_better(0.2, 0.1, 'max')
    assert not is_better(0.2, 0.1, 'min')
    assert not is_better(0.15, 0.1, 'max', min_delta=0.1)
    assert is_better(-5.0, None, 'max')
    for mode in ('min', 'max'):
        assert not is_better(float('nan'), None, mode)
        assert not is_better(float('inf'), 0.0, mode)
        assert not is_better(0.1, 0.1, mode)
    with pytest.raises(ValueError, match='mode=None'):
        is_better(0.1, 0.2, None)
    values = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.1, 5: 0.1}
    assert (best_step(values, 'max'), best_step(values, 'min')) == (3, 5)


def test_the_processes_of_a_job_gather_bits():
    value = {'sum': np.float64(1) / 3, 'rows': (np.int8(3), None)}
    assert shard.gather_objects(value) == [value]
