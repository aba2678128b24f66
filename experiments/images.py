"""What experiments on images share: settings of their data, held-out splits, and predictions on files of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.data.images.checks import check_held_out
from experiments.predictions import Prediction

SHEET = 64  # images on a contact sheet


@dataclass(frozen=True)
class TrainImages:
    """config.data.train.

    Attributes:
      split: may be sliced, 'train[:90%]'.
      sampler: 'shuffled', 'in_order' or a sampler's mapping (`canon.data.Batches`).
      transforms: a chain (`canon.data.transforms.make_transforms`), applied before the network's input is made.
    """

    split: str
    sampler: Any = 'shuffled'
    transforms: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOutImages:
    """An entry of config.data.evals; experiments add fields.

    Attributes:
      split: of the data, such as 'test' or 'train[90%:]'.
      transforms: a chain (`canon.data.transforms.make_transforms`).
      trained_on: allows images of the training split, to measure how well they are fitted.
    """

    split: str
    transforms: Mapping[str, Any] | None = None
    trained_on: bool = False


def reading(config: ConfigDict) -> dict[str, Any]:
    """Returns config.data.batch_size and config.data.reading (threads, workers, memory_limit) as arguments."""
    options = named.call(reading_options, config.data.get('reading', {}), 'data.reading')
    return {'batch_size': config.data.batch_size, **options}


def reading_options(
    threads: Annotated[int, named.Range(0, 256)] = 2,
    workers: Annotated[int, named.Range(0, 256)] = 0,
    memory_limit: named.NonNegative = 1 << 30,
) -> dict[str, Any]:
    """Returns the arguments of `canon.data.Batches` that config.data.reading sets.

    threads: that prepare batches ahead. workers: processes that do it instead; 0 for none.
    memory_limit: bytes up to which decoded examples are kept.
    """
    return {'threads': threads, 'workers': workers, 'memory_limit': memory_limit}


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


def first_settings(config: ConfigDict, kind: type) -> tuple[Any, Sequence]:
    """Returns the settings of the first evaluator, of class `kind`, and its transforms: `predict` treats images alike.

    A config without evaluators has the defaults.
    """
    name = min(config.data.evals, default=None)
    where = f'data.evals.{name}'
    settings = kind(split='') if name is None else named.call(kind, config.data.evals[name], where)
    return settings, data.transforms.make_transforms(settings.transforms, f'{where}.transforms')


def placeholder_data(config: ConfigDict, about: Mapping[str, Any], **arrays: np.ndarray) -> data.Generated:
    """Returns batches of zeros with the shapes of training: to restore and export a run, not to train it.

    Args:
      config: has data.batch_size.
      about: of the run: 'image_shape' and 'num_examples'.
      **arrays: the fields of a batch besides 'image' and 'mask'.
    """
    size = config.data.batch_size
    batch = {'image': np.zeros((size, *about['image_shape']), np.uint8), **arrays, 'mask': np.ones(size, bool)}
    return data.Generated(lambda step: batch, size, about['num_examples'])


def predict_images(
    results: Iterable[tuple[Mapping[str, Any], np.ndarray, str]],
    draw: Callable[[np.ndarray, Sequence[str]], Any],
    summarise: Callable[[int], str] = lambda count: '',
) -> Iterator[Prediction]:
    """Yields a prediction per image, and at last a contact sheet of the first ones.

    Args:
      results: (row of the table, image [H, W, C], its title on the sheet) for each image.
      draw: (images [N, H, W, C], titles) -> the sheet.
      summarise: the number of images -> what is printed at the end.
    """
    sheet, count = [], 0
    for row, image, title in results:
        yield Prediction(row)
        count += 1
        if len(sheet) < SHEET:  # the others are not kept: a folder may hold more images than the memory
            sheet.append((image, title))
    images, titles = zip(*sheet, strict=True)
    yield Prediction(files={'predictions.png': draw(np.stack(images), titles)}, text=summarise(count))
