"""Binds a config to semantic segmentation: any network of logits per pixel on any source with label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named, plots, weights
from canon.data.images.checks import check_held_out, infer_image_shape
from canon.errors import UsageError
from canon.tasks import segmentation as tasks
from canon.tasks.classification import check_shapes, class_names, make_image_input
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment
from canon.weights.stablehlo import Served
from experiments.images import reading, reading_options

_BY_PATH = ('label_maps', 'voc_segmentation', 'sbd_segmentation')


@dataclass(frozen=True)
class TrainSettings:
    """config.data.train. split: may be sliced, 'train[:90%]'. sampler: 'shuffled', 'in_order' or a sampler's mapping.
    transforms: a chain, which gives images of one size.
    """

    split: str
    sampler: Any = 'shuffled'
    transforms: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EvalSettings:
    """An entry of config.data.evals. split: may be sliced, 'test[:1000]'. transforms: a chain, as in data.train.
    flip: averages the probabilities of the mirror image in. trained_on: the split may share images with data.train.
    name, source: another data set than data.name, as SBD is evaluated on VOC.
    """

    split: str
    transforms: Mapping[str, Any] | None = None
    flip: bool = False
    trained_on: bool = False
    name: str | None = None
    source: Mapping[str, Any] | None = None


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_image_input': make_image_input},
    'loss': {'SegmentationLoss': tasks.SegmentationLoss},
    'predict': {'AnySize': tasks.AnySize},
    'data.train': {'TrainSettings': TrainSettings},
    'data.evals.*': {'EvalSettings': EvalSettings},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.loss and config.tx."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainSettings, config.data.train, 'data.train')
    source = _load(config, config.data.name, settings.split, config.data.get('source', {}))
    names = class_names(source, config.model.num_classes)
    transforms = _transforms(config, settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms, 'data.train')
    about: dict[str, Any] = dict(class_names=names, image_shape=shape, num_examples=len(source))
    if balance := _loss(config).balance:
        about['class_weights'] = tasks.median_frequency_weights(source, len(names), balance)
    experiment = without_data(config, about)
    train = data.Batches(source, seed=config.seed, sampler=settings.sampler, transforms=transforms, **reading(config))
    evals = {name: _evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    size, shape = config.data.batch_size, tuple(about['image_shape'])
    batch = {
        'image': np.zeros((size, *shape), np.uint8),
        'segmentation': np.zeros((size, *shape[:2]), np.uint8),
        'mask': np.ones(size, bool),
    }
    train = data.Generated(lambda step: batch, size, about['num_examples'])
    model = models.make_model(**named.to_plain(config.model))
    make_input = named.call(make_image_input, config.input, 'input')
    task = tasks.segmentation_task(model, make_input, _loss(config), about.get('class_weights'))
    backbone = named.to_plain(config.model).get('backbone', {}).get('name')
    return Experiment(task, config.tx, train, about=about, read=weights.fcn_reader(config.model.name, backbone))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scenes of digits where its own data would have to be downloaded."""
    if config.data.name != 'digit_scenes':
        with config.unlocked():
            config.data.name = 'digit_scenes'
            config.data.source = dict(target='segmentation', num_examples=64)
            config.data.train.split, config.model.num_classes = 'train', max(config.model.num_classes, 11)
            for settings in config.data.evals.values():
                settings.split, settings.name = 'test', None
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Labels every pixel of the images of a folder (or of one image), each in its own size.

    Of each image: its label map as a PNG with a palette, the image under the colours of its classes, and a row with the
    share of its pixels that each class has. `config.predict` says how images are resized and padded.
    """
    settings = named.call(tasks.AnySize, config.get('predict', {}), 'predict')
    names, files = experiment.about['class_names'], data.image_files.Files(source)
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    images = (files[i]['image'] for i in range(len(files)))
    label_maps = tasks.segment(experiment.task.predict, params, mutable, images, settings)
    for i, (path, labels) in enumerate(zip(files.paths, label_maps, strict=True)):
        shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
        place = Path(path).relative_to(root).with_suffix('')
        overlay = plots.overlay_label_map(files[i]['image'], labels, background=tasks.find_background(names))
        yield Prediction(
            row={'file': str(path)} | {name: f'{share:.4f}' for name, share in zip(names, shares, strict=True)},
            files={f'{place}_labels.png': tasks.make_palette_image(labels), f'{place}_overlay.png': overlay},
        )


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, H, W, num_classes]."""

    def probabilities(params, mutable, images):
        return jax.nn.softmax(experiment.task.predict(params, mutable, {'image': images}))

    shape, names = experiment.about['image_shape'], experiment.about['class_names']
    return Served(probabilities, tuple(shape), 'uint8', {'class_names': list(names)})


def _loss(config: ConfigDict) -> tasks.SegmentationLoss:
    return named.call(tasks.SegmentationLoss, config.get('loss', {}), 'loss')


def _load(config: ConfigDict, name: str, split: str, options: Mapping[str, Any]) -> data.Source:
    arguments = {key: value for key, value in options.items() if value is not None}
    if name in _BY_PATH and 'path' not in arguments:
        raise UsageError(f'data {name!r} is read from files: give --config.data.source.path=FOLDER_OR_TAR')
    return data.load_source(name, split, data_dir=config.data.get('data_dir'), **arguments)


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str):
    """Makes the config's transforms after a check of the label maps, which can name a file's number on the host."""
    return (tasks.check_label_map(config.model.num_classes), *data.transforms.make_transforms(spec, where))


def _evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    settings, where = named.call(EvalSettings, config.data.evals[name], f'data.evals.{name}'), f'data.evals.{name}'
    if settings.name is None:
        source = _load(config, config.data.name, settings.split, config.data.get('source', {}))
    else:
        source = _load(config, settings.name, settings.split, settings.source or {})
    if not settings.trained_on and settings.name is None:
        check_held_out(config.data.train.split, settings.split, source.info.total, where)
    transforms = _transforms(config, settings.transforms, f'{where}.transforms')
    predict = tasks.average_flips(experiment.task.predict) if settings.flip else experiment.task.predict
    shape = infer_image_shape(source, transforms, where)
    if shape != tuple(experiment.about['image_shape']):
        check_shapes(experiment.task, predict, tuple(experiment.about['image_shape']), shape, where)
    batches = data.Once(source, transforms=transforms, **reading(config))
    return tasks.segmentation_evaluator(predict, batches, experiment.about['class_names'])
