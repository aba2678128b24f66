"""Synthetic data: batches from a function, and random images with which to build and time an experiment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline.batches import process_rows
from canon.data.pipeline.source import Example, Info


class Generated:
    """Batches from a function of their number.

    >>> Generated(lambda step: {'x': np.full(2, step)}, batch_size=2)[7]
    {'x': array([7, 7])}
    """

    def __init__(
        self,
        function: Callable[[int], Any],
        batch_size: int | None = None,
        num_examples: int | None = None,
        length: int | None = None,
    ):
        """
        Args:
          function: makes the batch of all processes from its number.
          batch_size: rows of a batch.
          num_examples: rows of an epoch, so that lengths may be given in epochs.
          length: number of batches, for an evaluator; None makes them without end.
        """
        self.function, self.batch_size, self.num_examples, self.length = function, batch_size, num_examples, length
        self._process = (0, 1)

    def for_process(self, index: int, count: int) -> Generated:
        """Returns the same data whose batches hold only the rows of process `index` of `count`.

        The function still computes the whole batch, of which these rows are cut.
        """
        if self.batch_size is not None:
            process_rows(self.batch_size, index, count)
        part = copy.copy(self)
        part._process = index, count
        return part

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError('these batches are endless; give a length to evaluate on them')
        return self.length

    def __getitem__(self, step: int) -> Any:
        if self.length is not None and not 0 <= step < self.length:
            raise IndexError(f'batch {step} of {self.length}')
        batch = self.function(step)
        return batch if self._process == (0, 1) else _cut(batch, *self._process)

    def iterate(self, start: int = 0) -> Iterator[Any]:
        """Yields self[start], self[start + 1], ..., each made when it is requested."""
        step = start
        while self.length is None or step < self.length:
            yield self[step]
            step += 1


def _cut(batch: Any, index: int, count: int) -> Any:
    """Returns the rows of process `index` of every array of a batch, which may be a mapping of mappings."""
    if isinstance(batch, Mapping):
        return {name: _cut(value, index, count) for name, value in batch.items()}
    return batch[process_rows(len(batch), index, count)]


def fake(
    split: str = 'train',
    num_examples: named.Count = 1024,
    size: named.Count = 64,
    channels: named.Count = 3,
    num_classes: named.Count = 10,
) -> FakeImages:
    """Makes random images with random labels: `data.name='fake'` runs any experiment whose data set is not at hand."""
    return FakeImages(split, num_examples, size, channels, num_classes)


class FakeImages:
    """Examples have 'image', uint8 [size, size, channels], and 'label', int64 []; example i depends on (split, i)."""

    def __init__(self, split: str, num_examples: int, size: int, channels: int, num_classes: int):
        self.num_examples, self.num_classes, self.split = num_examples, num_classes, split
        self.shape = size, size, channels
        self.info = Info('fake', split, num_classes, tuple(map(str, range(num_classes))))

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> Example:
        # The name of the split seeds its examples, so that 'train' and 'test' differ.
        rng = np.random.default_rng((*self.split.encode(), index))
        image = rng.integers(256, size=self.shape, dtype=np.uint8)
        return {'image': image, 'label': np.int64(rng.integers(self.num_classes))}

    def __repr__(self) -> str:
        return f'FakeImages({self.split}, {self.num_examples} images of {self.shape})'
