"""Sequence memory: the copy or the adding problem with a recurrent network.

config.data: `problem` ('copy' or 'adding'), `gap`, `batch_size`, `test_batches`. config.model: `name` ('rnn', 'lstm' or
'gru') and the arguments of the layer (`hidden`, `forget_bias`, `activation`, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, nn, plots
from canon.errors import UsageError
from canon.nn.recurrent import Recurrent
from canon.tasks.sequence_memory import PROBLEMS, MemorySettings, SequenceReadout, memory_evaluator, memory_task
from canon.tasks.synthetic import draw_train_and_test
from canon.train import Experiment

CELLS: dict[str, Any] = {'rnn': nn.RNN, 'lstm': nn.LSTM, 'gru': nn.GRU}


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {'data': {'MemorySettings': MemorySettings}, 'model': CELLS}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model and config.tx."""
    settings = named.call(MemorySettings, config.data, 'data')
    if settings.problem not in PROBLEMS:
        near = named.suggest(settings.problem, PROBLEMS)
        raise UsageError(f'data.problem={settings.problem!r} must be one of {", ".join(PROBLEMS)}{near}')
    problem = PROBLEMS[settings.problem]
    model = SequenceReadout(make_layer(**named.to_plain(config.model)), problem.features)
    task = memory_task(model, problem)

    train, test = draw_train_and_test(
        lambda rng: problem.draw(rng, settings.batch_size, settings.gap),
        config.seed,
        settings.batch_size,
        settings.test_batches,
    )
    initial = task.init(jax.random.key(config.seed), train[0])['params']  # the parameters that training starts from
    evaluator = memory_evaluator(task, model, initial, test, problem.baseline(settings.gap))
    return Experiment(task, config.tx, train, {'test': evaluator})


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config as it is: the data are synthetic."""
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the arrays of a batch."""
    return {'arrays': plots.draw_array_batch(batch)}


def make_layer(name: str, **arguments: Any) -> Recurrent:
    """Makes the recurrent layer `name` with its arguments, such as `hidden`."""
    named.check(name, str, 'model.name')
    if name not in CELLS:
        raise UsageError(f'model.name={name!r} must be one of {", ".join(CELLS)}{named.suggest(name, CELLS)}')
    return named.call(CELLS[name], arguments, 'model')
