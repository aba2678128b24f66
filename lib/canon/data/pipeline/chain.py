"""Transforms of examples, and chains of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from canon.data.pipeline.keys import Key
from canon.data.pipeline.source import Example, Source, read_examples
from canon.errors import CanonError, UsageError


class Transform(NamedTuple):
    """A function of one example.

    Attributes:
      apply: (example, key) -> a new example; the given one stays as it is.
      random: whether the result depends on more of the key than `key.id`.
      pairs: whether `apply` takes a third argument, the examples of the whole source by number, as the links before
        this one transform them on this visit. Such a transform is random.
      apply_to_batch: (batch, keys) -> a new batch, {field: [B, ...]}, whose rows are those that `apply` returns for
        each example, in every bit; or None for a batch that it cannot take. Small images are transformed several times
        as fast together.
    """

    apply: Callable[..., Example]
    random: bool = False
    pairs: bool = False
    apply_to_batch: Callable[[dict[str, np.ndarray], Sequence[Key]], dict[str, np.ndarray] | None] | None = None


def split_chain(transforms: Sequence[Transform]) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """Splits a chain into the deterministic transforms before the first random one, and the rest."""
    for t in transforms:
        if not isinstance(t, Transform):
            raise UsageError(
                f'{t!r} is not a Transform; wrap a function of (example, key) in Transform(function, random)'
            )
    first = next((i for i, t in enumerate(transforms) if t.random), len(transforms))
    return tuple(transforms[:first]), tuple(transforms[first:])


def apply_chain(
    transforms: Sequence[Transform],
    example: Example,
    key: Key,
    source: Source | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Example:
    """Applies transforms to an example; the k-th random one gets `key` with link k.

    Args:
      transforms: the chain.
      example: the example that `key` names, after the transforms before `start`.
      key: seed, visit and id.
      source: of the example, for transforms of pairs.
      start: number of the first transform to apply.
      stop: number of the one after the last; None is the end of the chain.

    Raises:
      CanonError: there is a transform of pairs, and no source.
    """
    link = _count_random(transforms[:start])
    for i in range(len(transforms))[start:stop]:
        transform = transforms[i]
        if transform.random:
            key = Key(key.seed, key.visit, key.id, link)
            link += 1
        if transform.pairs:
            example = transform.apply(example, key, _Others(transforms[:i], source, key))
        else:
            example = transform.apply(example, key)
    return example


def apply_chain_to_batch(
    transforms: Sequence[Transform], batch: dict[str, np.ndarray], keys: Sequence[Key], start: int = 0
) -> dict[str, np.ndarray] | None:
    """Applies `transforms[start:]` to the batch {field: [B, ...]} of the examples `keys`.

    Returns the batch of what `apply_chain` returns for each example, or None if a transform cannot take a batch.
    """
    link, result = _count_random(transforms[:start]), batch
    for transform in transforms[start:]:
        if transform.random:
            keys = [Key(seed, visit, i, link) for seed, visit, i, _ in keys]
            link += 1
        if transform.apply_to_batch is None or (changed := transform.apply_to_batch(result, keys)) is None:
            return None
        result = changed
    return result


def find_batched_tail(transforms: Sequence[Transform]) -> int:
    """Returns the number of the transform from which on all have `apply_to_batch`; without one, that of all."""
    alone = [i for i, transform in enumerate(transforms) if transform.apply_to_batch is None]
    return max(alone, default=-1) + 1


def _count_random(transforms: Sequence[Transform]) -> int:
    # Deterministic links do not count: adding one does not change what the random ones draw.
    return sum(bool(transform.random) for transform in transforms)


class _Others:
    """The examples of `source` after `transforms`, on the visit of `key`, by number."""

    def __init__(self, transforms, source, key):
        if source is None:
            raise CanonError('a transform of pairs belongs to Batches: it needs the source')
        self.transforms, self.source, self.key = transforms, source, key

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        # The partner goes through the same links with its own key, so it is what it would be as an example of this
        # visit.
        (example,) = read_examples(self.source, [index])
        return apply_chain(self.transforms, example, Key(self.key.seed, self.key.visit, index), self.source)


class Mapped:
    """A source whose examples go through deterministic transforms."""

    def __init__(self, source: Source, transforms: Sequence[Transform]):
        """Raises CanonError for a random transform, which would draw the same on every visit."""
        if any(t.random for t in transforms):
            raise CanonError('Mapped takes deterministic transforms only; random ones belong to Batches')
        self.source, self.info, self.transforms = source, source.info, tuple(transforms)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return apply_chain(self.transforms, self.source[index], Key(0, 0, index))

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        examples = zip(ids, read_examples(self.source, ids), strict=True)
        return [apply_chain(self.transforms, example, Key(0, 0, i)) for i, example in examples]

    def __repr__(self) -> str:
        return f'Mapped({self.source!r})'
