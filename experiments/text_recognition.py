"""Binds a config to text recognition: any model that scores characters frame by frame, on any images with texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots
from canon.data.text.alphabets import find_characters
from canon.errors import UsageError
from canon.tasks.predictions import Prediction
from canon.tasks.text import (
    RecognitionEvaluation,
    TextAugmentation,
    augment_task,
    augmentation_evaluator,
    decode_labels,
    make_agent,
    make_grey_input,
    make_lexicon_reader,
    recognition_evaluator,
    recognition_task,
)
from canon.train import Evaluator, Experiment
from canon.weights.stablehlo import Served, serve_images
from experiments import texts

_BEAM_WIDTH = 10  # of `predict`, where the first evaluator decodes the best path

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    **texts.SECTIONS,
    'input': {'make_grey_input': make_grey_input},
    'augment': {'TextAugmentation': TextAugmentation},
    'data.evals.*': {'RecognitionEvaluation': RecognitionEvaluation},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.text, config.input, config.model and config.tx."""
    train, about = texts.make_training(config)
    experiment = without_data(config, about)
    evals = {name: _make_evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals | texts.make_benchmarks(config, experiment.task))


def without_data(config: ConfigDict, about: Mapping) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    expected = len(texts.read_settings(config).alphabet)
    if config.model.num_classes != expected:  # neither counts the blank, which the model adds
        raise UsageError(
            f'model.num_classes={config.model.num_classes}, but text.characters has {expected}; set it to that'
        )
    model = models.make_model(**named.to_plain(config.model))
    make_input = named.call(make_grey_input, config.input, 'input')
    task = augment_task(recognition_task(model, make_input), _augmentation(config), make_input, decode_labels)
    return texts.bind_task(config, about, task)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on synthetic lines of digits where its own data would have to be downloaded."""
    most = min(5, config.text.max_length)  # digits of a line
    config = texts.take_other_data(config, ('digit_lines', 'rendered_words'), most=most)
    digits = find_characters('digits')
    if config.data.name == 'digit_lines' and not set(digits) <= set(texts.read_settings(config).alphabet.characters):
        with config.unlocked():  # an alphabet of Chinese characters, say
            config.text.characters, config.model.num_classes = digits, len(digits)
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their texts."""
    return {'images': plots.draw_reading_batch(batch, texts.read_labels(config, batch['label']))}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet.

    Images go through the transforms of the first evaluator, which also sets the beam width, and the lexicon if that is
    a file of words.
    """

    def make_decode(settings: RecognitionEvaluation):
        decode = partial(decode_labels, beam_width=settings.beam or _BEAM_WIDTH)
        # Files of a folder have no words of their own.
        lexicon = 'none' if settings.lexicon in ('own', 'full') else settings.lexicon
        alphabet, distance = texts.read_settings(config).alphabet, settings.lexicon_distance
        return decode, make_lexicon_reader(lexicon, None, alphabet, distance)

    return texts.predict_files(config, experiment, params, mutable, source, RecognitionEvaluation, make_decode)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, T, 1 + characters]."""
    about = dict(blank=0, characters=texts.read_settings(config).alphabet.characters)
    # The task predicts logarithms. Frames stay: CTC's decoding is left to what serves them.
    return serve_images(experiment.task.predict, experiment.about['image_shape'], jnp.exp, **about)


def _make_evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    where, alphabet = f'data.evals.{name}', texts.read_settings(config).alphabet
    settings = named.call(RecognitionEvaluation, config.data.evals[name], where)
    source, batches = texts.make_held_out(config, settings, name, numbered=settings.lexicon == 'own')
    lexicon = make_lexicon_reader(settings.lexicon, source, alphabet, settings.lexicon_distance, where)
    evaluator = recognition_evaluator(experiment.task, batches, alphabet, settings.beam, lexicon)
    augmentation = _augmentation(config)
    if augmentation.mode == 'none':
        return evaluator
    make_input = named.call(make_grey_input, config.input, 'input')
    agent = make_agent(augmentation)
    return augmentation_evaluator(evaluator, experiment.task, decode_labels, augmentation, agent, make_input)


def _augmentation(config: ConfigDict) -> TextAugmentation:
    return named.call(TextAugmentation, config.get('augment') or dict(mode='none'), 'augment')
