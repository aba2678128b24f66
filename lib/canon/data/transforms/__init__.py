"""Transforms: small numpy functions of one example, on the host, in a chain.

A factory such as `image.random_flip(p=0.5)` returns a `Transform`, whose `apply(example, key)` returns a new example
and leaves the given one alone. `key` names its randomness (`canon.data.keys`). The deterministic transforms before
the first random one are applied before the cache, hence once; the others on every visit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from canon import named
from canon.data.keys import Key
from canon.data.source import Example, Source, read
from canon.errors import CanonError, UsageError


class Transform(NamedTuple):
    """apply: (example, key) -> example. random: whether it looks at more of the key than `id`."""

    apply: Callable[[Example, Key], Example]
    random: bool = False


def make(spec: Mapping[str, Any] | None, where: str = 'transforms') -> tuple[Transform, ...]:
    """The transforms of a config: `dict(chain=('flip', 'to_float'), flip=dict(name='random_flip', p=0.5))`.

    A name is a factory of a module of this package, `random_flip` or `image.random_flip`. Nothing gives ().
    Raises UsageError for a name or an argument that does not exist; `where` is the key that it speaks of.
    """
    return tuple(named.chain(spec, _link, where)) if spec else ()


def _link(name: str, arguments: dict, where: str) -> Transform:
    factories = {path.rpartition('.')[2]: path for path in named.public_functions(__name__)}
    if '.' not in name and name not in factories:
        raise UsageError(f'{where}: no transform is called {name!r}{named.near(name, factories)}')
    factory = named.lookup(__name__, factories.get(name, name), 'transform')
    return named.call(factory, arguments, where)


def split(transforms: Sequence[Transform]) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """(the deterministic ones before the first random one, the rest)."""
    for t in transforms:
        if not isinstance(t, Transform):
            raise UsageError(
                f'{t!r} is no Transform; wrap a function of (example, key): Transform(function, random=True)'
            )
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
