"""Attention retrieval: does the gradient through attention survive at every width d_k?

config.data: `batch_size`, `test_batches`, `places`, `symbols`. config.model: `form`, `d_k`, `d_v`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots
from canon.errors import UsageError
from canon.tasks.attention_retrieval import (
    RetrievalSettings,
    Retriever,
    draw_retrieval_batch,
    retrieval_evaluator,
    retrieval_task,
)
from canon.tasks.synthetic import draw_train_and_test
from canon.train import Experiment

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {'data': {'RetrievalSettings': RetrievalSettings}, 'model': {'Retriever': Retriever}}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model and config.tx."""
    settings = named.call(RetrievalSettings, config.data, 'data')
    if settings.symbols < settings.places:
        raise UsageError(
            f'data.symbols={settings.symbols} must be at least data.places={settings.places}: the keys of a row differ'
        )
    model = named.call(Retriever, {'symbols': settings.symbols, **named.to_plain(config.model)}, 'model')
    task = retrieval_task(model)

    train, test = draw_train_and_test(
        lambda rng: draw_retrieval_batch(rng, settings.batch_size, settings.places, settings.symbols),
        config.seed,
        settings.batch_size,
        settings.test_batches,
    )
    initial = task.init(jax.random.key(config.seed), train[0])['params']  # the parameters that training starts from
    return Experiment(task, config.tx, train, {'test': retrieval_evaluator(task, model, initial, test)})


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config as it is: the data are synthetic."""
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the arrays of a batch."""
    return {'arrays': plots.draw_array_batch(batch)}
