"""Binds a config to recognisers that read a word at once, and to the attention decoder, on any images with texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots
from canon.configuration import read_saved_config
from canon.data.text.words import encode_words
from canon.errors import UsageError
from canon.tasks import text as tasks
from canon.tasks.image_settings import HeldOutImages
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment, Task
from canon.train.init_from import read_model
from canon.weights.crnn import recogniser_reader
from experiments import images, texts

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    **texts.SECTIONS,
    'input': {'make_standardised_input': tasks.make_standardised_input},
    'reader': {'ReaderSettings': tasks.ReaderSettings},
    'data.evals.*': {'HeldOutImages': HeldOutImages},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.text, config.reader, config.model and config.tx."""
    config = _limit_words(config)
    if config.reader.kind != 'attention' and len(images.batch_sizes(config)) > 1:
        raise UsageError(f'data.sizes must be one size: reader.kind={config.reader.kind!r} reads images of one width')
    train, about = texts.make_training(config)
    task, decode = _make_reader(config)
    evals = {name: _make_evaluator(config, name, task, decode) for name in sorted(config.data.evals)}
    evals |= texts.make_benchmarks(config, task, decode)
    return _bind(config, about, task)._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict."""
    return _bind(config, about, _make_reader(config)[0])


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on words that make themselves where its own data would have to be downloaded."""
    return texts.take_other_data(config, ('rendered_words',), width=100, grey=True)


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their texts."""
    return {'images': plots.draw_reading_batch(batch, texts.read_labels(config, batch['label']))}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet."""
    decode = _make_reader(config)[1], None  # without a lexicon: words of a list are a kind of reader
    return texts.predict_files(config, experiment, params, mutable, source, HeldOutImages, lambda settings: decode)


def _limit_words(config: ConfigDict) -> ConfigDict:
    """Returns the config on the words that reader.most_words takes, if they are drawn; other images stay."""
    settings = named.call(tasks.ReaderSettings, config.reader, 'reader')
    if settings.most_words is None or config.data.name != 'rendered_words':
        return config
    limited = config.copy_and_resolve_references()
    with limited.unlocked(), limited.ignore_type():
        limited.data.source.words = settings.list_words(texts.read_settings(config).alphabet)
    return limited


def _bind(config: ConfigDict, about: Mapping, task: Task) -> Experiment:
    return texts.bind_task(config, about, task)._replace(read=partial(_read_weights, config))


def _read_weights(config: ConfigDict, path: str, leaves: Mapping) -> Mapping | None:
    """Reads published weights, or DICT's of a run on fewer words, with columns for the others (`Experiment.read`)."""
    file = Path(path).expanduser() / 'config.json'
    earlier = read_saved_config(file) if file.is_file() else ConfigDict()
    if not config.reader.kind == earlier.get('reader', {}).get('kind') == 'dict':
        return recogniser_reader(config.model.name)(path, leaves)
    old, new = _list_dictionary(earlier), _list_dictionary(config)
    # None: weights for the same words are read as those of any run.
    return None if old == new else tasks.extend_dictionary(read_model(path), old, new, jax.random.key(config.seed))


def _list_dictionary(config: ConfigDict) -> tuple[str, ...]:
    """Returns the words of the classes of DICT."""
    settings, text = named.call(tasks.ReaderSettings, config.reader, 'reader'), texts.read_settings(config)
    return encode_words(settings.list_words(text.alphabet), text.alphabet, text.max_length)[0]


def _make_reader(config: ConfigDict) -> tuple[Task, tasks.Decode]:
    settings, text = named.call(tasks.ReaderSettings, config.reader, 'reader'), texts.read_settings(config)
    arguments = named.to_plain(config.model)

    def make_model(**sizes):
        # The sizes follow from words and characters; a config may state them, but not others.
        for key, size in sizes.items():
            if arguments.get(key, size) != size:
                raise UsageError(f'model.{key}={arguments[key]}, but reader.kind={settings.kind!r} needs {size}')
        return models.make_model(**arguments | sizes)

    make_input = named.call(tasks.make_standardised_input, config.input, 'input')
    return tasks.make_reader(settings, make_model, make_input, text.alphabet, text.max_length)


def _make_evaluator(config: ConfigDict, name: str, task: Task, decode: tasks.Decode) -> Evaluator:
    settings = named.call(HeldOutImages, config.data.evals[name], f'data.evals.{name}')
    _, batches = texts.make_held_out(config, settings, name)
    return tasks.word_evaluator(task, decode, batches, texts.read_settings(config).alphabet)
