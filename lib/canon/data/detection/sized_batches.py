"""Batches of images of several sizes: each has one size out of a short list, so a step compiles once per size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from canon import named
from canon.data.images.geometry import Size
from canon.data.pipeline import order
from canon.data.pipeline.batches import Batches, Once
from canon.data.pipeline.chain import Mapped, Transform
from canon.data.pipeline.mixing import Concatenated, Interleaved
from canon.data.pipeline.source import Cached, Source, Subset, cache_if_small, read_examples
from canon.errors import UsageError

MakeTransforms = Callable[[Size], Sequence[Transform]]  # for images of a size (height, width)
# (sizes of the images int [n, 2], sizes of the batches) -> the sizes and the images of each group, as `group_by_aspect`
Grouping = Callable[[np.ndarray, Sequence[Size]], list[tuple[list[int], np.ndarray]]]
_SAME_ASPECT = 1.05  # ratio of the aspects of two sizes that are one group, such as 480x640 and 608x800


class SizedBatches(Interleaved):
    """Training batches without end, each padded to one of `sizes`. A function of (seed, step) alone.

    An image goes to the sizes whose aspect is nearest to its own. Sizes of one aspect are one group: the size of each
    of its batches is drawn from them (multi-scale training), while the order of the examples stays that of a pass
    over the group. Groups take turns, in an order drawn again each epoch, with ceil(n / B) batches for n images.

        >>> from canon.data import Arrays, transforms
        >>> wide = Arrays({'image': np.zeros((9, 20, 30, 3), np.uint8), 'original_size': np.full((9, 2), (20, 30))})
        >>> sizes = (24, 24), (32, 32), (24, 36)
        >>> batches = SizedBatches(wide, 4, sizes, lambda size: [transforms.resize(size)])
        >>> {batches[step]['image'].shape for step in range(9)}
        {(4, 24, 36, 3)}
    """

    def __init__(
        self,
        source: Source,
        batch_size: named.Count,
        sizes: Sequence[Size],
        make_transforms: MakeTransforms,
        seed: int = 0,
        weights: Sequence[named.NonNegative] | None = None,
        threads: Annotated[int, named.Range(0)] = 2,
        workers: Annotated[int, named.Range(0)] = 0,
        memory_limit: int = 1 << 30,
        grouping: Grouping | None = None,
    ):
        """
        Args:
          source: the examples; `image_sizes` finds their sizes.
          batch_size: of all processes together.
          sizes: (height, width) of the batches.
          make_transforms: returns the transforms that give images of a size, and pad boxes to a fixed number.
          seed: of the order, of the sizes and of the transforms.
          weights: of `sizes` within their groups; equal if None.
          threads: threads that prepare batches ahead.
          workers: processes that prepare batches ahead, instead of threads.
          memory_limit: in bytes; a source that fits is decoded once and kept, before all transforms.
          grouping: divides the images among the sizes; `group_by_aspect` if None.

        Raises:
          UsageError: there are no sizes, or as in `Batches`.
        """
        if weights is not None and len(weights) != len(sizes):
            raise UsageError(
                f'SizedBatches: weights={tuple(weights)} must have one number for each of {len(sizes)} sizes'
            )
        # Worker processes would each fill a cache of their own.
        cached = source if workers else cache_if_small(source, memory_limit)
        parts, counts = [], []
        groups = (grouping or group_by_aspect)(image_sizes(cached), sizes)
        for number, (group, ids) in enumerate(groups):
            # The whole source with an order of its own: an example keeps its number, by which its transforms draw.
            sampler = functools.partial(_choose_ids, order.shuffled(len(ids), seed), ids)
            own = [
                Batches(cached, batch_size, seed, make_transforms(tuple(sizes[i])), sampler, threads=0, memory_limit=0)
                for i in group
            ]
            chances = [1.0] * len(group) if weights is None else [weights[i] for i in group]
            # Aligned: the sizes of a group share one order, so that an epoch shows each image once, whatever sizes are
            # drawn. Each group draws its sizes by a seed of its own.
            drawn = Interleaved(own, weights=chances, seed=seed * len(sizes) + number, aligned=True, threads=0)
            parts.append(drawn)
            counts.append(-(-len(ids) // batch_size))
        super().__init__(
            parts, counts, seed=seed, shuffled=True, batch_size=batch_size, threads=threads, workers=workers
        )
        self.num_examples = sum(counts) * batch_size  # an epoch is a round
        self.source = source


def evaluate_by_size(
    source: Source,
    batch_size: named.Count,
    sizes: Sequence[Size],
    make_transforms: MakeTransforms,
    threads: Annotated[int, named.Range(0)] = 2,
    workers: Annotated[int, named.Range(0)] = 0,
    memory_limit: int = 1 << 30,
    grouping: Grouping | None = None,
) -> Concatenated:
    """Makes evaluation batches: each example once, padded to the one of `sizes` whose aspect is nearest to its own.

    The batches of the first size come first; 'mask' is false in the rows that fill up the last batch of each size. The
    arguments are those of `SizedBatches`.

    Raises UsageError if two of the sizes have the same aspect.
    """
    cached = source if workers else cache_if_small(source, memory_limit)
    groups = (grouping or group_by_aspect)(image_sizes(cached), sizes)
    if double := next((group for group, _ in groups if len(group) > 1), None):
        shown = ' and '.join('{}x{}'.format(*sizes[i]) for i in double)
        raise UsageError(f'sizes {shown} have one aspect; an evaluation needs one size per aspect')
    parts = [
        Once(Subset(cached, ids), batch_size, make_transforms(tuple(sizes[group[0]])), threads=0, memory_limit=0)
        for group, ids in groups
    ]
    return Concatenated(parts, threads, workers)


def group_by_aspect(images: np.ndarray, sizes: Sequence[Size]) -> list[tuple[list[int], np.ndarray]]:
    """Divides images among the sizes of nearest aspect.

    Args:
      images: [n, 2] of (height, width).
      sizes: (height, width) of the batches; those whose aspects differ by less than 5 % are one group.

    Returns:
      for each group that has images, the indices of its sizes and of its images, in order.

    Raises:
      UsageError: there are no sizes or one is not positive.
    """
    if not len(sizes) or any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise UsageError(f'sizes={tuple(sizes)} must be pairs of a height and a width')
    # Logarithms: 2:1 and 1:2 are equally far from a square.
    aspects = np.log(np.array([height / width for height, width in sizes]))
    order = np.argsort(aspects, kind='stable')
    breaks = np.flatnonzero(np.diff(aspects[order]) > np.log(_SAME_ASPECT)) + 1
    groups = sorted(sorted(part.tolist()) for part in np.split(order, breaks))
    centres = np.array([aspects[group].mean() for group in groups])
    heights, widths = np.asarray(images, np.float64).T
    nearest = np.abs(np.log(heights / widths)[:, None] - centres).argmin(1)
    divided = [(group, np.flatnonzero(nearest == number)) for number, group in enumerate(groups)]
    return [(group, ids) for group, ids in divided if len(ids)]


def image_sizes(source: Source) -> np.ndarray:
    """Returns the (height, width) of all images, int [n, 2]: those of `source.image_sizes()`, or by reading each.

    The field 'original_size' is preferred to the shape of 'image'.
    """
    if quick := getattr(source, 'image_sizes', None):
        return quick()
    if isinstance(source, Subset):
        return image_sizes(source.source)[list(source.ids)]
    if isinstance(source, Mapped):  # of images before their transforms, as 'original_size' is
        return image_sizes(source.source)
    # Images whose sizes nobody knows are read through the cache, where they stay: some are drawn when they are read.
    if isinstance(source, Cached) and (hasattr(source.source, 'image_sizes') or isinstance(source.source, Mapped)):
        return image_sizes(source.source)
    sizes = []
    for start in range(0, len(source), 64):
        for example in read_examples(source, range(start, min(start + 64, len(source)))):
            size = example.get('original_size')
            sizes.append(example['image'].shape[:2] if size is None else size)
    return np.array(sizes, int).reshape(-1, 2)


def _choose_ids(order_within: order.Order, ids: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples `ids[k]` at positions, where k is in the order of a group, and their visits."""
    chosen, visits = order_within(positions)
    return ids[chosen], visits


def fill_size(spec: Mapping[str, Any] | None, size: Size | None) -> dict[str, Any]:
    """Returns the transforms of a config with `size` put where a link has size='batch': the size of the batch.

    Without a size, where all batches have one, the transforms stay as they are.

    >>> fill_size(dict(chain=('letterbox',), letterbox=dict(size='batch', fill=0)), (300, 300))
    {'chain': ('letterbox',), 'letterbox': {'size': (300, 300), 'fill': 0}}
    """
    filled = named.to_plain(spec or {})
    if size is None:
        return filled
    for name, link in filled.items():
        if name == 'size' and link == 'batch':
            filled[name] = tuple(size)
        elif isinstance(link, Mapping):
            filled[name] = fill_size(link, size)
    return filled
