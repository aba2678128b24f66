"""Binds a config to image classification: any model of `canon.models` on any source with 'image' and 'label'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named, weights
from canon.data.images.checks import check_held_out, infer_image_shape
from canon.tasks import classification as tasks
from canon.tasks.classification_figures import draw_network
from canon.train import Evaluator, Experiment, Task
from canon.weights.stablehlo import Served
from experiments.images import SHEET, reading, reading_options
from experiments.predictions import Prediction

_CLASSES = 3  # most likely classes per image in predictions.csv


@dataclass(frozen=True)
class EvaluatorSettings:
    """One entry of config.data.evals.

    Attributes:
      split: of the data, as 'test' or 'train[90%:]'.
      transforms: as of `canon.data.transforms.make_transforms`; one that makes crops [K, H, W, C], such as `ten_crop`,
        averages the K posteriors.
      scales: lengths of the shorter side over which posteriors are averaged; empty for the image as it is.
      flip: whether mirror images are averaged as well.
      trained_on: allows images of the training split, to measure how well they are fitted.
    """

    split: str
    transforms: Mapping[str, Any] | None = None
    scales: tuple[named.Count, ...] = ()
    flip: bool = False
    trained_on: bool = False


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'loss': tasks.LOSSES,
    'input': {'make_image_input': tasks.make_image_input},
    'data.evals.*': {'EvaluatorSettings': EvaluatorSettings},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.loss and config.tx."""
    source = _load(config, config.data.train.split)
    transforms = _transforms(config, config.data.train.get('transforms'), 'data.train.transforms')
    shape = infer_image_shape(source, transforms, 'data.train')
    names = tasks.class_names(source, config.model.num_classes)
    experiment = without_data(config, dict(class_names=names, image_shape=shape, num_examples=len(source)))
    sampler = config.data.train.get('sampler', 'shuffled')
    train = data.Batches(source, seed=config.seed, sampler=sampler, transforms=transforms, **reading(config))
    return experiment._replace(train=train, evals=_evaluators(config, experiment.task, shape, names))


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    size = config.data.batch_size
    batch = {
        'image': np.zeros((size, *about['image_shape']), np.uint8),
        'label': np.zeros(size, np.int64),
        'mask': np.ones(size, bool),
    }
    # Batches of zeros of the right shapes: a run's parameters are restored, not trained.
    train = data.Generated(lambda step: batch, size, about['num_examples'])
    model, make_input = _model(config)
    loss = named.to_plain(config.loss)
    auxiliary = {'auxiliary': loss.pop('auxiliary')} if 'auxiliary' in loss else {}
    named.check(auxiliary.get('auxiliary', 0.0), named.NonNegative, 'loss.auxiliary')
    soft_labels = _soft_labels(config)
    task = tasks.classification_task(model, make_input, tasks.make_loss(**loss), **auxiliary, soft_labels=soft_labels)
    return Experiment(task, config.tx, train, about=about, read=weights.reader(config.model.name))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on random images where its own data would have to be downloaded, to build or to time it."""
    missing = config.data.name == 'folder' and config.data.source.get('path') is None
    if missing or not data.is_own(config.data.name):
        with config.unlocked():
            config.data.name = 'fake'
            config.data.source = dict(num_classes=config.model.num_classes, channels=len(config.input.mean), size=256)
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Classifies every image of a folder (or one image): its three most likely classes, and a contact sheet.

    Images go through the transforms, scales and mirroring of the first evaluator.
    """
    first = min(config.data.evals, default=None)
    settings = EvaluatorSettings('') if first is None else _settings(config, first)
    transforms = data.transforms.make_transforms(settings.transforms, f'data.evals.{first}.transforms')
    options = config.data.get('source', {})
    files = data.image_files.Files(
        source, **{k: options[k] for k in ('unreadable', 'max_pixels') if options.get(k) is not None}
    )
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    names, channels = experiment.about['class_names'], experiment.about['image_shape'][-1]
    views = tasks.many_views(experiment.task.predict, settings.scales, settings.flip)
    sheet, count = [], 0
    for count, (image, probabilities) in enumerate(tasks.classify(views, params, mutable, batches, channels), 1):
        best = np.argsort(-probabilities, kind='stable')[:_CLASSES]
        row = {'file': str(files.paths[count - 1])}
        for rank, index in enumerate(best, 1):
            row |= {f'class{rank}': names[index], f'probability{rank}': f'{probabilities[index]:.4f}'}
        yield Prediction(row)
        if len(sheet) < SHEET:
            sheet.append((image, f'{names[best[0]]} {probabilities[best[0]]:.2f}'))
    skipped = f', {len(files.skipped)} skipped' if files.skipped else ''
    yield Prediction(files={'predictions.png': tasks.draw_sheet(sheet)}, text=f'{count} images classified{skipped}')


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, num_classes]."""

    def probabilities(params, mutable, images):
        return jax.nn.softmax(experiment.task.predict(params, mutable, {'image': images}))

    shape, names = experiment.about['image_shape'], experiment.about['class_names']
    return Served(probabilities, tuple(shape), 'uint8', {'class_names': list(names)})


def _model(config: ConfigDict) -> tuple[Any, Callable]:
    """Returns the network, and the function from a batch to its input."""
    return models.make_model(**config.model), named.call(tasks.make_image_input, config.input, 'input')


def _load(config: ConfigDict, split: str) -> data.Source:
    options = {k: v for k, v in config.data.get('source', {}).items() if v is not None}
    return data.load_source(config.data.name, split, data_dir=config.data.get('data_dir'), **options)


def _settings(config: ConfigDict, name: str) -> EvaluatorSettings:
    return named.call(EvaluatorSettings, config.data.evals[name], f'data.evals.{name}')


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str):
    """Makes the config's transforms after a check of the labels: on the host an invalid one can still be named."""
    check = data.transforms.check_label(num_classes=config.model.num_classes, soft_labels=_soft_labels(config))
    return (check, *data.transforms.make_transforms(spec, where))


def _soft_labels(config: ConfigDict) -> bool:
    return bool(config.loss.get('soft_labels', False))


def _evaluators(config: ConfigDict, task: Task, shape: tuple[int, ...], names: list[str]) -> dict[str, Evaluator]:
    """Makes the evaluators by name; the first also draws the network."""
    evals, draw = {}, partial(draw_network, *_model(config))
    for name in sorted(config.data.evals):
        settings, where = _settings(config, name), f'data.evals.{name}'
        source = _load(config, settings.split)
        if not settings.trained_on:
            check_held_out(config.data.train.split, settings.split, source.info.total, where)
        transforms = _transforms(config, settings.transforms, f'{where}.transforms')
        predict = tasks.many_views(task.predict, settings.scales, settings.flip)
        eval_shape = infer_image_shape(source, transforms, where)
        if eval_shape != shape or settings.scales:  # tracing the network takes seconds: only where it may fail
            tasks.check_shapes(task, predict, shape, eval_shape, where)
        batches = data.Once(source, transforms=transforms, **reading(config))
        evals[name] = tasks.classification_evaluator(
            predict, batches, names, None if evals else draw, _soft_labels(config)
        )
    return evals
