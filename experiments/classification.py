"""Binds a config to image classification: any model of `canon.models` on any source with 'image' and 'label'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import data, models, named, plots, weights
from canon.configuration import drop_placeholders
from canon.data.images.checks import infer_image_shape
from canon.tasks import classification as tasks
from canon.tasks.classification_figures import draw_network
from canon.tasks.image_settings import reading_options
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment, Task
from canon.weights.stablehlo import Served, serve_images
from experiments import images

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'loss': tasks.LOSSES,
    'input': {'make_image_input': tasks.make_image_input},
    'data.evals.*': {'ClassificationEvaluation': tasks.ClassificationEvaluation},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.loss and config.tx."""
    source = images.load_images(config, config.data.train.split)
    chain = data.transforms.make_transforms(config.data.train.get('transforms'), 'data.train.transforms')
    transforms = (_check_label(config), *chain)
    shape = infer_image_shape(source, transforms, 'data.train')
    names = tasks.class_names(source, config.model.num_classes)
    experiment = without_data(config, dict(class_names=names, image_shape=shape, num_examples=len(source)))
    sampler = config.data.train.get('sampler', 'shuffled')
    train = data.Batches(source, seed=config.seed, sampler=sampler, transforms=transforms, **images.reading(config))
    evals = {}
    for name in sorted(config.data.evals):
        # The network is drawn once, by the first evaluator.
        draw = None if evals else partial(draw_network, *_model(config))
        evals[name] = _make_evaluator(config, name, experiment.task, shape, names, draw)
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    train = images.placeholder_data(config, about, label=np.zeros(config.data.batch_size, np.int64))
    loss, soft_labels = named.to_plain(config.loss), _soft_labels(config)
    # The weight of auxiliary heads is an argument of the task; the rest of the section is the loss function's.
    auxiliary = {'auxiliary': loss.pop('auxiliary')} if 'auxiliary' in loss else {}
    named.check(auxiliary.get('auxiliary', 0.0), named.NonNegative, 'loss.auxiliary')
    task = tasks.classification_task(*_model(config), tasks.make_loss(**loss), **auxiliary, soft_labels=soft_labels)
    return Experiment(task, config.tx, train, about=about, read=weights.reader(config.model.name))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on random images where its own data would have to be downloaded, to build or to time it."""
    # A folder without a path is a config that waits for the user's own images.
    if not images.is_at_hand(config):
        with config.unlocked():
            config.data.name = 'fake'
            config.data.source = dict(num_classes=config.model.num_classes, channels=len(config.input.mean), size=256)
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their classes."""
    return {'images': plots.draw_image_batch(batch, experiment.about['class_names'])}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Classifies every image of a folder (or one image): its three most likely classes, and a contact sheet.

    Images go through the transforms, scales and mirroring of the first evaluator.
    """
    settings, transforms = images.first_settings(config, tasks.ClassificationEvaluation)
    source_options = drop_placeholders(config.data.get('source', {}))
    # Of the data set's options that of reading files: the others do not apply to the user's images.
    options = {key: value for key, value in source_options.items() if key == 'max_pixels'}
    views = tasks.many_views(experiment.task.predict, settings.scales, settings.flip)
    return images.classify_files(source, options, config, experiment, views, params, mutable, transforms)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, num_classes]."""
    shape, names = experiment.about['image_shape'], list(experiment.about['class_names'])
    return serve_images(experiment.task.predict, shape, jax.nn.softmax, class_names=names)


def _make_evaluator(
    config: ConfigDict, name: str, task: Task, shape: tuple[int, ...], names: list[str], draw: Callable | None
) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.ClassificationEvaluation, config.data.evals[name], where)
    source, chain = images.load_held_out(config, settings, where, images.load_images)
    transforms = (_check_label(config), *chain)
    predict = tasks.many_views(task.predict, settings.scales, settings.flip)
    eval_shape = infer_image_shape(source, transforms, where)
    if eval_shape != shape or settings.scales:  # tracing the network takes seconds: only where it may fail
        tasks.check_shapes(task, predict, shape, eval_shape, where)
    batches = data.Once(source, transforms=transforms, **images.reading(config))
    return tasks.classification_evaluator(predict, batches, names, draw, _soft_labels(config))


def _model(config: ConfigDict) -> tuple[Any, Callable]:
    """Returns the network, and the function from a batch to its input."""
    return models.make_model(**config.model), named.call(tasks.make_image_input, config.input, 'input')


def _check_label(config: ConfigDict) -> Any:
    """Returns the first link of all transforms: on the host, an example with an invalid label can still be named."""
    return data.transforms.check_label(num_classes=config.model.num_classes, soft_labels=_soft_labels(config))


def _soft_labels(config: ConfigDict) -> bool:
    return bool(config.loss.get('soft_labels', False))
