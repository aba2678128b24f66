"""Binds a config to recognisers that read a word at once, and to the attention decoder, on any images with texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named
from canon.data.images.checks import infer_image_shape
from canon.data.text.labelled import load_labelled
from canon.errors import UsageError
from canon.tasks import text as tasks
from canon.tasks.image_settings import HeldOutImages, TrainImages, reading_options
from canon.tasks.predictions import Prediction
from canon.tasks.text import Decode, TextSettings, predict_texts, read_batches
from canon.train import Evaluator, Experiment, Task
from canon.weights.crnn import recogniser_reader
from experiments import benchmarks, images

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_standardised_input': tasks.make_standardised_input},
    'text': {'TextSettings': TextSettings},
    'reader': {'ReaderSettings': tasks.ReaderSettings},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'HeldOutImages': HeldOutImages},
    'data.reading': {'reading_options': reading_options},
    **benchmarks.SECTIONS,
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.text, config.reader, config.model and config.tx."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainImages, config.data.train, 'data.train')
    source = _load(config, settings.split)
    transforms = data.transforms.make_transforms(settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms, 'data.train')
    task, decode = _make_reader(config)
    experiment = _bind(config, dict(image_shape=shape, num_examples=len(source)), task)
    options: dict[str, Any] = dict(seed=config.seed, sampler=settings.sampler, transforms=transforms)
    train = data.Batches(source, **options, **images.reading(config))
    evals = {name: _make_evaluator(config, name, task, decode) for name in sorted(config.data.evals)}
    evals |= benchmarks.make_benchmarks(config, task, _text(config).alphabet, decode)
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict."""
    return _bind(config, about, _make_reader(config)[0])


def _bind(config: ConfigDict, about: Mapping[str, Any], task: Task) -> Experiment:
    size = config.data.batch_size
    label = np.zeros((size, _text(config).max_length), np.int32)
    train = images.placeholder_data(config, about, label=label, label_length=np.zeros(size, np.int32))
    read = recogniser_reader(config.model.name)
    return Experiment(task, config.tx, train, about=about, read=read)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on words that make themselves where its own data would have to be downloaded."""
    if config.data.name != 'rendered_words':
        with config.unlocked():
            config.data.name, config.data.source = 'rendered_words', dict(width=100, grey=True)
            if 'benchmarks' in config.data:
                del config.data.benchmarks
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet."""
    _, transforms = images.first_settings(config, HeldOutImages)
    files = data.image_files.Files(source)
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    _, decode = _make_reader(config)
    readings = read_batches(experiment.task, params, mutable, batches, _text(config).alphabet, decode)
    return predict_texts(files.paths, readings)


def _make_reader(config: ConfigDict) -> tuple[Task, Decode]:
    settings, text = named.call(tasks.ReaderSettings, config.reader, 'reader'), _text(config)
    arguments = named.to_plain(config.model)

    def make_model(**sizes):
        # The sizes follow from words and characters; a config may state them, but not others.
        for key, size in sizes.items():
            if arguments.get(key, size) != size:
                raise UsageError(f'model.{key}={arguments[key]}, but reader.kind={settings.kind!r} needs {size}')
        return models.make_model(**arguments | sizes)

    make_input = named.call(tasks.make_standardised_input, config.input, 'input')
    return tasks.make_reader(settings, make_model, make_input, text.alphabet, text.max_length)


def _make_evaluator(config: ConfigDict, name: str, task: Task, decode: Decode) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(HeldOutImages, config.data.evals[name], where)
    source, transforms = images.load_held_out(config, settings, where, _load)
    batches = data.Once(source, transforms=transforms, **images.reading(config))
    return tasks.word_evaluator(task, decode, batches, _text(config).alphabet)


def _load(config: ConfigDict, split: str) -> data.Source:
    settings, arguments = _text(config), images.source_arguments(config)
    return load_labelled(config.data.name, split, settings.alphabet, settings.max_length, **arguments)


def _text(config: ConfigDict) -> TextSettings:
    return named.call(TextSettings, config.text, 'text')
