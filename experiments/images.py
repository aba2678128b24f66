"""What experiments on images share: arguments of reading, and checks of image shapes and of splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.errors import UsageError

SHEET = 64  # images on a contact sheet


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


def image_shape(source: data.Source, transforms: Sequence[data.Transform], where: str) -> tuple[int, ...]:
    """Returns the shape of the first image after the transforms: [H, W, C], or [K, H, W, C] for K crops.

    Raises UsageError, naming the section `where`, for examples without an image, and for one that is not uint8 or has
    another shape.
    """
    try:
        image = data.Once(source, 1, transforms, memory_limit=0)[0]['image'][0]
    except KeyError as error:
        fields = ', '.join(map(str, source[0]))
        raise UsageError(f'{where}: the examples have no field {error}; they have {fields}') from error
    if image.dtype != np.uint8:
        raise UsageError(f'{where}: images are uint8 when they reach the model, which scales them, not {image.dtype}')
    if image.ndim not in (3, 4):
        raise UsageError(f'{where}: images are [H, W, C], these are {list(image.shape)}')
    if image.shape[-1] > 4 and image.shape[-3] in (1, 3):
        raise UsageError(f'{where}: images are [H, W, C]; move the channels of these, {list(image.shape)}, to the end')
    return image.shape


def check_held_out(train: str, split: str, total: int | None, where: str) -> None:
    """Raises UsageError if the split of an evaluator shares examples with the training split.

    total: examples of the split that both slice, None if unknown. where: the evaluator's section of the config.
    """
    if data.splits.overlap(train, split, total):
        raise UsageError(
            f'{where}.split={split!r} shares images with data.train.split={train!r}: hold some out, as'
            f" 'train[:80%]' and 'train[80%:]', or say {where}.trained_on=True"
        )
