"""Running text as batches for truncated backpropagation through time: B streams, cut into windows of T tokens.

The text is cut into B contiguous streams, and window w of every stream follows its window w - 1. What a model carries
from one batch to the next therefore belongs to the same rows. `first` marks the windows where the text starts again:
there the carried state has to be reset.
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

_MIN_WINDOW = 5  # tokens of a window whose length is drawn
_MAX_DEVIATIONS = 4  # by which a drawn window may exceed the mean length


class _StreamLayout:
    """The text as B streams: every token is a target once, and the token before it is its input."""

    def __init__(self, tokens: np.ndarray, batch_size: int, length: int, start: int):
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise UsageError(f'expected the tokens of a text, integers [n], got {tokens.dtype} {list(tokens.shape)}')
        self.rows = range(batch_size)[process_rows(batch_size, 0, 1)]
        if length < 1:
            raise UsageError(f'length={length}: a window has at least one token')
        if len(tokens) < batch_size:
            raise UsageError(f'{len(tokens)} tokens do not fill {batch_size} streams; lower batch_size or add text')
        self.tokens, self.start = tokens, start
        self.stride = -(-len(tokens) // batch_size)  # tokens per stream; the last one may have fewer

    def window(self, begin: int, length: int, width: int) -> Batch:
        """Returns tokens [begin, begin + length) of this process's streams, padded to `width`."""
        offsets = begin + np.arange(width)
        positions = np.asarray(self.rows)[:, None] * self.stride + offsets
        mask = (np.arange(width) < length) & (offsets < self.stride) & (positions < len(self.tokens))
        # Positions beyond the text are read at 0, and masked: the index has to be valid.
        target = np.where(mask, self.tokens[np.where(mask, positions, 0)], 0)
        # A stream continues where the previous one ends, so its first input is the last token of that one.
        previous = np.where(mask & (positions > 0), self.tokens[np.where(mask, positions - 1, 0)], self.start)
        return {
            'input': np.where(mask, previous, 0).astype(np.int32),
            'target': target.astype(np.int32),
            'mask': mask,
            'first': np.full(len(self.rows), begin == 0),
        }


class Streams:
    """Endless training batches of a text; `streams[step]` is a function of (seed, step).

    A batch is {'input', 'target': int32 [B, T], 'mask': bool [B, T], 'first': bool [B]}, where target[b, t] is the
    token after input[b, t]. The last stream may be shorter than the others and the last window shorter than T: the mask
    is false there. `first` is true for all rows in the first window of each epoch.
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
    ):
        """Cuts the text into streams.

        Args:
          tokens: integers [n].
          batch_size: B, the number of streams, of all processes together.
          length: T, the tokens of a window.
          start: the input before the first token of the text, usually the vocabulary's `eos`.
          deviation: if positive, the standard deviation of window lengths, drawn as in AWD-LSTM (Merity et al. 2018,
            section 4.1): normal with mean `length`, at least 5. Shapes stay static: T is then length + 4 deviations,
            which no length exceeds, and the mask says what is used. (The paper also scales the learning rate with the
            length; a loss divided by B * length instead of the mask's sum does the same.)
          half: the probability that a drawn length has mean `length / 2`.
          seed: of the drawn lengths; without a deviation nothing is random.

        Raises:
          UsageError: the text is shorter than the batch, or a size is not positive.
        """
        if deviation < 0 or not 0 <= half <= 1:
            raise UsageError(f'deviation={deviation} must not be negative, and half={half} must be a probability')
        self._layout = _StreamLayout(tokens, batch_size, length, start)
        self._lengths = _DrawnWindows(self._layout.stride, length, deviation, half, seed) if deviation else None
        # One width for all windows, so that the training step is compiled once.
        self.width = length + round(_MAX_DEVIATIONS * deviation)
        self.batch_size, self.length = batch_size, length
        mean = (1 - half) * length + half * length / 2 if deviation else length
        self.steps_per_epoch = self._layout.stride / mean if deviation else -(-self._layout.stride // length)

    def for_process(self, index: int, count: int) -> Streams:
        """Returns the same data whose batches hold only the streams of process `index` of `count`."""
        return _with_rows(self, index, count)

    @property
    def num_examples(self) -> int:
        """Windows per epoch, by which lengths of a run may be given in epochs; their mean if lengths are drawn."""
        return round(self.steps_per_epoch * self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f'step {step} is negative')
        if self._lengths:
            begin, length = self._lengths.window(int(step))
        else:
            begin, length = int(step) % int(self.steps_per_epoch) * self.length, self.length
        return self._layout.window(begin, length, self.width)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Yields streams[start], streams[start + 1], ... A batch takes a few slices, so nothing is prefetched."""
        step = start
        while True:
            yield self[step]
            step += 1


class StreamsOnce:
    """Evaluation batches of a text: `len(streams)` batches as of `Streams`, every token once as a target, in order.

    With batch_size 1 every token is predicted from all that precedes it, as the papers test. More streams are faster,
    and the first token of each further stream sees only the one before it.
    """

    def __init__(self, tokens: np.ndarray, batch_size: Count, length: Count, start: int = 0):
        """Arguments and errors as in `Streams`."""
        self._layout = _StreamLayout(tokens, batch_size, length, start)
        self.batch_size, self.length = batch_size, length
        self.num_examples = len(self) * batch_size

    def for_process(self, index: int, count: int) -> StreamsOnce:
        """Returns the same data whose batches hold only the streams of process `index` of `count`."""
        return _with_rows(self, index, count)

    def __len__(self) -> int:
        return -(-self._layout.stride // self.length)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f'batch {index} of {len(self)}')
        return self._layout.window(index * self.length, self.length, self.length)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Yields streams[start], ..., streams[len(streams) - 1]."""
        return (self[i] for i in range(start, len(self)))


def _with_rows(streams, index: int, count: int):
    part = copy.copy(streams)
    part._layout = copy.copy(streams._layout)  # the tokens are shared
    part._layout.rows = range(streams.batch_size)[process_rows(streams.batch_size, index, count)]
    return part


class _DrawnWindows:
    """Windows of drawn lengths: a list that grows by epochs, each a function of (seed, epoch)."""

    def __init__(self, stride: int, length: int, deviation: float, half: float, seed: int):
        self._arguments = stride, length, deviation, half, seed
        self._windows: list[tuple[int, int]] = []
        self._epochs = 0
        self._lock = threading.Lock()  # batches may be read from several threads

    def window(self, step: int) -> tuple[int, int]:
        """Returns the offset of window `step` within its epoch, and its length."""
        with self._lock:
            # Where a window begins depends on the lengths before it, so all epochs up to that of the step are drawn,
            # also by a run that is resumed.
            while len(self._windows) <= step:
                self._windows += _draw_epoch(*self._arguments, self._epochs)
                self._epochs += 1
        return self._windows[step]


def _draw_epoch(stride, length, deviation, half, seed, epoch) -> list[tuple[int, int]]:
    rng = keys.stream('window lengths', seed, epoch)
    least, most = min(_MIN_WINDOW, length), length + round(_MAX_DEVIATIONS * deviation)
    begin, windows = 0, []
    while begin < stride:
        mean = length / 2 if rng.random() < half else length
        drawn_length = int(np.clip(int(rng.normal(mean, deviation)), least, most))
        # The last window ends with the stream.
        windows.append((begin, min(drawn_length, stride - begin)))
        begin += drawn_length
    return windows
