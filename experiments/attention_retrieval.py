"""Attention retrieval: does the gradient through attention survive at every width d_k?

config.data: `batch_size`, `test_batches`, `places`, `symbols`. config.model: `form`, `d_k`, `d_v`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from ml_collections import ConfigDict

from canon import named
from canon.errors import UsageError
from canon.tasks.attention_retrieval import Retriever, draw_retrieval_batch, retrieval_evaluator, retrieval_task
from canon.tasks.synthetic import draw_train_and_test
from canon.train import Experiment


@dataclass(frozen=True)
class DataSettings:
    """config.data. batch_size: rows per step. test_batches: batches of the evaluator. places: key-value pairs per row.
    symbols: that the keys of a row are drawn from, without repetition.
    """

    batch_size: named.Count = 64
    test_batches: named.Count = 10
    places: named.Count = 8
    symbols: named.Count = 32


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {'data': {'DataSettings': DataSettings}, 'model': {'Retriever': Retriever}}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model and config.tx."""
    settings = named.call(DataSettings, config.data, 'data')
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
