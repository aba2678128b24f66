"""Classifying a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from canon import backend, data, plots
from canon.errors import UsageError
from experiments.classification.evaluator import one_crop
from experiments.images import SHEET, write_predictions

_BEST = 3  # classes an image


def classify(
    predict: Callable,
    params,
    mutable,
    source: str,
    names: Sequence[str],
    channels: int,
    batch_size: int,
    transforms: Sequence[data.Transform],
    output: str | Path,
    unreadable: str = 'refuse',
    max_pixels: int = data.image_files.MAX_PIXELS,
) -> str:
    """Writes `predictions.csv`, a row per image with its likeliest classes, and `predictions.png`; says so.

    Args:
      predict: as `Task.predict`.
      params, mutable: its first arguments.
      source: a folder, or one file.
      names: of the classes.
      channels: that the model takes.
      batch_size: images at once.
      transforms: from a decoded image to what the model takes.
      output: the folder to write to.
      unreadable: 'skip' leaves out files that cannot be read and counts them, as a folder of training images does.
      max_pixels: a larger image counts as unreadable.

    Raises UsageError where there is no image, CanonError naming a file that is broken.
    """
    files = data.image_files.Files(source, unreadable, max_pixels)
    batches = data.Once(files, batch_size, transforms, memory_limit=0)
    infer = backend.jit(lambda p, m, b: jax.nn.softmax(predict(p, m, b)))
    rows, shown = [], []
    for batch in batches.iterate():
        images = _with_channels(batch['image'], channels)
        chances = np.asarray(infer(params, mutable, {'image': images}))
        for image, chance in zip(images[batch['mask']], chances[batch['mask']], strict=True):
            best = np.argsort(-chance, kind='stable')[:_BEST]
            rows.append([str(files.paths[len(rows)]), *(x for c in best for x in (names[c], f'{chance[c]:.4f}'))])
            if len(shown) < SHEET:
                shown.append((one_crop(image), f'{names[best[0]]} {chance[best[0]]:.2f}'))
    ranks = range(1, (len(rows[0]) + 1) // 2)
    head = ['file', *(x for r in ranks for x in (f'class{r}', f'probability{r}'))]
    sheet = plots.gallery(np.stack([image for image, _ in shown]), [title for _, title in shown])
    skipped = f', {len(files.skipped)} skipped' if files.skipped else ''
    return f'{len(rows)} images classified{skipped}: {write_predictions(output, [head, *rows], sheet)}'


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """RGB files for a model of grey images: luma by ITU-R 601, as Pillow's 'L'."""
    if channels == images.shape[-1]:
        return images
    if channels != 1:
        raise UsageError(f'the model takes images of {channels} channels, files are read with {images.shape[-1]}')
    return np.round(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
