"""Binds a config to semantic segmentation: any network of logits per pixel on any source with label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import data, models, named, plots, weights
from canon.data.detection.object_batches import make_evaluation_batches, make_training_batches
from canon.data.detection.sized_batches import fill_size
from canon.data.images.checks import infer_image_shape
from canon.data.images.geometry import Size
from canon.data.images.videos import open_files
from canon.tasks import segmentation as tasks
from canon.tasks.classification import check_shapes, class_names, make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction, report_skipped
from canon.train import Evaluator, Experiment
from canon.weights.stablehlo import Served, serve_images
from experiments import images

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_image_input': make_image_input},
    'loss': {'SegmentationLoss': tasks.SegmentationLoss},
    'predict': {'AnySize': tasks.AnySize},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'SegmentationEvaluation': tasks.SegmentationEvaluation},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.loss and config.tx."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainImages, config.data.train, 'data.train')
    source = images.load_images(config, settings.split)
    names = class_names(source, config.model.num_classes)
    sizes = images.batch_sizes(config)
    transforms = partial(_transforms, config, settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms(*sizes[:1]), 'data.train')
    about: dict[str, Any] = dict(class_names=names, image_shape=shape, num_examples=len(source))
    # In `about`, which run.json keeps: `without_data` makes the same task from it without the label maps.
    if balance := _loss(config).balance:
        about['class_weights'] = tasks.median_frequency_weights(source, len(names), balance)
    experiment = without_data(config, about)
    drawing = dict(seed=config.seed, sampler=settings.sampler)
    train = make_training_batches(source, transforms=transforms, sizes=sizes, **drawing, **images.reading(config))
    evals = {name: _evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    height, width, _ = about['image_shape']
    maps = np.zeros((config.data.batch_size, height, width), np.uint8)
    train = images.placeholder_data(config, about, segmentation=maps)
    model = models.make_model(**named.to_plain(config.model))
    make_input = named.call(make_image_input, config.input, 'input')
    task = tasks.segmentation_task(model, make_input, _loss(config), about.get('class_weights'))
    backbone = named.to_plain(config.model).get('backbone', {}).get('name')
    return Experiment(task, config.tx, train, about=about, read=weights.fcn_reader(config.model.name, backbone))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scenes of digits where its own data would have to be downloaded."""
    with config.unlocked():
        # At least the digits and the ground; a model of more classes keeps its size.
        classes = max(config.model.num_classes, 11)
        if images.take_digit_scenes(config, classes, target='segmentation', num_examples=64):
            for settings in config.data.evals.values():
                settings.name = None
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch next to their label maps."""
    return {'images': plots.draw_map_batch(batch, experiment.about['class_names'])}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Labels every pixel of the images of a folder (or of one image, a video or a camera), in their own size.

    Of each image: its label map as a PNG with a palette, the image under the colours of its classes, and a row with the
    share of its pixels that each class has. `config.predict` says how images are resized and padded.
    """
    settings = named.call(tasks.AnySize, config.get('predict', {}), 'predict')
    files = open_files(source)
    pixels = (files[i]['image'] for i in range(len(files)))
    label_maps = tasks.segment(experiment.task.predict, params, mutable, pixels, settings)
    predictions = tasks.predict_label_maps(files, label_maps, experiment.about['class_names'])
    return report_skipped(predictions, files)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, H, W, num_classes]."""
    shape, names = experiment.about['image_shape'], list(experiment.about['class_names'])
    # Probabilities, not classes: what serves them may set thresholds of its own.
    return serve_images(experiment.task.predict, shape, jax.nn.softmax, class_names=names)


def _loss(config: ConfigDict) -> tasks.SegmentationLoss:
    return named.call(tasks.SegmentationLoss, config.get('loss', {}), 'loss')


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str, size: Size | None = None) -> tuple:
    """Makes the transforms for a size of batches, after a check of the label maps, which can name an example's number.

    size: (height, width), put where the config has size='batch'; None if all batches have one size.
    """
    chain = data.transforms.make_transforms(fill_size(spec, size), where)
    return (tasks.check_label_map(config.model.num_classes), *chain)


def _evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.SegmentationEvaluation, config.data.evals[name], where)

    def load(config, split):
        # config.data.source belongs to config.data.name.
        source = None if settings.name is None else settings.source or {}
        return images.load_images(config, split, settings.name, source)

    # Another data set cannot share a split with the one that is trained on.
    held_out = replace(settings, transforms=None, trained_on=settings.trained_on or settings.name is not None)
    source, _ = images.load_held_out(config, held_out, where, load)
    sizes = images.batch_sizes(config)
    transforms = partial(_transforms, config, settings.transforms, f'{where}.transforms')
    predict = tasks.average_flips(experiment.task.predict) if settings.flip else experiment.task.predict
    shape = infer_image_shape(source, transforms(*sizes[:1]), where)
    if shape != tuple(experiment.about['image_shape']):
        check_shapes(experiment.task, predict, tuple(experiment.about['image_shape']), shape, where)
    batches = make_evaluation_batches(source, transforms=transforms, sizes=sizes, **images.reading(config))
    return tasks.segmentation_evaluator(predict, batches, experiment.about['class_names'])
