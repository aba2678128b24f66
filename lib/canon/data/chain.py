"""What a transform is, and how a chain of them is applied."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from canon.data.keys import Key
from canon.data.source import Example, Source, read
from canon.errors import CanonError, UsageError


class Transform(NamedTuple):
    """apply: (example, key) -> a new example; the given one is left as it is. random: it looks beyond `key.id`."""

    apply: Callable[[Example, Key], Example]
    random: bool = False


def split(transforms: Sequence[Transform]) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """(the deterministic ones before the first random one, the rest)."""
    for t in transforms:
        if not isinstance(t, Transform):
            raise UsageError(f'{t!r} is no Transform; wrap a function of (example, key) in Transform(function, random)')
    first = next((i for i, t in enumerate(transforms) if t.random), len(transforms))
    return tuple(transforms[:first]), tuple(transforms[first:])


def apply(transforms: Sequence[Transform], example: Example, key: Key) -> Example:
    """`example` through `transforms`; the k-th random one gets `key` with link k."""
    link = 0
    for transform in transforms:
        if transform.random:
            key = Key(key.seed, key.visit, key.id, link)
            link += 1
        example = transform.apply(example, key)
    return example


class Mapped:
    """`source` with deterministic transforms applied to each example."""

    def __init__(self, source: Source, transforms: Sequence[Transform]):
        """Raises CanonError for a random transform: it would give the same on every visit."""
        if any(t.random for t in transforms):
            raise CanonError('Mapped takes deterministic transforms only; random ones belong to Batches')
        self.source, self.info, self.transforms = source, source.info, tuple(transforms)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return apply(self.transforms, self.source[index], Key(0, 0, index))

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        examples = zip(ids, read(self.source, ids), strict=True)
        return [apply(self.transforms, example, Key(0, 0, i)) for i, example in examples]

    def __repr__(self) -> str:
        return f'Mapped({self.source!r})'
