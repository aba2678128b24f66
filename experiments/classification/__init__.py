"""Image classification: any model of `canon.models` on any source whose examples have 'image' and 'label'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import jax
import numpy as np
from experiments.classification.evaluator import Spec, classification_evaluator
from experiments.classification.insides import Look
from experiments.classification.task import LOSSES, classification_task, make_loss, many_views, scaled_images
from flax.errors import FlaxError
from ml_collections import ConfigDict

from canon import data, models, named, optim, weights
from canon.errors import UsageError
from canon.train import Evaluator, Experiment, Task, lengths
from canon.weights.stablehlo import Served
from experiments.classification import folder
from experiments.images import image_shape, reading

# Whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {'loss': LOSSES, 'input': {'scaled_images': scaled_images}, 'data.evals.*': {'Spec': Spec}}


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.tx, config.input and config.loss -> a classification experiment."""
    source = _source(config, config.data.train.split)
    transforms = _transforms(config, config.data.train.get('transforms'), 'data.train.transforms')
    shape = image_shape(source, transforms, 'data.train')
    names = class_names(source, config.model.num_classes)
    experiment = without_data(config, dict(class_names=names, image_shape=shape, num_examples=len(source)))
    train = data.Batches(
        source,
        seed=config.seed,
        sampler=config.data.train.get('sampler', 'shuffled'),
        transforms=transforms,
        **reading(config),
    )
    return experiment._replace(train=train, evals=_evaluators(config, experiment.task, shape, names))


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """The experiment of a run that said this of its data in `run.json`: enough to predict with it and to export it."""
    size = config.data.batch_size // jax.process_count()
    batch = {
        'image': np.zeros((size, *about['image_shape']), np.uint8),
        'label': np.zeros(size, np.int64),
        'mask': np.ones(size, bool),
    }
    train = data.Generated(lambda step: batch, config.data.batch_size, about['num_examples'])
    config = lengths.resolve(config, train.batch_size, train.num_examples)
    model, images = _model(config)
    spec = named.plain(config.loss)
    auxiliary = {'auxiliary': spec.pop('auxiliary')} if 'auxiliary' in spec else {}
    named.check(auxiliary.get('auxiliary', 0.0), named.NonNegative, 'loss.auxiliary')
    task = classification_task(model, images, make_loss(spec), **auxiliary, soft_labels=_soft_labels(config))
    return Experiment(task, optim.make(config.tx), train, about=about, read=weights.reader(config.model.name))


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on random images where its own are not at hand: to build it, or to time it."""
    missing = config.data.name == 'folder' and config.data.source.get('path') is None
    if missing or config.data.name not in data.OWN:
        with config.unlocked():
            config.data.name = 'fake'
            config.data.source = dict(num_classes=config.model.num_classes, channels=len(config.input.mean), size=256)
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Classifies every image of a folder (or one image): a CSV of the three likeliest classes and a contact sheet.

    Images go through the transforms, scales and mirroring of the first evaluator.
    """
    first = min(config.data.evals, default=None)
    spec = _spec(config, first) if first is not None else Spec('')
    source_options = config.data.get('source', {})
    files_options = {k: source_options[k] for k in ('unreadable', 'max_pixels') if source_options.get(k) is not None}
    return folder.classify(
        many_views(experiment.task.predict, spec.scales, spec.flip),
        params,
        mutable,
        source,
        names=experiment.about['class_names'],
        channels=experiment.about['image_shape'][-1],
        batch_size=config.data.batch_size,
        transforms=data.transforms.make(spec.transforms, f'data.evals.{first}.transforms'),
        output=output,
        **files_options,
    )


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """What an exported model computes: uint8 images [b, H, W, C] -> probabilities float32 [b, num_classes]."""

    def probabilities(params, mutable, images):
        return jax.nn.softmax(experiment.task.predict(params, mutable, {'image': images}))

    shape, names = experiment.about['image_shape'], experiment.about['class_names']
    return Served(probabilities, tuple(shape), 'uint8', {'class_names': list(names)})


def class_names(source: Any, num_classes: int) -> list[str]:
    """The source's class names; numbers where it has none.

    Raises UsageError where the model has fewer classes, and warns where it has more.
    """
    info, there = source.info, _count_classes(source)
    if there is not None and there > num_classes:
        raise UsageError(f'model.num_classes={num_classes}, but the data have {there} classes; set it to that')
    if there is not None and there < num_classes:
        getLogger('canon').warning(
            'model.num_classes=%d, but the data have %d classes: no label reaches the others', num_classes, there
        )
    names = list(info.class_names or ())
    return names + [str(i) for i in range(len(names), num_classes)]


def _count_classes(source: Any) -> int | None:
    """Returns how many classes a source states, or its labels in memory reach; None where neither is known."""
    if source.info.num_classes is not None or not isinstance(source, data.Arrays):
        return source.info.num_classes
    labels = source.arrays.get('label')
    return int(labels.max()) + 1 if labels is not None and labels.ndim == 1 and len(labels) else None


def _model(config: ConfigDict) -> tuple[Any, Callable]:
    """The network, and what makes its input of a batch."""
    return models.make(**config.model), named.call(scaled_images, config.input, 'input')


def _source(config: ConfigDict, split: str) -> data.Source:
    """config.data.source: the arguments of a folder, of an .npz, ..."""
    d = config.data
    options = {k: v for k, v in d.get('source', {}).items() if v is not None}
    return data.load(d.name, split, data_dir=d.get('data_dir'), **options)


def _evaluators(config: ConfigDict, task: Task, shape: tuple[int, ...], names: list[str]) -> dict[str, Evaluator]:
    """By name; the first also draws the network."""
    evals, look = {}, Look(*_model(config))
    for name in sorted(config.data.evals):
        spec, where = _spec(config, name), f'data.evals.{name}'
        source = _source(config, spec.split)
        _check_held_out(config.data.train.split, spec, source, where)
        transforms = _transforms(config, spec.transforms, f'{where}.transforms')
        predict = many_views(task.predict, spec.scales, spec.flip)
        found = image_shape(source, transforms, where)
        if found != shape or spec.scales:
            _check_fits(task, predict, shape, found, where)
        batches = data.Once(source, transforms=transforms, **reading(config))
        evals[name] = classification_evaluator(predict, batches, names, None if evals else look, _soft_labels(config))
    return evals


def _spec(config: ConfigDict, name: str) -> Spec:
    return named.call(Spec, config.data.evals[name], f'data.evals.{name}')


def _check_held_out(train: str, spec: Spec, source: data.Source, where: str) -> None:
    """Raises UsageError where an evaluator sees images of the training split, unless it says so."""
    if not spec.trained_on and data.splits.overlap(train, spec.split, source.info.total):
        raise UsageError(
            f'{where}.split={spec.split!r} shares images with data.train.split={train!r}: hold some out, as'
            f" 'train[:80%]' and 'train[80%:]', or say {where}.trained_on=True"
        )


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str):
    """The config's transforms; a label out of range is found on the host, where it can be named."""
    check = data.transforms.check_label(num_classes=config.model.num_classes, soft_labels=_soft_labels(config))
    return (check, *data.transforms.make(spec, where))


def _soft_labels(config: ConfigDict) -> bool:
    return bool(config.loss.get('soft_labels', False))


def _check_fits(task: Task, predict: Callable, shape: tuple[int, ...], other: tuple[int, ...], where: str) -> None:
    """Raises UsageError where a model made for images of `shape` does not take those of an evaluator.

    It would otherwise be found at the first evaluation, epochs later.
    """
    batch, others = (
        {'image': jax.ShapeDtypeStruct((1, *s), np.uint8), 'label': jax.ShapeDtypeStruct((1,), np.int32)}
        for s in (shape, other)
    )
    variables = dict(jax.eval_shape(task.init, jax.random.key(0), batch))
    params = variables.pop('params')
    try:
        jax.eval_shape(predict, params, variables, others)
    except (FlaxError, TypeError, ValueError) as error:
        if isinstance(error, UsageError) and not isinstance(error.__cause__, FlaxError):
            raise UsageError(f'{where}: {error}') from error
        told = 'x'.join(map(str, other)), 'x'.join(map(str, shape))
        raise UsageError(
            f'{where}: images of {told[0]} do not go through a model made for {told[1]}; make them as in data.train'
        ) from error
