"""A perceptron on the handwritten digits. config.net: `hidden` layers, `goal` ('classify' or 'reconstruct')."""

from __future__ import annotations

from ml_collections import ConfigDict

from canon import data
from canon.tasks.optimizer_lab import perceptron_evaluator, perceptron_task
from canon.train import Experiment


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data (`batch_size`, `data_dir`), config.net and config.tx."""
    task = perceptron_task(config.net.hidden, config.net.goal, classes=10, pixels=8 * 8)
    train, test = (data.load_source('digits', split, data_dir=config.data.data_dir) for split in ('train', 'test'))
    batches = data.Batches(train, config.data.batch_size, seed=config.seed)
    evals = {'test': perceptron_evaluator(task, data.Once(test, config.data.batch_size))}
    return Experiment(task, config.tx, batches, evals)
