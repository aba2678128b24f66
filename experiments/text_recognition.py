"""Binds a config to text recognition: any model that scores characters frame by frame, on any images with texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named
from canon.data.images.checks import infer_image_shape
from canon.data.text.labelled import load_labelled
from canon.data.text.line_sizes import batch_lines, batch_lines_once
from canon.errors import UsageError
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction
from canon.tasks.text import (
    RecognitionEvaluation,
    TextAugmentation,
    TextSettings,
    augment_task,
    augmentation_evaluator,
    decode_labels,
    make_agent,
    make_grey_input,
    predict_texts,
    read_batches,
    recognition_evaluator,
    recognition_task,
)
from canon.train import Evaluator, Experiment
from canon.weights.crnn import recogniser_reader
from canon.weights.stablehlo import Served, serve_images
from experiments import benchmarks, images
from experiments.benchmarks import make_benchmarks, make_sized_transforms

_BEAM_WIDTH = 10  # of `predict`, where the first evaluator decodes the best path


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_grey_input': make_grey_input},
    'text': {'TextSettings': TextSettings},
    'augment': {'TextAugmentation': TextAugmentation},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'RecognitionEvaluation': RecognitionEvaluation},
    **benchmarks.SECTIONS,
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.text, config.input, config.model and config.tx."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainImages, config.data.train, 'data.train')
    source = _load(config, settings.split)
    sizes = images.batch_sizes(config)
    transforms = partial(make_sized_transforms, settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms(images.widest_size(config)), 'data.train')
    experiment = without_data(config, dict(image_shape=shape, num_examples=len(source)))
    options: dict[str, Any] = dict(seed=config.seed, sampler=settings.sampler, sizes=sizes, make_transforms=transforms)
    train = batch_lines(source, **options, **images.reading(config))
    evals = {name: _make_evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    evals |= make_benchmarks(config, experiment.task, _text(config).alphabet)
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    size, settings = config.data.batch_size, _text(config)
    expected = len(settings.alphabet)
    if config.model.num_classes != expected:  # neither counts the blank, which the model adds
        raise UsageError(
            f'model.num_classes={config.model.num_classes}, but text.characters has {expected}; set it to that'
        )
    label = np.zeros((size, settings.max_length), np.int32)
    train = images.placeholder_data(config, about, label=label, label_length=np.zeros(size, np.int32))
    model = models.make_model(**named.to_plain(config.model))
    make_input = named.call(make_grey_input, config.input, 'input')
    task = augment_task(recognition_task(model, make_input), _augmentation(config), make_input, decode_labels)
    return Experiment(task, config.tx, train, about=about, read=recogniser_reader(config.model.name))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on synthetic lines of digits where its own data would have to be downloaded."""
    if config.data.name not in ('digit_lines', 'rendered_words'):  # which make themselves
        with config.unlocked():
            config.data.name, config.data.source = 'digit_lines', {}
            if 'benchmarks' in config.data:
                del config.data.benchmarks
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet.

    Images go through the transforms of the first evaluator, which also sets the beam width.
    """
    settings, transforms = images.first_settings(config, RecognitionEvaluation)
    files = data.image_files.Files(source)
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    alphabet, beam = _text(config).alphabet, settings.beam or _BEAM_WIDTH
    decode = partial(decode_labels, beam_width=beam)
    readings = read_batches(experiment.task, params, mutable, batches, alphabet, decode)
    return predict_texts(files.paths, readings)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, T, 1 + characters]."""
    about = dict(blank=0, characters=_text(config).alphabet.characters)
    # The task predicts logarithms. Frames stay: CTC's decoding is left to what serves them.
    return serve_images(experiment.task.predict, experiment.about['image_shape'], jnp.exp, **about)


def _make_evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(RecognitionEvaluation, config.data.evals[name], where)
    source, _ = images.load_held_out(config, replace(settings, transforms=None), where, _load)
    sizes = images.batch_sizes(config)
    transforms = partial(make_sized_transforms, settings.transforms, f'{where}.transforms')
    batches = batch_lines_once(source, sizes=sizes, make_transforms=transforms, **images.reading(config))
    evaluator = recognition_evaluator(experiment.task, batches, _text(config).alphabet, settings.beam)
    augmentation = _augmentation(config)
    if augmentation.mode == 'none':
        return evaluator
    make_input = named.call(make_grey_input, config.input, 'input')
    agent = make_agent(augmentation)
    return augmentation_evaluator(evaluator, experiment.task, decode_labels, augmentation, agent, make_input)


def _load(config: ConfigDict, split: str) -> data.Source:
    settings, arguments = _text(config), images.source_arguments(config)
    return load_labelled(config.data.name, split, settings.alphabet, settings.max_length, **arguments)


def _augmentation(config: ConfigDict) -> TextAugmentation:
    return named.call(TextAugmentation, config.get('augment') or dict(mode='none'), 'augment')


def _text(config: ConfigDict) -> TextSettings:
    return named.call(TextSettings, config.text, 'text')
