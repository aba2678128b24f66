"""Batches of examples by number: `Batches` for training, without end; `Once` for evaluation, each example once.

Whole batches are prepared in the background, by Python's threads or by grain's processes. A batch is a function of its
number alone, so a checkpoint holds no state of the reading.
"""

from __future__ import annotations

import collections
import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from canon.data.pipeline import order
from canon.data.pipeline.chain import (
    Mapped,
    Transform,
    apply_chain,
    apply_chain_to_batch,
    find_batched_tail,
    split_chain,
)
from canon.data.pipeline.keys import Key
from canon.data.pipeline.source import Example, Source, cache_if_small, read_examples
from canon.data.pipeline.workers import close_at_exit, prepare_worker, signals_held, single_threaded_opencv
from canon.errors import CanonError, UsageError

Batch = dict[str, np.ndarray]
ENDLESS = 1 << 40  # batches: grain needs the length of a source
_AHEAD = 4  # batches per thread


class Batches:
    """Training batches without end; `batches[step]` is a pure function of (seed, step).

    A batch is {field: [B, ...]} and 'mask', bool [B], all true. The `sampler` decides which example is at position
    p = step * B + j of the stream. Epochs follow each other without a gap, so a batch may span several and no remainder
    is dropped. After `for_process`, batches hold that process's rows of the same global batches.

        >>> from canon.data import Arrays, Batches
        >>> batches = Batches(Arrays({'x': np.arange(10)}), batch_size=4, seed=1)
        >>> batches[2]['x'].shape, (batches[7]['x'] == next(batches.iterate(7))['x']).all()
        ((4,), np.True_)
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int = 0,
        transforms: Sequence[Transform] = (),
        sampler: str | Mapping[str, Any] | order.Order = 'shuffled',
        threads: int = 2,
        workers: int = 0,
        memory_limit: int = 1 << 30,
    ):
        """
        Args:
          source: the examples.
          batch_size: B, of all processes together.
          seed: of the order and of the transforms.
          transforms: applied to each example, in order (`canon.data.transforms`).
          sampler: the order of the examples: 'shuffled', 'in_order', 'balanced' (by the field 'label'),
            `dict(name='balanced', field='domain')`, or a function of positions (`canon.data.order`).
          threads: threads that prepare batches ahead; 0 prepares each when it is requested. One is used where examples
            are in memory and all transforms take whole batches.
          workers: processes that prepare batches ahead instead, for images that are slow to decode; they cache nothing,
            and need grain.
          memory_limit: in bytes; a source that fits is decoded once and kept (by `canon.data.Cached`).

        Raises:
          UsageError: the source is empty or a mapping, the batch size or the seed is not valid, or the sampler does not
            exist.
        """
        # Processes would each fill a cache of their own, with examples that another one reads next time.
        self._rows = _Rows(source, batch_size, seed, transforms, 0 if workers else memory_limit)
        self._order = order.make_order(sampler, source, seed, batch_size)
        self.threads, self.workers = threads, workers
        self.source, self.batch_size, self.num_examples = source, batch_size, len(source)

    def for_process(self, index: int, count: int) -> Batches:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        return _with_rows(self, index, count)

    @property
    def steps_per_epoch(self) -> float:
        """Steps that draw as many examples as there are; rarely a whole number."""
        return self.num_examples / self.batch_size

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f'step {step} is negative')
        # Positions are those of the global stream, of which this process takes its rows: the batch does not depend on
        # how many processes there are.
        start, rows = int(step) * self.batch_size, self._rows.local
        ids, visits = self._order(np.arange(start + rows.start, start + rows.stop))
        batch = self._rows.read(ids.tolist(), visits.tolist())
        return {**batch, 'mask': np.ones(len(ids), bool)}

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Yields self[start], self[start + 1], ..., prepared ahead."""
        return prefetch(self, start, ENDLESS, self._rows.limit_threads(self.threads), self.workers)


class Once:
    """Evaluation batches: each example once, in order, in `len(once)` batches of B rows.

    'mask', bool [B], is false on the rows of zeros that fill up the last batch, so weighted sums are exact. The number
    of batches is the same for all processes.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        transforms: Sequence[Transform] = (),
        threads: int = 2,
        workers: int = 0,
        memory_limit: int = 1 << 30,
    ):
        """Arguments and errors are those of `Batches`. Random transforms are allowed; every pass draws the same."""
        # The seed is 0, whatever that of the run: random transforms draw the same in every evaluation of every run.
        self._rows = _Rows(source, batch_size, 0, transforms, 0 if workers else memory_limit)
        self.threads, self.workers = threads, workers
        self.source, self.batch_size, self.num_examples = source, batch_size, len(source)

    def for_process(self, index: int, count: int) -> Once:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        return _with_rows(self, index, count)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f'batch {index} of {len(self)}')
        start, rows = index * self.batch_size, self._rows.local
        ids = range(start + rows.start, min(start + rows.stop, self.num_examples))
        padding = rows.stop - rows.start - len(ids)
        # A process whose rows are all padding needs one example for their shapes.
        read = self._rows.read(ids or [0], [0] * max(len(ids), 1))
        batch = {field: _fill(values[: len(ids)], padding) for field, values in read.items()}
        return {**batch, 'mask': np.arange(len(ids) + padding) < len(ids)}

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Yields self[start], ..., self[len(self) - 1], prepared ahead."""
        return prefetch(self, start, len(self), self._rows.limit_threads(self.threads), self.workers)


def process_rows(batch_size: int, index: int, count: int) -> slice:
    """Returns which rows of a batch process `index` of `count` holds.

    Raises UsageError for a batch size that is not a positive multiple of `count`, CanonError for an index out of range.
    """
    if not 0 <= index < count:
        raise CanonError(f'there is no process {index} of {count}; they are numbered from 0')
    if batch_size < 1 or batch_size % count:
        raise UsageError(f'batch_size={batch_size} is not a positive multiple of the {count} processes')
    return slice(index * batch_size // count, (index + 1) * batch_size // count)


def _with_rows(data, index, count):
    part = copy.copy(data)
    part._rows = copy.copy(data._rows)  # the source and its cache are shared
    part._rows.local = process_rows(data.batch_size, index, count)
    return part


class _Rows:
    """Reads and transforms the examples of one process, the rows `local` of each batch."""

    def __init__(self, source, batch_size, seed, transforms, memory_limit):
        self.local = process_rows(batch_size, 0, 1)
        if isinstance(source, Mapping):
            raise UsageError(f'a source has examples by number; wrap the arrays {sorted(source)} in canon.data.Arrays')
        if not len(source):
            raise UsageError(f'{source!r} has no examples')
        if seed < 0:
            raise UsageError(f'seed={seed} is negative')
        fixed, self.transforms = split_chain(transforms)
        # What does not depend on the visit is computed once, before the cache.
        self.source = cache_if_small(Mapped(source, fixed) if fixed else source, memory_limit)
        self.seed = seed
        self.tail = find_batched_tail(self.transforms)

    def limit_threads(self, threads: int) -> int:
        # Where all is in memory and transformed by batches, a second thread only contends for Python's lock.
        return min(threads, 1) if self.tail == 0 and getattr(self.source, 'in_memory', False) else threads

    def read(self, ids: Sequence[int], visits: Sequence[int]) -> Batch:
        # One key per example and visit, not per batch: neither the order nor the neighbours change an augmentation.
        keys = [Key(self.seed, visit, i) for i, visit in zip(ids, visits, strict=True)]
        tail = self.tail
        examples = self._transform(read_examples(self.source, ids), keys, 0, tail)
        if tail < len(self.transforms) and (batch := _stack_if_alike(examples)) is not None:
            transformed = apply_chain_to_batch(self.transforms, batch, keys, tail)
            if transformed is not None:
                return transformed
            self.tail = len(self.transforms)  # other batches have the same fields: none is stacked in vain again
        return stack(self._transform(examples, keys, tail))

    def _transform(self, examples, keys, start: int, stop: int | None = None) -> list[Example]:
        if start == len(self.transforms) or stop == 0:
            return examples
        pairs = zip(examples, keys, strict=True)
        return [apply_chain(self.transforms, example, key, self.source, start, stop) for example, key in pairs]


def stack(examples: Sequence[Example]) -> Batch:
    """Stacks examples to {field: [len(examples), ...]}. Raises CanonError, which names a field whose shapes differ."""
    fields = examples[0].keys()
    if any(e.keys() != fields for e in examples):
        raise CanonError(f'examples of one batch differ in their fields: {sorted(set().union(*examples))}')
    if 'mask' in fields:
        raise CanonError("a field is called 'mask', the key that marks padding; rename it by `rename`")
    return {field: _stack([e[field] for e in examples], field) for field in fields}


def _stack_if_alike(examples: Sequence[Example]) -> Batch | None:
    """Stacks examples whose fields have the same types and shapes; others only their transforms may make alike."""
    try:
        batch = stack(examples)
    except CanonError:
        return None
    types = ({getattr(example[field], 'dtype', None) for example in examples} for field in batch)
    return batch if all(len(kinds) == 1 for kinds in types) else None


def _stack(values: list[Any], field: str) -> np.ndarray:
    try:
        # np.stack takes 14 times as long for scalars.
        return np.stack(values) if np.ndim(values[0]) else np.array(values)
    except ValueError:
        shapes = ' and '.join(sorted({str(np.shape(v)) for v in values})[:3])
        raise CanonError(f'field {field!r} has shapes {shapes} in one batch; resize, pad or drop it') from None


def _fill(values: np.ndarray, padding: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((padding, *values.shape[1:]), values.dtype)]) if padding else values


class _From:
    """Batches `start` to `stop` as a source of grain, which counts from 0."""

    def __init__(self, batches, start, stop):
        self.batches, self.start, self.stop = batches, start, stop

    def __len__(self):
        return max(self.stop - self.start, 0)

    def __getitem__(self, index):
        return self.batches[self.start + int(index)]

    def __repr__(self):
        return f'{type(self.batches).__name__} from {self.start}'


def prefetch(batches: Any, start: int, stop: int, threads: int, workers: int) -> Iterator[Any]:
    """Yields batches[start], ..., batches[stop - 1], prepared ahead by threads, or by processes (`workers`)."""
    iterator = _prefetch(batches, start, stop, threads, workers)
    close_at_exit(iterator)
    return iterator


def _prefetch(batches, start, stop, threads, workers):
    with single_threaded_opencv():
        iterator = _open_stream(batches, start, stop, threads, workers)
        try:
            for batch in _hold_signals_at_first(iterator) if workers else iterator:
                # Batches of workers are in shared memory, which is gone when they end.
                yield _copy(batch) if workers else batch
        finally:  # also after an error, so that worker processes and their shared memory go at once
            iterator.close()


def _open_stream(batches, start, stop, threads, workers):
    """Returns an iterator with `close`: of Python's threads, or of grain's processes."""
    if not workers:
        return _read_ahead(batches, range(start, stop), threads)
    import grain  # the extra `train` brings it; it imports jax, which reading a source does not need

    _parse_flags()
    # Four batches per thread are held ready, so that one that is slow to read does not stop the device.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD * threads)
    stream = grain.MapDataset.source(_From(batches, start, stop)).to_iter_dataset(options)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return iter(stream.mp_prefetch(options, worker_init_fn=prepare_worker))


def _read_ahead(batches, numbers, threads):
    """Yields batches[i] for all numbers i, in order, while threads prepare the next ones; 0 threads prepare none.

    grain's threads do the same at twice the cost (0.24 instead of 0.10 ms per batch), which counts in steps of 8 ms.
    """
    if not threads:
        yield from (batches[number] for number in numbers)
        return
    waiting = iter(numbers)
    with futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque(
            pool.submit(batches.__getitem__, i) for i in itertools.islice(waiting, _AHEAD * threads)
        )
        try:
            while pending:
                batch = pending.popleft().result()
                pending.extend(pool.submit(batches.__getitem__, i) for i in itertools.islice(waiting, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(batch: Any) -> Any:
    return {name: _copy(value) for name, value in batch.items()} if isinstance(batch, Mapping) else np.array(batch)


def _hold_signals_at_first(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """Yields from an iterator whose processes start with its first element, and inherit the blocked signals."""
    with signals_held():
        first = next(iterator, None)
    if first is not None:
        yield first
        yield from iterator


def _parse_flags():
    """Marks absl's flags as parsed, for notebooks and tests: grain's workers read them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
