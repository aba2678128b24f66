"""Which example stands at which position of the endless training stream.

An order is a function of positions, [k] integers -> (ids [k], visits [k]): `ids` are indices of the source, `visits`
counts how often that example was drawn before, so that each (id, visit) occurs once and names its augmentation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from canon.data.pipeline import keys
from canon.errors import UsageError

Order = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def in_order(n: int) -> Order:
    """0, 1, ... n-1, again and again."""
    return functools.partial(_in_order, n)


def shuffled(n: int, seed: int) -> Order:
    """A new permutation for every visit of the whole; nothing is dropped where a batch crosses from one to the next."""
    return functools.partial(_shuffled, n, seed)


def balanced(labels: np.ndarray, seed: int, batch_size: int) -> Order:
    """Batches in which the counts of any two classes differ by at most one (notes 2.4.2).

    The classes that occur in `labels` [n] follow each other in rounds, each class once a round, and each class walks
    through permutations of its own examples; so small classes are repeated more often. The order within a round is
    drawn anew every lcm(batch_size, classes) positions: only a repeated order keeps the counts of a batch that
    crosses rounds within one of each other, and there rounds and batches end together.
    """
    return _Balanced(labels, seed, batch_size)


def _in_order(n, positions):
    return positions % n, positions // n


def _shuffled(n, seed, positions):
    visits, places = np.divmod(positions, n)
    ids = np.empty_like(positions)
    for visit in np.unique(visits):
        at = visits == visit
        ids[at] = _permutation(n, seed, int(visit))[places[at]]
    return ids, visits


@functools.lru_cache(maxsize=4)  # two epochs meet in a batch; twice that for training beside evaluation
def _permutation(n, seed, visit):
    return keys.stream('shuffled order', seed, visit).permutation(n)


class _Balanced:
    def __init__(self, labels, seed, batch_size):
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels):
            raise UsageError(f'balanced sampling needs one label per example, [n]; it has shape {labels.shape}')
        if labels.dtype.kind == 'f' and np.isnan(labels).any():  # NaN equals no label, not even itself
            raise UsageError('balanced sampling needs a label for each example; some are NaN')
        self.seed = seed
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.stretch = math.lcm(batch_size, len(self.groups))
        self._cycle = [(-1, np.empty(0, int))] * len(self.groups)  # last used permutation of each class

    def __call__(self, positions):
        rounds, places = np.divmod(positions, len(self.groups))
        classes = np.empty_like(positions)
        stretches = positions // self.stretch
        for stretch in np.unique(stretches):
            at = stretches == stretch
            generator = keys.stream('balanced rounds', self.seed, int(stretch))
            classes[at] = generator.permutation(len(self.groups))[places[at]]
        drawn = [self._draw(c, r) for c, r in zip(classes.tolist(), rounds.tolist(), strict=True)]
        return np.array([i for i, _ in drawn], int), np.array([visit for _, visit in drawn], int)

    def _draw(self, c, r):
        """Class c gives one example a round, so its r-th draw falls in round r."""
        cycle, place = divmod(r, len(self.groups[c]))
        held = self._cycle[c]
        if held[0] != cycle:
            generator = keys.stream('balanced groups', self.seed, c, cycle)
            held = self._cycle[c] = cycle, generator.permutation(self.groups[c])
        return held[1][place], cycle
