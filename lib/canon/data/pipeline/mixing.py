"""Several data sets in one run: `Interleaved` takes each batch from one of them, `Zipped` takes rows from all.

Both are functions of (seed, step) like every other data, so that runs resume bitwise anywhere and any number of
processes may share a batch.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from canon.data.pipeline import keys
from canon.data.pipeline.batches import ENDLESS, prefetch, process_rows
from canon.errors import UsageError
from canon.named import Count, NonNegative, Range

_DRAWS = 1 << 16  # steps whose parts are drawn at once: counting the earlier draws of a part stays cheap


class Interleaved:
    """Training batches without end, each from one of `parts`: one source, image size or bucket of lengths per step.

    The batches that a part contributes are its own, in order: part[0], part[1], ... The parts take turns, or each step
    draws one of them with the probabilities `weights`.

        >>> import numpy as np
        >>> from canon.data import Arrays, Batches
        >>> words, digits = Batches(Arrays({'x': np.arange(9)}), 3), Batches(Arrays({'x': np.arange(4)}), 2)
        >>> [len(batch['x']) for batch, _ in zip(Interleaved([words, digits], counts=(2, 1)).iterate(), range(6))]
        [3, 3, 2, 3, 3, 2]
    """

    def __init__(
        self,
        parts: Sequence[Any],
        counts: Sequence[Count] | None = None,
        weights: Sequence[NonNegative] | None = None,
        seed: Annotated[int, Range(0)] = 0,
        shuffled: bool = False,
        batch_size: Count | None = None,
        threads: Annotated[int, Range(0)] = 2,
        workers: Annotated[int, Range(0)] = 0,
        aligned: bool = False,
    ):
        """
        Args:
          parts: endless data (`Batches`, `Generated`, ...). Their own threads and workers are not used.
          counts: batches of each part in one round of turns. If None, and if there are no `weights`, a round is an
            epoch of every part: ceil(num_examples / batch_size) batches of each.
          weights: draw the part of each step at random, in proportion to these, instead of taking turns.
          seed: of the draws and of shuffled rounds; the parts have seeds of their own.
          shuffled: permute the turns within each round; otherwise part 0 has its turns first, then part 1, ...
          batch_size: the one by which lengths and throughput are computed. If None, the mean over the steps, rounded to
            a multiple of the greatest common divisor of the parts' sizes.
          threads: threads that prepare batches ahead; 0 prepares each batch when it is requested.
          workers: processes that prepare batches ahead, instead of threads.
          aligned: read every part at the number of the step. Parts with the same examples and seed, which differ by
            their transforms, then share one order: an epoch is one pass.

        Raises:
          UsageError: there are no parts, both counts and weights, or not one of them per part; the weights sum to 0; or
            rounds are epochs and a part does not know its size.
        """
        self.parts, self.seed, self.shuffled, self.aligned = tuple(parts), seed, shuffled, aligned
        self.threads, self.workers = threads, workers
        for name, values in (('counts', counts), ('weights', weights)):
            if not self.parts or (values is not None and len(values) != len(self.parts)):
                raise UsageError(f'Interleaved: {name}={values} must have one number for each of {len(parts)} parts')
        if counts is not None and weights is not None:
            raise UsageError('Interleaved: parts take turns by counts or are drawn by weights, not both')
        if weights is not None and not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
            raise UsageError(f'Interleaved: weights={tuple(weights)} must not be negative, and one must be above 0')
        sizes: list[Any] = [getattr(part, 'batch_size', None) for part in self.parts]
        examples: list[Any] = [getattr(part, 'num_examples', None) for part in self.parts]
        epochs = counts is None and weights is None
        if epochs:
            if None in sizes or None in examples:
                raise UsageError('Interleaved: a part does not know its num_examples; give counts or weights')
            counts = [-(-n // size) for n, size in zip(examples, sizes, strict=True)]
        if counts is not None and min(counts) < 1:
            raise UsageError(f'Interleaved: counts={tuple(counts)} must be at least 1 each')
        self._counts = tuple(counts or ())
        self._weights = tuple(float(w) for w in weights or ())
        self.batch_size: Any = batch_size or _mean_size(sizes, self._counts or self._weights)
        self.num_examples: Any = None if None in examples else examples[0] if aligned else sum(examples)
        if epochs and not aligned:
            self.num_examples = sum(self._counts) * self.batch_size  # an epoch is then a round, exactly

    @property
    def steps_per_epoch(self) -> float:
        """Steps of a round where a round is an epoch of every part; otherwise those that draw as many examples."""
        # A whole number where it is one, so that '1 epoch' is an exact number of steps.
        exact, rest = divmod(self.num_examples, self.batch_size)
        return self.num_examples / self.batch_size if rest else exact

    def for_process(self, index: int, count: int) -> Interleaved:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        rows = copy.copy(self)
        rows.parts = tuple(part.for_process(index, count) for part in self.parts)
        return rows

    def locate(self, step: int) -> tuple[int, int]:
        """Returns which part has the batch of `step`, and which of that part's batches it is."""
        if step < 0:
            raise IndexError(f'step {step} is negative')
        part, number = self._find_turn(step)
        return part, step if self.aligned else number

    def _find_turn(self, step: int) -> tuple[int, int]:
        """Returns the part of a step, and how often it had its turn before."""
        if self._weights:
            block, place = divmod(step, _DRAWS)
            order = _draw_parts(self._weights, self.seed, block)
            part = int(order[place])
            # Random access without a state: the earlier draws of the part are counted, whole blocks from a cache.
            earlier = sum(_count_draws(self._weights, self.seed, b)[part] for b in range(block))
        else:
            rounds, place = divmod(step, sum(self._counts))
            order = _shuffle_round(self._counts, self.seed, rounds) if self.shuffled else _make_round(self._counts)
            part = int(order[place])
            earlier = rounds * self._counts[part]
        return part, int(earlier) + int((order[:place] == part).sum())

    def __getitem__(self, step: int) -> Any:
        part, number = self.locate(int(step))
        return self.parts[part][number]

    def iterate(self, start: int = 0) -> Iterator[Any]:
        """Yields self[start], self[start + 1], ..., prepared ahead."""
        return prefetch(self, start, ENDLESS, self.threads, self.workers)


class Concatenated:
    """Evaluation batches of several data sets, or of images of several sizes, one after the other.

    Each part is an evaluation of its own (`Once`), so that its last batch may have rows of padding.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        threads: Annotated[int, Range(0)] = 2,
        workers: Annotated[int, Range(0)] = 0,
    ):
        """
        Args:
          parts: finite data of one batch size. Their own threads and workers are not used.
          threads: threads that prepare batches ahead; 0 prepares each batch when it is requested.
          workers: processes that prepare batches ahead, instead of threads.

        Raises UsageError if there are no parts, or their batch sizes differ.
        """
        sizes = {part.batch_size for part in parts}
        if len(sizes) != 1:
            raise UsageError(f'Concatenated: the parts need one batch size, not {sorted(sizes) or "no parts"}')
        self.parts, self.threads, self.workers = list(parts), threads, workers
        self.batch_size, self.num_examples = sizes.pop(), sum(part.num_examples for part in parts)

    def for_process(self, index: int, count: int) -> Concatenated:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        rows = copy.copy(self)
        rows.parts = [part.for_process(index, count) for part in self.parts]
        return rows

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Any:
        place = index
        for part in self.parts:
            if 0 <= place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(f'batch {index} of {len(self)}')

    def iterate(self, start: int = 0) -> Iterator[Any]:
        """Yields self[start], ..., self[len(self) - 1], prepared ahead."""
        return prefetch(self, start, len(self), self.threads, self.workers)


class Zipped:
    """Training batches without end that hold rows of several data sets: such as two domains.

    A batch is {name: batch of that part}. Joined, it is one batch: the fields of all parts are concatenated, in the
    order of `parts`, and a further field tells the rows apart.

        >>> import numpy as np
        >>> from canon.data import Arrays, Batches
        >>> parts = {name: Batches(Arrays({'x': np.full(9, i)}), 2) for i, name in enumerate(('source', 'target'))}
        >>> Zipped(parts)[0]['target']['x'].tolist()
        [1, 1]
        >>> {name: x.tolist() for name, x in Zipped(parts, join='domain')[0].items()}
        {'x': [0, 0, 1, 1], 'mask': [True, True, True, True], 'domain': [0, 0, 1, 1]}
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        join: str | None = None,
        epoch: str | None = None,
        threads: Annotated[int, Range(0)] = 2,
        workers: Annotated[int, Range(0)] = 0,
    ):
        """
        Args:
          parts: endless data by name. Their own threads and workers are not used.
          join: concatenate the parts' fields, which must be the same, and add this field: int32 [B], the number of the
            part that a row is from. None keeps the parts' batches apart.
          epoch: the part whose epochs are those of the whole; the first if None.
          threads: threads that prepare batches ahead; 0 prepares each batch when it is requested.
          workers: processes that prepare batches ahead, instead of threads.

        Raises UsageError if there are no parts, if `epoch` is not one of them, or if a joined part has no batch size.
        """
        self.parts, self.join, self.threads, self.workers = dict(parts), join, threads, workers
        sizes: list[Any] = [getattr(part, 'batch_size', None) for part in self.parts.values()]
        if not self.parts or (epoch is not None and epoch not in self.parts):
            raise UsageError(f'Zipped: epoch={epoch!r} must name one of the parts {tuple(self.parts)}')
        if join is not None and None in sizes:
            raise UsageError(f'Zipped: batches of {dict(zip(self.parts, sizes, strict=True))} rows cannot be joined')
        self.batch_size: Any = None if None in sizes else sum(sizes)
        leader = self.parts[epoch if epoch is not None else next(iter(self.parts))]
        examples = getattr(leader, 'num_examples', None)
        self.num_examples: Any = None
        if self.batch_size and examples is not None:
            # The steps of an epoch are those of the leading part; a step draws more rows than that part's.
            self.num_examples = round(examples / leader.batch_size * self.batch_size)
        self._process = (0, 1)

    def for_process(self, index: int, count: int) -> Zipped:
        """Returns the same data whose batches hold only the rows of process `index` of `count`.

        Parts that are not joined are cut one by one. Joined, the whole batch is cut, so a process may read some parts
        only.
        """
        if self.join is not None:
            process_rows(self.batch_size, index, count)
        rows = copy.copy(self)
        rows._process = index, count
        return rows

    def __getitem__(self, step: int) -> dict[str, Any]:
        if self.join is None:
            return {name: part.for_process(*self._process)[step] for name, part in self.parts.items()}
        rows = process_rows(self.batch_size, *self._process)
        pieces, first = [], 0
        for number, part in enumerate(self.parts.values()):
            # The rows that this process and the part have in common, counted within the part.
            low, high = (min(max(row - first, 0), part.batch_size) for row in (rows.start, rows.stop))
            if low < high:
                batch = _read_rows(part, step, low, high)
                if self.join in batch:
                    raise UsageError(f'Zipped: join={self.join!r} is a field of the parts already; take another name')
                pieces.append({**batch, self.join: np.full(high - low, number, np.int32)})
            first += part.batch_size
        if any(piece.keys() != pieces[0].keys() for piece in pieces):
            raise UsageError(
                f'Zipped: joined parts need the same fields, not {" and ".join(map(str, map(list, pieces)))}'
            )
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def iterate(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yields self[start], self[start + 1], ..., prepared ahead."""
        return prefetch(self, start, ENDLESS, self.threads, self.workers)


def _read_rows(part: Any, step: int, low: int, high: int) -> Any:
    """Reads rows [low, high) of a part's batch."""
    size = high - low
    # Equal pieces are read by `for_process`, which does not read the others.
    if part.batch_size % size == 0 and low % size == 0:
        return part.for_process(low // size, part.batch_size // size)[step]
    return {name: values[low:high] for name, values in part.for_process(0, 1)[step].items()}


def _mean_size(sizes: Sequence[Any], shares: Sequence[float]) -> int | None:
    if None in sizes:
        return None
    unit = math.gcd(*sizes)
    mean = sum(size * share for size, share in zip(sizes, shares, strict=True)) / sum(shares)
    return max(round(mean / unit), 1) * unit


@functools.lru_cache(maxsize=16)
def _make_round(counts: tuple[int, ...]) -> np.ndarray:
    return np.repeat(range(len(counts)), counts)


@functools.lru_cache(maxsize=16)  # a round of a large corpus takes milliseconds to permute, and each step needs it
def _shuffle_round(counts: tuple[int, ...], seed: int, rounds: int) -> np.ndarray:
    return keys.stream('interleaved turns', seed, rounds).permutation(_make_round(counts))


@functools.lru_cache(maxsize=16)
def _draw_parts(weights: tuple[float, ...], seed: int, block: int) -> np.ndarray:
    """The parts of the `_DRAWS` steps of a block, by inversion of the cumulative weights."""
    edges = np.cumsum(weights) / sum(weights)
    draws = keys.stream('interleaved draws', seed, block).random(_DRAWS)
    return np.searchsorted(edges[:-1], draws, side='right').astype(np.int16)


@functools.cache
def _count_draws(weights: tuple[float, ...], seed: int, block: int) -> np.ndarray:
    return np.bincount(_draw_parts(weights, seed, block), minlength=len(weights))
