"""The adding problem with a tanh RNN. config.net: `hidden` units, spectral `radius` of the recurrent weights."""

from __future__ import annotations

from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.tasks.optimizer_lab import adding_task, draw_mean_batch, draw_sparse_rnn
from canon.tasks.optimizer_lab.adding_problem import INCOMING
from canon.tasks.synthetic import draw_train_and_test
from canon.train import Evaluator, Experiment


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data (`length`, `batch_size`, `test_batches`), config.net and config.tx."""
    d, net = config.data, config.net
    if d.length < 10:
        raise UsageError(f'data.length={d.length}: the two flags need at least 10 steps')
    if net.hidden < INCOMING:
        raise UsageError(
            f'net.hidden={net.hidden}: each unit has {INCOMING} incoming connections; give at least as many'
        )
    task = adding_task(draw_sparse_rnn(config.seed, net.hidden, net.radius))
    train, test = draw_train_and_test(
        lambda rng: draw_mean_batch(rng, d.batch_size, d.length), config.seed, d.batch_size, d.test_batches
    )

    def measure(params, mutable, batch):
        loss, _ = task.loss(params, mutable, batch, None)
        return loss

    evaluator = Evaluator(test, measure, lambda mean: {'loss': mean.value})
    return Experiment(task, config.tx, train, {'test': evaluator})
