"""Binds a config to an appearance embedding: a network that learns to tell the objects of sequences apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import data, models, named, plots
from canon.data.tracking import SEQUENCE_SETS, CropSettings, ObjectCrops, crop_object
from canon.tasks import tracking as tasks
from canon.tasks.classification import make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.train import Evaluator, Experiment
from experiments import images, sequences

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': SEQUENCE_SETS,
    'data.crops': {'CropSettings': CropSettings},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'RetrievalEvaluation': tasks.RetrievalEvaluation},
    'data.reading': {'reading_options': reading_options},
    'input': {'make_image_input': make_image_input},
    'loss': {'EmbeddingLoss': tasks.EmbeddingLoss},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.loss and config.tx."""
    settings = named.call(TrainImages, config.data.train, 'data.train')
    crops = named.call(CropSettings, config.data.get('crops', {}), 'data.crops')
    source = _read_crops(config, sequences.load(config, settings.split))
    about = dict(
        num_examples=len(source), num_identities=source.num_identities, image_shape=(crops.height, crops.width, 3)
    )
    experiment = without_data(config, about)
    transforms = (crop_object(crops), *data.transforms.make_transforms(settings.transforms, 'data.train.transforms'))
    options = dict(batch_size=config.data.batch_size, **sequences.reading(config))
    train = data.Batches(source, seed=config.seed, sampler=settings.sampler, transforms=transforms, **options)
    make_evaluator = partial(_make_evaluator, config, experiment, crops, options)
    return experiment._replace(train=train, evals={name: make_evaluator(name) for name in sorted(config.data.evals)})


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to embed crops."""
    network = models.make_model(**named.to_plain(config.model))
    make_input = named.call(make_image_input, config.input, 'input')
    loss = named.call(tasks.EmbeddingLoss, config.loss, 'loss')
    task = tasks.embedding_task(network, make_input, loss, about['num_identities'])
    zeros = np.zeros(config.data.batch_size, np.int32)
    train = images.placeholder_data(config, about, label=zeros.astype(np.int64), sequence=zeros, frame=zeros)
    return Experiment(task, config.tx, train, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on sequences of digits, where its own data would have to be read from files."""
    return sequences.use_digits(config)


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws crops with the identities of their objects."""
    return {'crops': plots.draw_image_batch(batch)}


def load_embedder(folder: Path, where: str = 'appearance') -> tasks.Embedder:
    """Returns the embedding that a run of this experiment has left in its folder.

    where: the section of the config that names it, for errors.
    """
    config, experiment, params, mutable = sequences.read_run(folder, 'track_embedding', where)
    crops = named.call(CropSettings, config.data.get('crops', {}), 'data.crops')
    return tasks.make_embedder(experiment.task, params, mutable, crops)


def _make_evaluator(
    config: ConfigDict, experiment: Experiment, crops: CropSettings, options: Mapping[str, Any], name: str
) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.RetrievalEvaluation, config.data.evals[name], where)
    source = _read_crops(config, sequences.load_held_out(config, settings.split, where), settings.every)
    batches = data.Once(source, transforms=(crop_object(crops),), **options)
    return tasks.retrieval_evaluator(experiment.task.predict, batches, settings)


def _read_crops(config: ConfigDict, source: Any, every: int = 1) -> ObjectCrops:
    return ObjectCrops(source, every, memory_limit=sequences.reading(config)['memory_limit'], info=source.info)
