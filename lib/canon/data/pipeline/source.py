"""Sources: examples by number. An example is a flat dict of numpy arrays without a batch axis."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from canon.errors import UsageError

Example = dict[str, Any]
_OVERHEAD = 512  # bytes of a dict and its array headers, in addition to the pixels


class Info(NamedTuple):
    """Metadata of a source; None where unknown."""

    name: str | None = None
    split: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    total: int | None = None  # examples of the whole split of which `split` is a slice


@runtime_checkable
class Source(Protocol):
    """Examples by number. A source may also have `__getitems__(ids)`, which reads several at once, and `labels()`."""

    @property
    def info(self) -> Info: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def read_examples(source: Source, ids: Iterable[int]) -> list[Example]:
    """Reads the examples `ids` of a source, at once if it has `__getitems__`."""
    read_many = getattr(source, '__getitems__', None)
    return list(read_many(list(ids))) if read_many else [source[i] for i in ids]


def labels(source: Source, field: str = 'label') -> np.ndarray:
    """Returns the labels of all examples, [n] integers: those of `source.labels()`, or by reading every example.

    Raises UsageError where an example has no label, or one that is not an integer.
    """
    quick = getattr(source, 'labels', None)
    if quick and field == 'label':
        return np.asarray(quick())
    values = field_values(source, field)
    if not np.issubdtype(values.dtype, np.integer):
        raise UsageError(f'{source!r}: the labels of field {field!r} are {values.dtype}, not integers')
    return values.astype(np.int64)


def field_values(source: Source, field: str) -> np.ndarray:
    """Returns the values [n] of one field of all examples: numbers or texts, one per example.

    They are taken from memory, from `source.columns` {field: [n]} or from `source.labels()` where possible; otherwise
    every example is read.
    Raises UsageError where an example has no such field, or more than one value in it.
    """
    if isinstance(source, Cached):
        return field_values(source.source, field)
    quick = getattr(source, 'labels', None)
    if quick and field == 'label':
        return np.asarray(quick())
    columns = source.arrays if isinstance(source, Arrays) else getattr(source, 'columns', {})
    if field in columns:
        return np.asarray(columns[field])
    n = len(source)
    values = [
        example.get(field)
        for start in range(0, n, 1024)
        for example in read_examples(source, range(start, min(start + 1024, n)))
    ]
    if any(value is None or np.ndim(value) for value in values):
        raise UsageError(f'{source!r} has no field {field!r} with one value per example')
    return np.asarray(values)


class Arrays:
    """A source in memory: arrays by field, each with the examples on its first axis."""

    in_memory = True

    def __init__(self, arrays: Mapping[str, np.ndarray], info: Info = Info()):
        """Raises UsageError when the first axes differ or there is no array."""
        self.arrays = {field: np.asarray(array) for field, array in arrays.items()}
        lengths = {field: len(array) if array.ndim else None for field, array in self.arrays.items()}
        if not lengths or None in lengths.values() or len(set(lengths.values())) > 1:
            shown = ', '.join(f'{field}: {length}' for field, length in lengths.items())
            raise UsageError(f'{info.name or "arrays"}: the arrays need equal first axes; they have {shown or "none"}')
        self.info = info

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Example:
        return {field: array[index, ...] for field, array in self.arrays.items()}

    def labels(self) -> np.ndarray:
        """Returns the field 'label'. Raises UsageError if there is none."""
        if 'label' not in self.arrays:
            raise UsageError(f"{self!r} has no field 'label'; its fields are {', '.join(self.arrays)}")
        return self.arrays['label']

    def __repr__(self) -> str:
        return f'Arrays({self.info.name}, {self.info.split}, {len(self)} examples)'


class Cached:
    """A source that keeps each example read from another one, up to `memory_limit` bytes. It is thread-safe.

    The kept arrays are read-only: a transform that writes into one fails instead of corrupting the next epoch.
    """

    in_memory = True

    def __init__(self, source: Source, memory_limit: float = float('inf')):
        self.source, self.info = source, source.info
        self._kept: list[Example | None] = [None] * len(source)
        self._limit = self._room = memory_limit
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        cache = self._kept
        missing = [i for i in dict.fromkeys(ids) if cache[i] is None]
        if not missing:
            return [dict(cache[i]) for i in ids]  # ty: ignore[no-matching-overload]
        fresh = dict(zip(missing, read_examples(self.source, missing), strict=True))
        for i, example in fresh.items():
            self._keep(i, example)
        # A new dict each, since transforms may add fields; what did not fit into the limit is only in `fresh`.
        return [dict(cache[i] or fresh[i]) for i in ids]

    def _keep(self, index: int, example: Example) -> None:
        size = estimate_bytes(example)
        # Two threads may decode and account for the same example at once: the room is then smaller than it need be,
        # which changes no result.
        with self._lock:
            if self._kept[index] is not None or size > self._room:
                return
            self._room -= size
        for value in example.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        self._kept[index] = example

    def labels(self) -> np.ndarray:
        """Returns the labels of the source, without keeping its examples."""
        return labels(self.source)

    def __reduce__(self):
        return Cached, (self.source, self._limit)  # pickled for a worker process, which starts with an empty cache

    def __repr__(self) -> str:
        return f'Cached({self.source!r})'


class Subset:
    """Some examples of a source, in a given order."""

    def __init__(self, source: Source, ids: Iterable[int]):
        self.source, self.info, self.ids = source, source.info, tuple(int(i) for i in ids)
        self.in_memory = getattr(source, 'in_memory', False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        return self.source[self.ids[index]]

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        return read_examples(self.source, [self.ids[i] for i in ids])

    def __repr__(self) -> str:
        return f'Subset({self.source!r}, {len(self)} examples)'


def cache_if_small(source: Source, memory_limit: int) -> Source:
    """Wraps a source in `Cached` if it is not in memory already and, judging by eight examples, fits into the limit."""
    if memory_limit <= 0 or getattr(source, 'in_memory', False) or not len(source):
        return source
    # Spread over the source, since neighbours may be alike: of one class, of one camera.
    probe = np.unique(np.linspace(0, len(source) - 1, 8).astype(int)).tolist()
    size = float(np.mean([estimate_bytes(example) for example in read_examples(source, probe)]))
    return Cached(source, memory_limit) if size * len(source) <= memory_limit else source


def estimate_bytes(example: Example) -> int:
    """Estimates the bytes of memory that an example takes."""
    values = example.values()
    return _OVERHEAD + sum(len(v) if isinstance(v, bytes) else np.asarray(v).nbytes for v in values)
