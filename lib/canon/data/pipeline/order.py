"""Samplers: which example is at which position of the endless training stream.

An order is a function of positions, [k] integers -> (ids [k], visits [k]): `ids` are indices of the source, `visits`
counts how often that example was drawn before, so each (id, visit) occurs once and identifies its augmentation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline import keys
from canon.data.pipeline.permutation import KeyedPermutation
from canon.data.pipeline.source import Source, field_values
from canon.errors import UsageError

_STORED = 1 << 24  # examples: a permutation of as many takes 134 MB
Order = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_order(sampler: str | Mapping[str, Any] | Order, source: Source, seed: int, batch_size: int) -> Order:
    """Makes the order that a config names.

    Args:
      sampler: 'shuffled', or with arguments `dict(name='balanced', field='domain')`. The name is that of a public
        function of this module, or `package.module:function`. It is called with those of `source`, its length `n`,
        `seed` and `batch_size` that it takes, and with the other keys of `sampler`. A function of positions is
        returned as it is.
      source: the examples.
      seed: of the run.
      batch_size: of all processes together.

    Raises:
      UsageError: there is no such name or argument.
    """
    if not isinstance(sampler, str | Mapping) and callable(sampler):
        return sampler
    spec = {'name': sampler} if isinstance(sampler, str) else named.to_plain(sampler)
    if not isinstance(spec, Mapping) or 'name' not in spec:
        raise UsageError(f"sampler={sampler!r} must be a name, a mapping with a 'name', or a function of positions")
    function = _SAMPLERS.find(spec.pop('name'))
    known = {'n': len(source), 'source': source, 'seed': seed, 'batch_size': batch_size}
    given = {key: value for key, value in known.items() if named.accepts(function, key)}
    return named.call(function, {**given, **spec}, 'sampler')


def in_order(n: int) -> Order:
    """Repeats 0, 1, ..., n - 1."""
    return functools.partial(_in_order, n)


def shuffled(n: int, seed: int) -> Order:
    """Draws a new permutation for every epoch; a batch may cross from one to the next, so nothing is dropped.

    Beyond 2^24 examples the permutation is computed place by place and takes no memory.
    """
    return functools.partial(_permute_epochs, n, seed)


def balanced(source: Source, seed: int, batch_size: int, field: str = 'label') -> Order:
    """Fills batches in which the counts of any two classes differ by at most one.

    The values of `field` that occur, classes or domains, follow each other in rounds, each once per round, and each
    class walks through permutations of its own examples; so small classes are repeated more often. The order within a
    round is drawn again every lcm(batch_size, classes) positions: only a repeated order keeps the counts of a batch
    that crosses rounds within one of each other, and there rounds and batches end together.

    Raises UsageError where the examples do not have one value each, or a value is NaN.
    """
    return _Balanced(field_values(source, field), seed, batch_size, field)


def class_groups(
    source: Source,
    seed: int,
    batch_size: int,
    examples: named.Count = 4,
    within: str | None = None,
    field: str = 'label',
) -> Order:
    """Fills batches with P classes of K examples each: Hermans et al. 2017, section 2.

    Each step draws its classes and their examples independently; a class of fewer than K examples repeats them.

    Args:
      source: the examples.
      seed: of the run.
      batch_size: P K.
      examples: K.
      within: a field of which a batch takes whole values, in random order, until it has P classes: with 'sequence' most
        classes of a batch share their sequence, so that they are not told apart by its ground. None draws all classes
        alike.
      field: of the classes.

    Raises:
      UsageError: `examples` does not divide the size of the batch, or there are fewer than P classes.
    """
    return _ClassGroups(source, seed, batch_size, examples, within, field)


def _in_order(n, positions):
    return positions % n, positions // n


def _permute_epochs(n, seed, positions):
    visits, places = np.divmod(positions, n)
    ids = np.empty_like(positions)
    # A batch may span the end of an epoch, or several epochs of a small source.
    for visit in np.unique(visits):
        at = visits == visit
        ids[at] = _draw_permutation(n, seed, int(visit))(places[at])
    return ids, visits


@functools.lru_cache(maxsize=4)  # two epochs may meet in a batch, in training and in evaluation
def _draw_permutation(n, seed, visit):
    """Returns a function of places."""
    generator = keys.stream('shuffled order', seed, visit)
    return generator.permutation(n).__getitem__ if n <= _STORED else KeyedPermutation(n, generator)


class _Balanced:
    def __init__(self, labels, seed, batch_size, field):
        if labels.ndim != 1 or not len(labels):
            raise UsageError(f'balanced sampling needs one {field} per example, [n]; it has shape {labels.shape}')
        if labels.dtype.kind == 'f' and np.isnan(labels).any():  # NaN equals no label, not even itself
            raise UsageError(f'balanced sampling needs a {field} for each example; some are NaN')
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
        """Returns the example of class c in round r, and its visit: a class has one example per round."""
        cycle, place = divmod(r, len(self.groups[c]))
        cached = self._cycle[c]
        if cached[0] != cycle:
            generator = keys.stream('balanced groups', self.seed, c, cycle)
            # Only the permutation in use is kept: positions come in order, so another one is rarely needed.
            cached = self._cycle[c] = cycle, generator.permutation(self.groups[c])
        return cached[1][place], cycle


class _ClassGroups:
    def __init__(self, source, seed, batch_size, examples, within, field):
        labels = field_values(source, field)
        classes, inverse = np.unique(labels, return_inverse=True)
        self.seed, self.batch_size, self.examples = seed, batch_size, examples
        self.count, rest = divmod(batch_size, examples)
        if rest or self.count > len(classes):
            raise UsageError(
                f'sampler: batch_size={batch_size} must be a multiple of examples={examples} and have at most the '
                f'{len(classes)} classes of {source!r}'
            )
        self.members = [np.flatnonzero(inverse == i) for i in range(len(classes))]
        groups = np.zeros(len(labels), int)
        if within is not None:
            groups = np.unique(field_values(source, within), return_inverse=True)[1]
        self.group_of_class = groups[[rows[0] for rows in self.members]]

    def __call__(self, positions):
        steps, places = np.divmod(positions, self.batch_size)
        ids, visits = np.empty_like(positions), np.empty_like(positions)
        for step in np.unique(steps).tolist():
            at = steps == step
            ids[at] = self._draw(step)[places[at]]
            # An example that a class repeats within a step is another visit.
            visits[at] = step * self.examples + places[at] % self.examples
        return ids, visits

    def _draw(self, step):
        """Returns the examples of a step, [P K], class by class."""
        rng = keys.stream('class groups', self.seed, step)
        group_rank = rng.permutation(self.group_of_class.max() + 1)[self.group_of_class]
        classes = np.lexsort((rng.random(len(group_rank)), group_rank))[: self.count]
        members = [self.members[i] for i in classes]
        # `resize` repeats a small class in rounds: drawn with replacement, it might be the same example K times.
        return np.concatenate([np.resize(rng.permutation(m), self.examples) for m in members])


# By what they return, so that a new sampler is a new function of this module.
_SAMPLERS = named.Catalogue(
    'sampler', (__name__,), lambda function: named.get_return_type(function) == Order and function is not make_order
)
