"""Buckets of width for images of text: a word or a line keeps its aspect and is padded, rather than squeezed.

sizes = (32, 64), (32, 128), (32, 256)
SizedBatches(source, 64, sizes, lambda size: [transforms.fit_line(size)], grouping=group_by_width)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from canon import named
from canon.data.detection.sized_batches import MakeTransforms, SizedBatches, evaluate_by_size
from canon.data.images.geometry import Size
from canon.data.pipeline.batches import Batches, Once
from canon.data.pipeline.mixing import Concatenated
from canon.data.pipeline.source import Source
from canon.errors import UsageError


def group_by_width(images: np.ndarray, sizes: Sequence[Size]) -> list[tuple[list[int], np.ndarray]]:
    """Divides images among sizes of one height: each goes to the narrowest that it fits into at that height.

    Images that are too wide for all of them go to the widest, into which `fit_line` squeezes them; their number is
    logged. This is a grouping of `canon.data.SizedBatches` and `evaluate_by_size`.

    Args:
      images: [n, 2] of (height, width).
      sizes: (height, width) of the batches.

    Returns:
      for each size that has images, [its index] and the indices of its images, in order.

    Raises:
      UsageError: there are no sizes, or they differ in height or not in width.

        >>> images = np.array([(16, 20), (10, 60), (32, 64), (20, 90)])
        >>> [(group, ids.tolist()) for group, ids in group_by_width(images, [(32, 160), (32, 64)])]
        [([1], [0, 2]), ([0], [1, 3])]
    """
    heights, widths = {size[0] for size in sizes}, [size[1] for size in sizes]
    if len(heights) != 1 or len(set(widths)) != len(widths) or min(*heights, *widths) < 1:
        raise UsageError(f'sizes={tuple(sizes)} must be (height, width) of one height and of different widths')
    # As `fit_line` rounds, so that what it makes of an image is what is counted here.
    needed = fitted_widths(images, heights.pop())
    order = np.argsort(widths)
    rank = np.searchsorted(np.array(widths)[order], needed)
    squeezed = int((rank == len(widths)).sum())
    if squeezed:
        logging.getLogger('canon').warning(
            '%d of %d images are squeezed: at the height of the batches they are wider than %d pixels, up to %d',
            squeezed, len(needed), max(widths), needed.max(),
        )  # fmt: skip
    rank = np.minimum(rank, len(widths) - 1)
    groups = [([int(order[r])], np.flatnonzero(rank == r)) for r in range(len(widths))]
    return [(group, ids) for group, ids in groups if len(ids)]


def fitted_widths(images: np.ndarray, height: int) -> np.ndarray:
    """Returns the widths of images at another height, int [n], at least one pixel.

    Args:
      images: [n, 2] of (height, width).
      height: of the scaled images.
    """
    heights, widths = np.asarray(images, np.float64).reshape(-1, 2).T
    return np.maximum(np.rint(widths * height / heights), 1).astype(int)


def batch_lines(
    source: Source,
    batch_size: named.Count,
    sizes: Sequence[Size],
    make_transforms: MakeTransforms,
    seed: int = 0,
    sampler: Any = 'shuffled',
    **reading: Any,
) -> Batches | SizedBatches:
    """Makes training batches of images of text: of one size, or of the narrowest of several that each fits into.

    Args:
      source: the examples.
      batch_size: images of each batch.
      sizes: (height, width) of the images; with one size or none, `make_transforms` decides.
      make_transforms: returns the transforms that give images of a size.
      seed: of the order and of the transforms.
      sampler: as of `Batches`; several sizes need 'shuffled'.
      **reading: threads, workers and memory_limit, as of `Batches`.

    Raises:
      UsageError: the sizes differ in height, or the sampler is another one.
    """
    if len(sizes) < 2:
        return Batches(source, batch_size, seed, make_transforms(_single_size(sizes)), sampler, **reading)
    if sampler != 'shuffled':
        raise UsageError(f"sampler={sampler!r} cannot be used with sizes={tuple(sizes)}: it must be 'shuffled'")
    return SizedBatches(source, batch_size, sizes, make_transforms, seed, grouping=group_by_width, **reading)


def batch_lines_once(
    source: Source, batch_size: named.Count, sizes: Sequence[Size], make_transforms: MakeTransforms, **reading: Any
) -> Once | Concatenated:
    """Makes evaluation batches of images of text, each once; the arguments are those of `batch_lines`."""
    if len(sizes) < 2:
        return Once(source, batch_size, make_transforms(_single_size(sizes)), **reading)
    return evaluate_by_size(source, batch_size, sizes, make_transforms, grouping=group_by_width, **reading)


def _single_size(sizes: Sequence[Size]) -> Any:
    """Returns the size of all images; None if the transforms of a config state it themselves."""
    return tuple(sizes[0]) if len(sizes) else None
