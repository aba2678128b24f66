"""Running text as batches for truncated backpropagation through time: B streams, cut in windows of T tokens.

Stream b is the b-th part of the text; window w of all streams follows window w - 1, so what a model carries from one
batch to the next belongs to the same rows. `first` tells when it does not: then the carry begins anew.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator

import numpy as np

from canon.data.pipeline import keys
from canon.data.pipeline.batches import Batch, process_rows
from canon.errors import UsageError
from canon.named import Count, NonNegative, Probability

_SHORTEST = 5  # tokens of a window whose length is drawn
_WIDER = 4  # standard deviations that a drawn window may be longer than T


class _Cut:
    """The text as streams: every token is a target once, and the token before it is its input."""

    def __init__(self, tokens: np.ndarray, batch_size: int, length: int, start: int, shard: tuple[int, int]):
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise UsageError(f'a text is integers [n]; these are {tokens.dtype} {list(tokens.shape)}')
        if length < 1:
            raise UsageError(f'length={length}: a window has at least one token')
        local = process_rows(batch_size, *shard)
        if len(tokens) < batch_size:
            raise UsageError(f'{len(tokens)} tokens do not fill {batch_size} streams; lower batch_size or add text')
        self.tokens, self.start = tokens, start
        self.stride = -(-len(tokens) // batch_size)
        self.rows = np.arange(batch_size)[local]

    def window(self, begin: int, length: int, width: int) -> Batch:
        """Tokens [begin, begin + length) of every stream of this process, padded to `width`."""
        offsets = begin + np.arange(width)
        places = self.rows[:, None] * self.stride + offsets
        mask = (np.arange(width) < length) & (offsets < self.stride) & (places < len(self.tokens))
        target = np.where(mask, self.tokens[np.where(mask, places, 0)], 0)
        before = np.where(mask & (places > 0), self.tokens[np.where(mask, places - 1, 0)], self.start)
        return {
            'input': np.where(mask, before, 0).astype(np.int32),
            'target': target.astype(np.int32),
            'mask': mask,
            'first': np.full(len(self.rows), begin == 0),
        }


def _with_rows(data, index, count):
    part = copy.copy(data)
    part._cut = copy.copy(data._cut)
    part._cut.rows = np.arange(data.batch_size)[process_rows(data.batch_size, index, count)]
    return part


class Streams:
    """Training batches without end; `streams[step]` is a function of (seed, step); the seed counts with `deviation`.

    A batch is {'input', 'target': int32 [B, T], 'mask': bool [B, T], 'first': bool [B]}: target[b, t] is the token
    after input[b, t]. The last stream may be shorter than the others and the last window than T: there the mask is
    false. `first` is true in the first window of each epoch, for all rows: there the carry is zero.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: Count,
        length: Count,
        start: int = 0,
        deviation: NonNegative = 0.0,
        half: Probability = 0.05,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ):
        """
        Args:
          tokens: integers [n].
          length: T, the tokens of a window.
          start: what stands before the first token of the text, the vocabulary's `eos` as a rule.
          deviation: above 0, windows have lengths drawn as AWD-LSTM draws them (Merity et al. 2018, section 4.1):
            normal with mean `length`, or with chance `half` `length / 2`, at least 5. Shapes stay static: T is then
            length + 4 deviations, which no length exceeds, and the mask says what is used. The paper's rate in
            proportion to the length is what a loss gives that is divided by B * length instead of by the mask's sum.

        Raises UsageError for a text shorter than the batch, and sizes that are none.
        """
        if deviation < 0 or not 0 <= half <= 1:
            raise UsageError(f'deviation={deviation} must not be negative, and half={half} be a probability')
        self._cut = _Cut(tokens, batch_size, length, start, shard)
        self._plan = _Drawn(self._cut.stride, length, deviation, half, seed) if deviation else None
        self.width = length + round(_WIDER * deviation)
        self.batch_size, self.length = batch_size, length
        mean = (1 - half) * length + half * length / 2 if deviation else length
        self.steps_per_epoch = self._cut.stride / mean if deviation else -(-self._cut.stride // length)

    def for_process(self, index: int, count: int) -> Streams:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        return _with_rows(self, index, count)

    @property
    def num_examples(self) -> int:
        """Windows of an epoch, so that lengths may be given in epochs; their mean where they are drawn."""
        return round(self.steps_per_epoch * self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f'step {step} is negative')
        if self._plan:
            begin, length = self._plan.window(int(step))
        else:
            begin, length = int(step) % int(self.steps_per_epoch) * self.length, self.length
        return self._cut.window(begin, length, self.width)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """streams[start], streams[start + 1], ... A batch is a few slices: nothing is prepared ahead."""
        step = start
        while True:
            yield self[step]
            step += 1


class StreamsOnce:
    """Every token of the text once as a target, in order, for evaluation: `len(streams)` batches as of `Streams`.

    batch_size: 1 gives every token all that stands before it (as the papers test); more is faster, and the first
    token of each further stream has only the one before it.
    """

    def __init__(
        self, tokens: np.ndarray, batch_size: Count, length: Count, start: int = 0, shard: tuple[int, int] = (0, 1)
    ):
        """Arguments and errors as in `Streams`."""
        self._cut = _Cut(tokens, batch_size, length, start, shard)
        self.batch_size, self.length = batch_size, length
        self.num_examples = len(self) * batch_size

    def for_process(self, index: int, count: int) -> StreamsOnce:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        return _with_rows(self, index, count)

    def __len__(self) -> int:
        return -(-self._cut.stride // self.length)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f'batch {index} of {len(self)}')
        return self._cut.window(index * self.length, self.length, self.length)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """streams[start], ... streams[len(streams) - 1]."""
        return (self[i] for i in range(start, len(self)))


class _Drawn:
    """Where the windows of drawn lengths begin: a list that grows by epochs, each a function of (seed, epoch)."""

    def __init__(self, stride: int, length: int, deviation: float, half: float, seed: int):
        self._about = stride, length, deviation, half, seed
        self._begins: list[tuple[int, int]] = []
        self._epochs = 0
        self._lock = threading.Lock()

    def window(self, step: int) -> tuple[int, int]:
        """(where window `step` begins in its epoch, its length)."""
        with self._lock:
            while len(self._begins) <= step:
                self._begins += _epoch(*self._about, self._epochs)
                self._epochs += 1
        return self._begins[step]


def _epoch(stride, length, deviation, half, seed, epoch) -> list[tuple[int, int]]:
    rng = keys.stream('window lengths', seed, epoch)
    least, most = min(_SHORTEST, length), length + round(_WIDER * deviation)
    begin, windows = 0, []
    while begin < stride:
        mean = length / 2 if rng.random() < half else length
        drawn = int(np.clip(int(rng.normal(mean, deviation)), least, most))
        windows.append((begin, min(drawn, stride - begin)))
        begin += drawn
    return windows
