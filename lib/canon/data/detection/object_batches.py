"""Batches of images with objects for detectors: a fixed number of objects per image, one or several image sizes, and
for Fast R-CNN a fixed number of proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from canon import named
from canon.data.detection.annotations import check_classes, check_most
from canon.data.detection.proposals import Proposer, WithProposals, read_proposals
from canon.data.detection.sized_batches import SizedBatches, evaluate_by_size, fill_size
from canon.data.images.checks import infer_image_shape
from canon.data.images.geometry import Size
from canon.data.pipeline.batches import Batches, Once
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.mixing import Concatenated
from canon.data.pipeline.source import Source
from canon.data.transforms import make_transforms
from canon.data.transforms.fields import pad_boxes, pad_proposals
from canon.errors import UsageError

SizedTransforms = Callable[[Size | None], Sequence[Transform]]  # for the size of a batch, None if there is only one


@dataclass(frozen=True)
class ObjectSettings:
    """config.data.objects: the fixed number of objects that every image of a batch has.

    Attributes:
      most: objects per image; fewer are padded and masked.
      overflow: what an image with more is: 'error', or 'truncate', which leaves out the smallest.
    """

    most: named.Count
    overflow: Literal['error', 'truncate'] = 'error'


@dataclass(frozen=True)
class ProposalSettings:
    """config.data.proposals: the boxes that Fast R-CNN classifies.

    Attributes:
      most: P, proposals per image, the first in rank; fewer are padded and masked.
      stage: the stage that has computed them; None searches every image as it is read, for which sliding windows alone
        are fast enough.
    """

    most: named.Count = 2000
    stage: str | None = 'proposals'

    def find_file(self, stages: Mapping[str, Path], name: str) -> Path:
        """Returns the file of a split, '<name>.npz' among the artefacts. Raises UsageError without such a stage."""
        stage = str(self.stage)
        if stage not in stages:
            raise UsageError(
                f'data.proposals.stage={stage!r} is not a finished stage{named.suggest(stage, stages)}; put it before '
                'this one in stages.chain'
            )
        return stages[stage] / 'artefacts' / f'{name}.npz'


def search_proposals(proposer: Proposer) -> Transform:
    """Adds 'proposals', float32 [P, 4], that a proposer finds in the image; it comes before all other transforms."""
    return Transform(lambda example, key: {**example, 'proposals': proposer(example['image'])})


@dataclass(frozen=True)
class ObjectPipeline:
    """From sources of images with objects to batches, alike in training and in evaluation.

    Attributes:
      batch_size: images of all processes together.
      objects: the number per image.
      proposals: the number per image, and the stage that they are from; None if batches have none.
      proposer: of images that no stage has searched; None if there is none.
      sizes: (height, width) of the batches; none if the transforms give all images one size.
      reading: threads, workers and memory_limit, as of `Batches`.
    """

    batch_size: named.Count
    objects: ObjectSettings
    proposals: ProposalSettings | None = None
    proposer: Proposer | None = None
    sizes: tuple[Size, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, source: Source, stages: Mapping[str, Path], name: str) -> Source:
        """Returns the source with the proposals that a stage has stored for it, after a check of its objects.

        Args:
          source: images before all transforms.
          stages: the folders of the finished stages, by name.
          name: of the split: 'train', or that of an evaluator.
        """
        if self.objects.overflow == 'error':
            check_most(source, self.objects.most, 'data.objects.most')
        if name == 'train':
            check_classes(source, 'data.train')
        if self.proposals is None or self.proposals.stage is None:
            return source
        return WithProposals(source, read_proposals(self.proposals.find_file(stages, name)), self.proposals.most)

    def make_transforms(self, spec: Mapping[str, Any] | None, where: str, size: Size | None = None) -> tuple:
        """Makes the transforms of a config, and gives their examples fixed numbers of objects and proposals.

        Args:
          spec: a chain; a link with size='batch' gives images of the size of the batch.
          where: its section, for errors.
          size: (height, width) of the batch; None where all batches have one size.
        """
        search = self.proposals is not None and self.proposals.stage is None
        padding = pad_boxes(self.objects.most, overflow=self.objects.overflow)
        return (*self._chain(spec, where, size, search), padding, *self._pad_proposals())

    def make_image_transforms(self, spec: Mapping[str, Any] | None, where: str, size: Size) -> tuple:
        """Makes the transforms of a config for new images: without objects, and searched for proposals."""
        return (*self._chain(spec, where, size, search=self.proposals is not None), *self._pad_proposals())

    def _chain(self, spec: Mapping[str, Any] | None, where: str, size: Size | None, search: bool) -> tuple:
        chain = tuple(make_transforms(fill_size(spec, size), where))
        if not search:
            return chain
        if self.proposer is None:
            raise UsageError('these images have no proposals; name what searches them in the section `proposals`')
        return (search_proposals(self.proposer), *chain)

    def _pad_proposals(self) -> tuple:
        return () if self.proposals is None else (pad_proposals(self.proposals.most),)

    def infer_shape(self, source: Source, spec: Mapping[str, Any] | None, where: str) -> tuple[int, ...]:
        """Returns the shape of the first image, [H, W, C]; that of the first size if there are several."""
        transforms = self.make_transforms(spec, f'{where}.transforms', *self.sizes[:1])
        return infer_image_shape(source, transforms, where)

    def make_training(
        self, source: Source, spec: Mapping[str, Any] | None, where: str, seed: int = 0, sampler: Any = 'shuffled'
    ) -> Batches | SizedBatches:
        """Makes endless batches; `where` is the section of the transforms `spec`."""
        transforms = partial(self.make_transforms, spec, f'{where}.transforms')
        return make_training_batches(source, self.batch_size, transforms, self.sizes, seed, sampler, **self.reading)

    def make_evaluation(self, source: Source, spec: Mapping[str, Any] | None, where: str) -> Once | Concatenated:
        """Makes batches in which each example is once."""
        transforms = partial(self.make_transforms, spec, f'{where}.transforms')
        return make_evaluation_batches(source, self.batch_size, transforms, self.sizes, **self.reading)

    def make_zeros(self) -> dict[str, np.ndarray]:
        """Returns the fields of a batch besides its images, as zeros: the shapes that a loss is compiled for."""
        shape = self.batch_size, self.objects.most
        zeros: dict[str, np.ndarray] = {flag: np.zeros(shape, bool) for flag in ('difficult', 'crowd', 'valid')}
        zeros |= dict(boxes=np.zeros((*shape, 4), np.float32), labels=np.zeros(shape, np.int32))
        rows = self.batch_size
        zeros |= dict(image_id=np.zeros(rows, np.int64), original_size=np.zeros((rows, 2), np.int32))
        if self.proposals is not None:
            shape = self.batch_size, self.proposals.most
            zeros |= dict(proposals=np.zeros((*shape, 4), np.float32), proposals_valid=np.zeros(shape, bool))
        return zeros


def make_training_batches(
    source: Source,
    batch_size: named.Count,
    transforms: SizedTransforms,
    sizes: Sequence[Size] = (),
    seed: int = 0,
    sampler: Any = 'shuffled',
    **reading: Any,
) -> Batches | SizedBatches:
    """Makes endless training batches, of several sizes if `sizes` has any.

    Args:
      source: the examples.
      batch_size: of all processes together.
      transforms: from the size of a batch to its transforms.
      sizes: (height, width) of the batches; none if the transforms give images of one size.
      seed: of the order, the sizes and the transforms.
      sampler: as of `Batches`; batches of several sizes are shuffled.
      **reading: threads, workers and memory_limit, as of `Batches`.
    """
    if sizes:
        return SizedBatches(source, batch_size, sizes, transforms, seed, **reading)
    return Batches(source, batch_size, seed, transforms(None), sampler, **reading)


def make_evaluation_batches(
    source: Source, batch_size: named.Count, transforms: SizedTransforms, sizes: Sequence[Size] = (), **reading: Any
) -> Once | Concatenated:
    """Makes batches in which each example is once. Arguments as of `make_training_batches`."""
    if sizes:
        return evaluate_by_size(source, batch_size, sizes, transforms, **reading)
    return Once(source, batch_size, transforms(None), **reading)


def describe_objects(source: Source) -> dict[str, Any]:
    """Returns what a run records of its training data: 'class_names', 'category_ids' (COCO's) and 'num_examples'."""
    category_ids = list(getattr(source, 'category_ids', ())) or None  # COCO's have gaps
    return dict(class_names=list_class_names(source), category_ids=category_ids, num_examples=len(source))


def list_class_names(source: Source) -> tuple[str, ...]:
    """Lists the names of the classes, without background: their labels where a source has only their number."""
    return source.info.class_names or tuple(map(str, range(source.info.num_classes or 0)))
