"""One file = one system of the literature. A config names one: `model.name='lenet.lenet5'`.

A file's constant `TABLE` lists what is published of its networks, made by `published`; `table` sets our own counts
beside them.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.named import call, lookup, suggest

_DTYPES = ('float32', 'bfloat16', 'float16', 'float64')


class Row(NamedTuple):
    """A network of `table`: our counts (`canon.nn.trace`), and what is published; None where nothing is."""

    name: str
    arguments: dict[str, Any]
    size: int
    parameters: int
    multiply_adds: int
    field: tuple[int, int]
    stride: tuple[int, int]
    published_parameters: int | None
    published_multiply_adds: float | None
    top1: float | None
    top5: float | None
    source: str | None


def published(
    name: str,
    parameters: int | None,
    top1: float | None,
    top5: float | None,
    source: str | None,
    multiply_adds: float | None = None,
    size: int = 224,
    channels: int = 3,
    **arguments: Any,
) -> dict[str, Any]:
    """A row of a `TABLE`: what `source` says of the constructor `name` with `arguments`, None for what it does not.

    top1, top5: per cent. multiply_adds: of one image. size, channels: of the images.
    """
    return dict(
        name=name,
        arguments=arguments,
        size=size,
        channels=channels,
        parameters=parameters,
        multiply_adds=multiply_adds,
        top1=top1,
        top5=top5,
        source=source,
    )


def make(name: str, where: str = 'model', **arguments):
    """The linen module that `canon.models.<name>(**arguments)` builds; raises UsageError with the near names."""
    dtype = arguments.get('dtype')
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise UsageError(f'{where}.dtype={dtype!r} is not a type that networks compute in{suggest(dtype, _DTYPES)}')
    return call(lookup('canon.models', name, 'model'), arguments, where)


def table(match: str = '') -> list[Row]:
    """A row for every published result of our networks of that name, oldest families first.

    match: how a constructor or its module begins ('resnet', 'resnet.resnet50'), or else any part of a name.
    Raises UsageError where there is none.
    """
    return list(rows(match))


def rows(match: str = '') -> Iterator[Row]:
    """`table`, each row when it is counted."""
    from canon.nn.trace import trace_network

    every = sorted(published_rows(), key=_age)
    starting = [row for row in every if any(word.startswith(match) for word in (row['name'], *row['name'].split('.')))]
    found = starting or [row for row in every if match in row['name']]  # 'lenet' is no part of GoogLeNet
    if not found:
        words = {word for row in every for word in row['name'].split('.')}
        raise UsageError(f'no network is called {match!r}{suggest(match, words)}')
    counts: dict[str, Any] = {}
    for row in found:
        what = (row['name'], row['arguments'], row['size'], row['channels'])
        if str(what) not in counts:
            name, arguments, size, channels = what
            counts[str(what)] = trace_network(make(name, **arguments), size, channels)
        ours = counts[str(what)]
        published = (row[key] for key in ('parameters', 'multiply_adds', 'top1', 'top5', 'source'))
        yield Row(row['name'], row['arguments'], row['size'], *ours, *published)


def published_rows() -> Iterator[dict[str, Any]]:
    """The rows of the `TABLE`s of all modules, as `published` makes them."""
    for entry in pkgutil.iter_modules(__path__):
        yield from getattr(importlib.import_module(f'{__name__}.{entry.name}'), 'TABLE', ())


_FAMILIES = (
    'lenet', 'alexnet', 'cuda_convnet', 'zfnet', 'nin', 'vgg', 'googlenet', 'inception', 'resnet', 'mobilenet'
)  # fmt: skip


def _age(row: dict[str, Any]) -> int:
    family = row['name'].partition('.')[0]
    return _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES)
