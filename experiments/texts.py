"""Helpers of experiments that read texts in images: settings, batches, benchmarks and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.data.detection.sized_batches import fill_size
from canon.data.images.checks import infer_image_shape
from canon.data.images.videos import open_files
from canon.data.text.labelled import NumberedSource, load_labelled
from canon.data.text.line_sizes import batch_lines, batch_lines_once
from canon.errors import UsageError
from canon.tasks.image_settings import HeldOutImages, TrainImages, reading_options
from canon.tasks.predictions import Prediction, report_skipped
from canon.tasks.text import (
    BenchmarkEvaluation,
    BenchmarkSettings,
    Decode,
    TextSettings,
    benchmark_evaluator,
    predict_texts,
    read_batches,
)
from canon.tasks.text.lexicon_reading import AnyLexiconReader
from canon.train import Evaluator, Experiment, Task
from canon.weights.crnn import recogniser_reader
from experiments import images

# The sections that these experiments share.
SECTIONS = {
    'text': {'TextSettings': TextSettings},
    'data.train': {'TrainImages': TrainImages},
    'data.reading': {'reading_options': reading_options},
    'data.benchmarks': {'BenchmarkEvaluation': BenchmarkEvaluation},
    'data.benchmarks.sets.*': {'BenchmarkSettings': BenchmarkSettings},
}


def read_settings(config: ConfigDict) -> TextSettings:
    """Returns config.text."""
    return named.call(TextSettings, config.text, 'text')


def read_labels(config: ConfigDict, labels: np.ndarray) -> list[str]:
    """Returns the texts of labels [B, L], in which 0 fills up."""
    characters = read_settings(config).alphabet.characters
    return [''.join(characters[i - 1] for i in row if i) for row in labels]


def load_texts(config: ConfigDict, split: str) -> data.Source:
    """Returns a split of config.data.name, with texts as labels of config.text."""
    settings, arguments = read_settings(config), images.source_arguments(config)
    return load_labelled(config.data.name, split, settings.alphabet, settings.max_length, **arguments)


def make_training(config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """Returns the batches of config.data.train, and `Experiment.about` of the run."""
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings = named.call(TrainImages, config.data.train, 'data.train')
    source, sizes = load_texts(config, settings.split), images.batch_sizes(config)
    transforms = partial(make_sized_transforms, settings.transforms, 'data.train.transforms')
    shape = infer_image_shape(source, transforms(images.widest_size(config)), 'data.train')
    options: dict[str, Any] = dict(seed=config.seed, sampler=settings.sampler, sizes=sizes, make_transforms=transforms)
    batches = batch_lines(source, **options, **images.reading(config))
    return batches, dict(image_shape=shape, num_examples=len(source))


def make_held_out(config: ConfigDict, settings: HeldOutImages, name: str, numbered: bool = False) -> tuple[Any, Any]:
    """Returns the source of an evaluator, and its batches.

    Args:
      config: the whole config.
      settings: of the evaluator.
      name: of the evaluator.
      numbered: adds 'index' to the batches, the places of examples in the source.
    """
    where = f'data.evals.{name}'
    # Its transforms are made below, for each size of batches.
    source, _ = images.load_held_out(config, replace(settings, transforms=None), where, load_texts)
    transforms = partial(make_sized_transforms, settings.transforms, f'{where}.transforms')
    options: dict[str, Any] = dict(sizes=images.batch_sizes(config), make_transforms=transforms)
    return source, batch_lines_once(NumberedSource(source) if numbered else source, **options, **images.reading(config))


def bind_task(config: ConfigDict, about: Mapping[str, Any], task: Task) -> Experiment:
    """Makes the experiment of a task on zeros in place of its data."""
    size, settings = config.data.batch_size, read_settings(config)
    label = np.zeros((size, settings.max_length), np.int32)
    train = images.placeholder_data(config, about, label=label, label_length=np.zeros(size, np.int32))
    return Experiment(task, config.tx, train, about=about, read=recogniser_reader(config.model.name))


def make_benchmarks(config: ConfigDict, task: Task, decode: Decode | None = None) -> dict[str, Evaluator]:
    """Makes the evaluator of config.data.benchmarks, {} if there is no such section or none of its sets has a path.

    Args:
      config: the whole config.
      task: that reads texts.
      decode: from the task's outputs to the readings; that of CTC if None.

    Raises:
      UsageError: a set has a lexicon, which CTC alone reads, and `decode` is not that of CTC.
    """
    if 'benchmarks' not in config.data:
        return {}
    alphabet = read_settings(config).alphabet
    settings = named.call(BenchmarkEvaluation, config.data.benchmarks, 'data.benchmarks')
    if not (sets := settings.load(alphabet, config.data.get('data_dir'))):
        return {}
    with_lexica = [benchmark.name for benchmark in sets if benchmark.lexicon != 'none']
    if decode is not None and with_lexica:
        raise UsageError(
            f"data.benchmarks.sets.{with_lexica[0]}.lexicon must be 'none': experiment={config.experiment!r} reads the "
            "words of reader.words; lexica are for experiment='text_recognition'"
        )
    transforms = partial(make_sized_transforms, settings.transforms, 'data.benchmarks.transforms')
    options: dict[str, Any] = dict(beam_width=settings.beam, compare=settings.compare, sizes=images.batch_sizes(config))
    bound = task, sets, alphabet, config.data.batch_size, transforms
    return {'benchmarks': benchmark_evaluator(*bound, decode=decode, **options)}


def make_sized_transforms(spec: Any, where: str, size: Any = None) -> tuple[data.Transform, ...]:
    """Returns the transforms of a config that give images of a size of config.data.sizes."""
    return data.transforms.make_transforms(fill_size(spec, size), where)


def take_other_data(config: ConfigDict, names: tuple[str, ...], **source: Any) -> ConfigDict:
    """Puts data that make themselves in place of those that are not at hand, and drops benchmarks.

    Args:
      config: the whole config.
      names: of the data sets that stay as they are; the first one replaces others.
      **source: its arguments.
    """
    if config.data.name not in names or not images.is_at_hand(config):
        with config.unlocked():
            config.data.name, config.data.source = names[0], source
            if 'benchmarks' in config.data:
                del config.data.benchmarks
    return config


def predict_files(
    config: ConfigDict,
    experiment: Experiment,
    params: Any,
    mutable: Any,
    path: str,
    kind: type,
    make_decode: Callable[[Any], tuple[Decode, AnyLexiconReader | None]],
) -> Iterator[Prediction]:
    """Reads every image of a folder (or one image): file, text and probability of each, and a contact sheet.

    Of a video, or of a camera that is recorded first, a video under captions takes the place of the sheet.

    Args:
      config: of the run.
      experiment: as of `experiments.protocol.Predicts`.
      params: as there.
      mutable: as there.
      path: the folder, the image, the video, or the number of a camera.
      kind: of the evaluators' settings; images go through the transforms of the first one.
      make_decode: from the settings of the first evaluator to how the task's outputs are read.
    """
    settings, transforms = images.first_settings(config, kind)
    files = open_files(path)
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    bound = experiment.task, params, mutable, batches, read_settings(config).alphabet
    return report_skipped(predict_texts(files, read_batches(*bound, *make_decode(settings))), files)
