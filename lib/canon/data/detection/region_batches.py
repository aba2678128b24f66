"""Regions of images as examples of a classifier: warped crops, their classes, and batches of them (R-CNN).

Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic segmentation",
CVPR 2014, sections 2 and A.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np

from canon import named
from canon.data.images.geometry import box_area, box_iou, box_to_canvas
from canon.data.pipeline import keys
from canon.data.pipeline.batches import ENDLESS, prefetch, process_rows
from canon.data.pipeline.mixing import Interleaved
from canon.data.pipeline.source import Example, Source, cache_if_small
from canon.errors import CanonError, UsageError

Number = Annotated[float, named.Range(0)]


@dataclass(frozen=True)
class RegionCrop:
    """config.crop: how a region becomes an image of fixed size (appendix A, Figure 7).

    Attributes:
      size: of the crop, in pixels.
      context: pixels of the crop on each side that show what is around the region.
      form: 'warp' stretches the region to a square (column D). 'square' takes the tightest square around it, and keeps
        its aspect (column B): "crop with context".
      fill: colour outside the image, (red, green, blue) in 0..255: the mean that the network subtracts.
    """

    size: named.Count = 227
    context: Annotated[int, named.Range(0)] = 16
    form: Literal['warp', 'square'] = 'warp'
    fill: tuple[Number, Number, Number] = (124.0, 116.0, 104.0)

    def __post_init__(self):
        if 2 * self.context >= self.size:
            raise UsageError(f'crop.context={self.context} on both sides leaves nothing of crop.size={self.size}')

    def expand(self, box: np.ndarray) -> tuple[float, ...]:
        """Returns the part of the image that the crop shows: the region with its context, (x0, y0, x1, y1)."""
        # Pixels at least, so that a region without area has a finite crop.
        sides = np.maximum(np.asarray(box[2:], np.float64) - box[:2], 1.0)
        if self.form == 'square':
            sides[:] = sides.max()
        centre = (np.asarray(box[:2], np.float64) + box[2:]) / 2
        half = sides / 2 * self.size / (self.size - 2 * self.context)
        return (*(centre - half).tolist(), *(centre + half).tolist())

    def __call__(self, image: np.ndarray, boxes: np.ndarray, size: int | None = None) -> np.ndarray:
        """Crops regions bilinearly, without antialiasing, as the authors' code does.

        Args:
          image: uint8 [H, W, 3].
          boxes: [R, 4] in pixels; they may reach outside.
          size: of the crops, in place of `self.size`; the context scales with it.

        Returns:
          uint8 [R, size, size, 3].
        """
        size = self.size if size is None else size
        crops = np.empty((len(boxes), size, size, 3), np.uint8)
        for crop, box in zip(crops, boxes, strict=True):
            # OpenCV's whole numbers are the centres of pixels, ours their corners.
            matrix = box_to_canvas(self.expand(box), (size, size))[:2]
            matrix[:, 2] += 0.5 * (matrix[:, :2].sum(1) - 1)
            crop[:] = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=self.fill)
        return crops


@dataclass(frozen=True)
class RegionSampling:
    """config.finetuning: which regions a batch has, and their form.

    Attributes:
      positive_fraction: share of positives, rounded.
      positive_iou: IoU with an object from which a region is positive.
      negative_iou: IoU from which a region that is not positive is negative; 0 in R-CNN.
      flip: probability of a mirror image.
      sizes: of the crops in pixels, of which each batch has one; that of the crop if empty.
    """

    positive_fraction: named.Probability = 0.25
    positive_iou: named.Probability = 0.5
    negative_iou: named.Probability = 0.0
    flip: named.Probability = 0.5
    sizes: tuple[named.Count, ...] = ()


class RegionTable(NamedTuple):
    """The regions of all images of a source: their objects and their proposals.

    Attributes:
      images: int32 [T], the example of each region.
      boxes: float32 [T, 4].
      labels: int32 [T]: the class of the object of greatest IoU plus one; 0 without an object; -1 where that object is
        difficult or a crowd.
      overlaps: float32 [T], that IoU.
      objects: bool [T], whether the region is an object and not a proposal.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray
    objects: np.ndarray


def tabulate_regions(source: Source) -> RegionTable:
    """Makes the table of the regions of a source whose examples have `boxes`, `labels` and `proposals`.

    Raises UsageError if there are no proposals.
    """
    parts = []
    for i in range(len(source)):
        example = source[i]
        if 'proposals' not in example:
            raise UsageError(f"{source!r} has no field 'proposals'; wrap it in WithProposals")
        regions = list_regions(example)
        parts.append((np.full(len(regions[0]), i, np.int32), *regions))
    columns = zip(*parts, strict=True)
    return RegionTable(*(np.concatenate(column) for column in columns))


def list_regions(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists the objects of an example and its proposals, in this order, without ignored objects.

    Returns:
      boxes, labels, overlaps and objects of `RegionTable`.
    """
    boxes, labels, overlaps = label_regions(example, example['proposals'])
    # Objects are regions too: the only positives of the SVMs, and the surest ones of fine-tuning.
    chosen = ~find_ignored(example)
    own = (np.asarray(example['labels'], np.int32) + 1)[chosen]
    objects = np.asarray(example['boxes'], np.float32).reshape(-1, 4)[chosen]
    ones = np.ones(len(own), np.float32)
    is_object = np.arange(len(own) + len(boxes)) < len(own)
    boxes, labels = np.concatenate([objects, boxes]), np.concatenate([own, labels])
    return boxes, labels, np.concatenate([ones, overlaps]), is_object


def find_ignored(example: Example) -> np.ndarray:
    """Returns which objects of an example are no examples to learn from, bool [K]: difficult ones and crowds."""
    nothing = np.zeros(len(example['boxes']), bool)
    return np.asarray(example.get('difficult', nothing), bool) | np.asarray(example.get('crowd', nothing), bool)


def label_regions(example: Example, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels regions by the object of greatest IoU, as in `RegionTable`.

    Regions without area are dropped.

    Args:
      example: has `boxes` [K, 4] and `labels` [K], perhaps `difficult` and `crowd`.
      boxes: the regions, [R, 4].

    Returns:
      boxes float32 [R', 4], labels int32 [R'] and IoUs float32 [R'].
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    boxes = boxes[box_area(boxes) > 0]
    if not len(example['boxes']):
        return boxes, np.zeros(len(boxes), np.int32), np.zeros(len(boxes), np.float32)
    iou = box_iou(boxes, example['boxes'])
    best = iou.argmax(1)
    overlaps = iou[np.arange(len(boxes)), best].astype(np.float32)
    labels = np.where(find_ignored(example), -1, np.asarray(example['labels']) + 1)[best]
    return boxes, np.where(overlaps > 0, labels, 0).astype(np.int32), overlaps


class RegionBatches:
    """Training batches of crops without end, a function of (seed, step): 32 positives and 96 negatives in R-CNN.

    Positives are regions with an IoU of at least `positive_iou` with an object, uniformly over all classes; negatives
    are all others. A batch has 'image' uint8 [B, size, size, 3], 'label' int64 [B], 0 for the background, and 'mask'.
    """

    def __init__(
        self,
        source: Source,
        table: RegionTable,
        crop: RegionCrop,
        sampling: RegionSampling = RegionSampling(),
        batch_size: named.Count = 128,
        size: int | None = None,
        seed: int = 0,
        threads: int = 2,
        workers: int = 0,
        memory_limit: int = 1 << 30,
    ):
        """
        Args:
          source: the images.
          table: their regions, of `tabulate_regions`.
          crop: makes the images of a batch.
          sampling: which regions a batch has.
          batch_size: B, of all processes together.
          size: of the crops; that of `crop` if None.
          seed: of the draws.
          threads: that prepare batches ahead.
          workers: processes that do it instead; each reads the source itself.
          memory_limit: in bytes; a source that fits is decoded once and kept.

        Raises:
          UsageError: no region is positive, or none is negative.
        """
        positive = (table.labels > 0) & (table.overlaps >= sampling.positive_iou)
        negative = (table.overlaps < sampling.positive_iou) & (table.overlaps >= sampling.negative_iou)
        self.positives, self.negatives = np.flatnonzero(positive), np.flatnonzero(negative)
        self.positive_count = round(batch_size * sampling.positive_fraction)
        for kind, rows, needed in (
            ('positive', self.positives, self.positive_count),
            ('negative', self.negatives, batch_size - self.positive_count),
        ):
            if needed and not len(rows):
                raise UsageError(
                    f'{source!r}: none of {len(table.boxes)} regions is {kind} at an IoU of {sampling.positive_iou}; '
                    'check the proposals and the objects'
                )
        self.source = cache_if_small(source, 0 if workers else memory_limit)
        self.table, self.crop, self.sampling = table, crop, sampling
        self.size, self.seed, self.threads, self.workers = size, seed, threads, workers
        self.batch_size, self.num_examples = batch_size, len(table.boxes)
        self._local = process_rows(batch_size, 0, 1)

    @property
    def steps_per_epoch(self) -> float:
        """Steps that draw as many regions as there are."""
        return self.num_examples / self.batch_size

    def for_process(self, index: int, count: int) -> RegionBatches:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        part = copy.copy(self)
        part._local = process_rows(self.batch_size, index, count)
        return part

    def choose(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the rows of the table of a batch, their labels, and which are mirrored."""
        generator = keys.stream('region batches', self.seed, step)
        drawn = [self.positives] * self.positive_count
        rows = generator.integers(0, max(len(self.positives), 1), len(drawn))
        others = generator.integers(0, max(len(self.negatives), 1), self.batch_size - len(drawn))
        chosen = np.concatenate([self.positives[rows], self.negatives[others]])
        labels = self.table.labels[chosen].copy()
        labels[len(drawn) :] = 0
        return chosen, labels, generator.random(self.batch_size) < self.sampling.flip

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        if step < 0:
            raise IndexError(f'step {step} is negative')
        chosen, labels, mirrored = (values[self._local] for values in self.choose(int(step)))
        size = self.crop.size if self.size is None else self.size
        images = np.empty((len(chosen), size, size, 3), np.uint8)
        owners = self.table.images[chosen]
        for owner in np.unique(owners):  # each image is read once per batch
            own = np.flatnonzero(owners == owner)
            images[own] = self.crop(self.source[int(owner)]['image'], self.table.boxes[chosen[own]], size)
        images[mirrored] = images[mirrored][:, :, ::-1]
        return {'image': images, 'label': labels.astype(np.int64), 'mask': np.ones(len(chosen), bool)}

    def iterate(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields self[start], self[start + 1], ..., prepared ahead."""
        return prefetch(self, start, ENDLESS, self.threads, self.workers)


def make_region_batches(
    source: Source, crop: RegionCrop, sampling: RegionSampling = RegionSampling(), seed: int = 0, **options: Any
) -> RegionBatches | Interleaved:
    """Makes training batches of the regions of a source, of several sizes if `sampling.sizes` has any.

    With several sizes each batch has one of them, drawn at random, for one set of weights (SPP-net, section 2.3); the
    regions of a step do not depend on its size.

    Args:
      source: examples with `boxes`, `labels` and `proposals`.
      crop: makes the images.
      sampling: which regions a batch has.
      seed: of the draws.
      **options: of `RegionBatches`.
    """
    table = tabulate_regions(source)
    batches = [
        RegionBatches(source, table, crop, sampling, size=size, seed=seed, **options)
        for size in sampling.sizes or (None,)
    ]
    if len(batches) == 1:
        return batches[0]
    return Interleaved(
        batches,
        weights=[1.0] * len(batches),
        seed=seed,
        threads=batches[0].threads,
        workers=batches[0].workers,
        aligned=True,
    )


def check_class_counts(counts: Sequence[int], names: Sequence[str], what: str) -> None:
    """Raises CanonError, naming the class, if a class has no positive example."""
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise CanonError(
                f'the class {name!r} has no positive example for {what}; add images of it, or leave the class out'
            )
