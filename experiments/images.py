"""Helpers of experiments on images: reading, held-out splits, and zeros in place of the data of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.configuration import drop_placeholders
from canon.data.detection.sized_batches import fill_size
from canon.data.images.checks import check_held_out
from canon.data.text.engine.fonts import find_chinese_fonts
from canon.errors import UsageError
from canon.tasks import classification as tasks
from canon.tasks.image_settings import HeldOutImages, reading_options
from canon.tasks.predictions import Prediction, report_skipped
from canon.train import Experiment


def reading(config: ConfigDict) -> dict[str, Any]:
    """Returns config.data.batch_size and config.data.reading (threads, workers, memory_limit) as arguments."""
    options = named.call(reading_options, config.data.get('reading', {}), 'data.reading')
    return {'batch_size': config.data.batch_size, **options}


def batch_sizes(config: ConfigDict) -> tuple[tuple[int, int], ...]:
    """Returns config.data.sizes, the (height, width) that batches have; () if the transforms give one size."""
    return tuple(tuple(size) for size in named.to_plain(config.data.get('sizes')) or ())


def widest_size(config: ConfigDict) -> tuple[int, int] | None:
    """Returns the widest of config.data.sizes, None if there are none."""
    return max(batch_sizes(config), key=lambda size: size[1], default=None)


def load_images(config: ConfigDict, split: str, name: str | None = None, source: Mapping | None = None) -> data.Source:
    """Returns a split of config.data.name with the arguments of config.data.source, or of another data set."""
    arguments = source_arguments(config, name, source)
    return data.load_source(config.data.name if name is None else name, split, **arguments)


def source_arguments(config: ConfigDict, name: str | None = None, source: Mapping | None = None) -> dict[str, Any]:
    """Returns config.data.source and config.data.data_dir, or of another data set, as arguments of its function.

    Raises:
      UsageError: the data set is read from files, and the config has no path.
    """
    name = config.data.name if name is None else name
    # Placeholders are arguments that the command line did not set: the function has its own defaults.
    arguments = drop_placeholders(config.data.get('source', {}) if source is None else source)
    function = data.DATA_SETS.get(name)
    if function is not None and named.accepts(function, 'path') and 'path' not in arguments:
        raise UsageError(f'data {name!r} is read from files: give --config.data.source.path=FOLDER_OR_TAR')
    return {'data_dir': config.data.get('data_dir'), **arguments}


def is_at_hand(config: ConfigDict) -> bool:
    """Returns whether config.data can be read here: Canon has the set, its path is given, and so are its fonts."""
    source = drop_placeholders(config.data.get('source', {}))
    function = data.DATA_SETS.get(config.data.name) if data.is_own(config.data.name) else None
    if function is None or (named.accepts(function, 'path') and 'path' not in source):
        return False
    if not named.accepts(function, 'fonts'):
        return True
    try:
        # `rendered_characters` takes Chinese fonts unless it is given others.
        default = inspect.signature(function).parameters['fonts'].default
        return source.get('fonts', default) != 'chinese' or bool(find_chinese_fonts())
    except UsageError:
        return False


def load_held_out(
    config: ConfigDict, settings: HeldOutImages, where: str, load: Callable[[ConfigDict, str], data.Source]
) -> tuple[data.Source, tuple]:
    """Returns the source of an evaluator and its transforms.

    Args:
      config: the whole config.
      settings: of the evaluator.
      where: its section, for errors.
      load: (config, split) -> the source.

    Raises:
      UsageError: the split shares images with config.data.train, and `trained_on` is not set.
    """
    source = load(config, settings.split)
    if not settings.trained_on:
        check_held_out(config.data.train.split, settings.split, source.info.total, where)
    return source, tuple(data.transforms.make_transforms(settings.transforms, f'{where}.transforms'))


def take_digit_scenes(config: ConfigDict, num_classes: int, **source: Any) -> bool:
    """Puts the embedded scenes of digits in place of data that would have to be downloaded; returns whether it has.

    Args:
      config: unlocked.
      num_classes: of the model then.
      **source: arguments of `canon.data.detection.digit_scenes`.
    """
    if config.data.name in ('digit_scenes', 'digit_frames'):
        return False
    config.data.name, config.data.source = 'digit_scenes', source
    config.data.train.split, config.model.num_classes = 'train', num_classes
    for settings in config.data.evals.values():
        settings.split = 'test'
    return True


def first_settings(config: ConfigDict, kind: type) -> tuple[Any, Sequence]:
    """Returns the settings of the first evaluator, of class `kind`, and its transforms: `predict` treats images alike.

    A config without evaluators has the defaults.
    """
    # The first by name: the same one however the config orders them.
    name = min(config.data.evals, default=None)
    where = f'data.evals.{name}'
    settings = kind(split='') if name is None else named.call(kind, config.data.evals[name], where)
    spec = fill_size(settings.transforms, widest_size(config))
    return settings, data.transforms.make_transforms(spec, f'{where}.transforms')


def classify_files(
    source: str,
    reading: Mapping[str, Any],
    config: ConfigDict,
    experiment: Experiment,
    predict: tasks.Predict,
    params: Any,
    mutable: Any,
    transforms: Sequence[data.Transform],
) -> Iterator[Prediction]:
    """Classifies every image of a folder (or one image): its three most likely classes, and a contact sheet.

    Args:
      source: the folder or file.
      reading: further arguments of `data.image_files.Files`.
      config: has data.batch_size.
      experiment: its `about` has the classes and the shape of the images.
      predict: (params, mutable, batch) -> scores.
      params: the weights.
      mutable: what else the network holds.
      transforms: of each image.
    """
    files = data.image_files.Files(source, unreadable='skip', **reading)
    batches = data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate()
    classified = tasks.classify(predict, params, mutable, batches, experiment.about['image_shape'][-1])
    return report_skipped(tasks.predict_classes(files, classified, experiment.about['class_names']), files)


def placeholder_data(config: ConfigDict, about: Mapping[str, Any], **arrays: np.ndarray) -> data.Generated:
    """Returns batches of zeros with the shapes of training: to restore and export a run, not to train it.

    Args:
      config: has data.batch_size.
      about: of the run: 'image_shape' and 'num_examples'.
      **arrays: the fields of a batch besides 'image' and 'mask'.
    """
    size = config.data.batch_size
    # Shapes and dtypes are what initialisation and restoring look at.
    batch = {'image': np.zeros((size, *about['image_shape']), np.uint8), **arrays, 'mask': np.ones(size, bool)}
    return data.Generated(lambda step: batch, size, about['num_examples'])
