"""Checks of image data before they reach a model: the shape of an image, and splits that overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canon.data.pipeline.batches import Once
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.source import Source
from canon.data.pipeline.splits import share_examples
from canon.errors import UsageError


def infer_image_shape(source: Source, transforms: Sequence[Transform], where: str) -> tuple[int, ...]:
    """Returns the shape of the first image after the transforms: [H, W, C], or [K, H, W, C] for K crops.

    Raises UsageError, naming the section `where`, for examples without an image, and for one that is not uint8 or has
    another shape.
    """
    try:
        # Through the same code as a batch, so that what is checked is what the model gets; nothing is cached for one
        # image.
        image = Once(source, 1, transforms, memory_limit=0)[0]['image'][0]
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
    if share_examples(train, split, total):
        raise UsageError(
            f'{where}.split={split!r} shares images with data.train.split={train!r}: hold some out, as'
            f" 'train[:80%]' and 'train[80%:]', or say {where}.trained_on=True"
        )
