"""What experiments on images share: reading, the shape that reaches the model, samples right and wrong, predictions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.errors import UsageError

GALLERY = 32  # samples in a picture
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
    """The shape of the first image, transformed: [H, W, C], or [K, H, W, C] of K crops.

    Raises UsageError, naming the key `where`, for examples without an image and for one that is not uint8 or not of
    that shape.
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


def right_and_wrong(batches: Iterable[Iterable[tuple]]) -> tuple[list[tuple], list[tuple]]:
    """Of rows (image, truth, guess, probability), batch by batch: those right, in order, and wrong, surest first."""
    right: list[tuple] = []
    wrong: list[tuple] = []
    for rows in batches:
        for row in rows:
            if row[1] != row[2]:
                wrong.append(row)
            elif len(right) < GALLERY:
                right.append(row)
        wrong = sorted(wrong, key=lambda row: -row[3])[:GALLERY]
    return right, wrong


def none_of(title: str) -> str:
    """The title of a gallery without samples: 'wrong, surest first: ...' -> 'wrong: none'."""
    return f'{title.partition(":")[0].partition(",")[0]}: none'


def write_predictions(output: str | Path, rows: Sequence[Sequence[str]], sheet: Any) -> str:
    """`predictions.csv` of rows, the first their head, and `predictions.png` of a figure; where they are."""
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    # Names of files are bytes: those that are not UTF-8 are written as they are.
    with (out / 'predictions.csv').open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        csv.writer(file).writerows(rows)
    sheet.savefig(out / 'predictions.png', dpi=100)
    return f'{out / "predictions.csv"}, {out / "predictions.png"}'
