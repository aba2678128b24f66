"""Binds a config to text recognition: any model that scores characters frame by frame, on any images with texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named, plots
from canon.configuration import drop_placeholders
from canon.data.images.checks import infer_image_shape
from canon.data.text.alphabets import Alphabet
from canon.data.text.labelled import load_labelled
from canon.errors import UsageError
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction, predict_images
from canon.tasks.text_recognition import (
    RecognitionEvaluation,
    TextSettings,
    make_grey_input,
    read_batches,
    recognition_evaluator,
    recognition_task,
)
from canon.train import Evaluator, Experiment
from canon.weights.stablehlo import Served
from experiments import images

_BEAM_WIDTH = 10  # of `predict`, where the first evaluator decodes the best path


# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_grey_input': make_grey_input},
    'text': {'TextSettings': TextSettings},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'RecognitionEvaluation': RecognitionEvaluation},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.text, config.input, config.model and config.tx."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainImages, config.data.train, 'data.train')
    source = _load(config, settings.split)
    transforms = data.transforms.make_transforms(settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms, 'data.train')
    experiment = without_data(config, dict(image_shape=shape, num_examples=len(source)))
    sampler = settings.sampler
    train = data.Batches(source, seed=config.seed, sampler=sampler, transforms=transforms, **images.reading(config))
    evals = {name: _make_evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    size, settings, alphabet = config.data.batch_size, _text(config), _alphabet(config)
    if config.model.num_classes != len(alphabet):  # neither counts the blank, which the model adds
        raise UsageError(
            f'model.num_classes={config.model.num_classes}, but text.characters has {len(alphabet)}; set it to that'
        )
    label = np.zeros((size, settings.max_length), np.int32)
    train = images.placeholder_data(config, about, label=label, label_length=np.zeros(size, np.int32))
    model = models.make_model(**named.to_plain(config.model))
    task = recognition_task(model, named.call(make_grey_input, config.input, 'input'))
    return Experiment(task, config.tx, train, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on synthetic lines of digits where its own data would have to be downloaded."""
    if config.data.name != 'digit_lines':
        with config.unlocked():
            config.data.name, config.data.source = 'digit_lines', {}
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet.

    Images go through the transforms of the first evaluator, which also sets the beam width.
    """
    settings, transforms = images.first_settings(config, RecognitionEvaluation)
    files = data.image_files.Files(source)
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    readings = read_batches(experiment.task, params, mutable, batches, _alphabet(config), settings.beam or _BEAM_WIDTH)

    def read():
        for path, (image, _, text, probability) in zip(files.paths, chain.from_iterable(readings), strict=True):
            row = {'file': str(path), 'text': text, 'probability': f'{probability:.4f}'}
            yield row, image, f'{text} {probability:.2f}'

    return predict_images(read(), plots.draw_text_images)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, T, 1 + characters]."""

    def probabilities(params, mutable, images):
        # The task predicts logarithms. Frames stay: CTC's decoding is left to what serves them.
        return jnp.exp(experiment.task.predict(params, mutable, {'image': images}))

    shape = experiment.about['image_shape']
    return Served(probabilities, tuple(shape), 'uint8', {'blank': 0, 'characters': _alphabet(config).characters})


def _make_evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(RecognitionEvaluation, config.data.evals[name], where)
    source, transforms = images.load_held_out(config, settings, where, _load)
    batches = data.Once(source, transforms=transforms, **images.reading(config))
    return recognition_evaluator(experiment.task, batches, _alphabet(config), settings.beam)


def _load(config: ConfigDict, split: str) -> data.Source:
    d = config.data
    options = drop_placeholders(d.get('source', {}))
    # The function itself would report a missing argument, without what belongs into the folder.
    if d.name == 'words' and 'path' not in options:
        raise UsageError('data words need --config.data.source.path=FOLDER, which holds train.csv (rows file,text)')
    return load_labelled(d.name, split, _alphabet(config), _text(config).max_length, d.get('data_dir'), **options)


def _text(config: ConfigDict) -> TextSettings:
    return named.call(TextSettings, config.text, 'text')


def _alphabet(config: ConfigDict) -> Alphabet:
    settings = _text(config)
    return Alphabet(settings.characters, settings.ignore_case)
