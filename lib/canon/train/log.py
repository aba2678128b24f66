"""The logs of a run: rows of metrics on disk, one live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import struct
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from canon.errors import CanonError, UsageError
from canon.train.workdir import replace_text

SUMMARY = 'summary'  # begins the names of metrics of the run as a whole (`Experiment.summarise`)

_log = logging.getLogger('canon')


class MetricsWriter:
    """Appends rows to `metrics.jsonl`, and the same values to TensorBoard events (without TensorFlow).

    Rows that were written after the checkpoint from which the run resumes are dropped, for they are written again:
    those of later steps, and of its own step the evaluations that it does not know.
    """

    def __init__(
        self, workdir: Path, resume_at: int = 0, tensorboard: bool = True, measured: Mapping[str, int] | None = None
    ):
        """Opens the log of a run.

        Args:
          workdir: the folder of the run.
          resume_at: the step of the checkpoint that the run resumes from, 0 for none.
          tensorboard: whether events are written, too.
          measured: {evaluator: step of its newest evaluation} in the checkpoint; None keeps all rows of `resume_at`.
        """
        self.path = workdir / 'metrics.jsonl'
        known_rows = [row for row in read_rows(self.path) if _is_known(row, resume_at, measured)]
        with _named_errors(self.path):
            if self.path.exists():
                replace_text(self.path, ''.join(_line(row) for row in known_rows))
            self._file = self.path.open('a')
        # An event file cannot be edited; a session that starts at a step makes TensorBoard forget later events.
        resumed = any(workdir.glob('events.out.tfevents.*'))
        purged = [row for row in known_rows if row['step'] == resume_at] if resumed else []
        self._events = _Events(workdir, resume_at if resumed else None, purged) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a row; once this returns, a kill does not lose it. Raises CanonError if it cannot be written."""
        with _named_errors(self.path):
            self._file.write(_line({'step': step, **values}))
            self._file.flush()  # to the operating system, which a kill does not stop
            if self._events is not None:
                self._events.write(step, values)

    def write_picture(self, name: str, png: bytes, step: int) -> None:
        """Adds the bytes of a PNG file to the TensorBoard events."""
        if self._events is not None:
            with _named_errors(self.path):
                self._events.write_picture(name, png, step)

    def close(self) -> None:
        """Closes the files."""
        with contextlib.suppress(OSError):  # every row was flushed, or raised when it was written
            self._file.close()
        if self._events is not None:
            self._events.close()


class _Events:
    """A TensorBoard event file, written with each row: a writing thread would delay rows, and fail unnoticed."""

    def __init__(self, folder: Path, purge_from: int | None, repeated: Iterable[Mapping[str, Any]]):
        """Makes events of earlier files void from step `purge_from` on, except for the `repeated` rows."""
        self._folder, self._purge_from, self._repeated = folder, purge_from, list(repeated)
        self._writer = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, scalar(name, value))
        self._open().flush()

    def write_picture(self, name: str, png: bytes, step: int) -> None:
        from tensorboardX.summary import image

        # An event holds a PNG: the file itself takes the place of one pixel that tensorboardX encodes.
        summary = image(name, np.zeros((1, 1, 3), np.uint8), dataformats='HWC')
        picture = summary.value[0].image
        picture.encoded_image_string = png
        picture.width, picture.height = struct.unpack('>II', png[16:24])  # of the header
        self._add(step, summary)
        self._open().flush()

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _open(self):
        """Returns the writer, and makes its file the first time: a run that writes nothing leaves none."""
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            # TensorBoard reads files in the order of their names, and two may be begun within one second.
            suffix = f'.{time.time_ns()}.{os.getpid()}'
            self._writer = EventsWriter(str(self._folder / 'events'), suffix)
            if self._purge_from is not None:
                self._purge(self._purge_from)
        return self._writer

    def _purge(self, step: int) -> None:
        messages = _messages()
        start = messages.SessionLog(status=messages.SessionLog.START)
        self._open().write_event(messages.Event(wall_time=time.time(), step=step, session_log=start))
        for row in self._repeated:
            self.write(row['step'], {name: value for name, value in row.items() if name != 'step'})

    def _add(self, step: int, summary) -> None:
        self._open().write_event(_messages().Event(wall_time=time.time(), step=step, summary=summary))


def _messages() -> Any:
    """Returns the module of event messages; protobuf makes its classes at import, where no type checker sees them."""
    from tensorboardX.proto import event_pb2

    return event_pb2


@contextlib.contextmanager
def _named_errors(path: Path) -> Generator[None]:
    """Turns the error of a failed write, which names no file, into a CanonError that does."""
    try:
        yield
    except OSError as error:
        why = 'the disk is full; free some space and run again to resume' if error.errno == ENOSPC else error.strerror
        raise CanonError(f'{path} cannot be written: {why}') from error


def _is_known(row: Mapping[str, Any], step: int, measured: Mapping[str, int] | None) -> bool:
    """Returns whether the checkpoint of `step` knows a row: all of earlier steps, and what it has measured."""
    if row['step'] != step or measured is None:
        return row['step'] <= step
    evaluators = [name.removesuffix('/seconds') for name in row if name.endswith('/seconds')]
    return all(measured.get(name, 0) >= step for name in evaluators)


def _line(row: Mapping[str, Any]) -> str:
    """Returns a row as JSON, with null for NaN and infinity, which JSON lacks."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite, allow_nan=False) + '\n'


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a `metrics.jsonl`, with NaN for null.

    Damaged lines, such as the last one after a kill, are left out; a warning counts those before the last.
    """
    try:
        lines = path.read_text(errors='replace').splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}') from error
    rows, damaged = [], 0
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        else:
            damaged += number < len(lines)
    if damaged:
        _log.warning('%s: %d damaged lines are left out', path, damaged)
    return rows


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get('step')) is not int:
        return None
    values = {name: math.nan if value is None else value for name, value in row.items()}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


class Progress:
    """One live line (step, loss, accuracy, rate, time left) on a terminal, otherwise a plain line per log row."""

    def __init__(self, steps: int, start: int, quiet: bool = False):
        self.steps, self.quiet = steps, quiet
        self._begin, self._start = time.perf_counter(), start
        self._bar = None
        # A pipe or a log file gets plain lines: a live line would fill it with control characters.
        if not quiet and sys.stderr.isatty():
            form = '{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]{postfix}'
            self._bar = tqdm(
                total=steps, initial=start, unit=' steps', bar_format=form, dynamic_ncols=True, leave=False
            )

    def restart_clock(self, step: int) -> None:
        """Measures the rate from here on: what came before was compilation."""
        self._begin, self._start = time.perf_counter(), step
        if self._bar is not None:
            self._bar.unpause()  # tqdm's own clock

    def advance(self, step: int) -> None:
        """Moves the live line to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def show_row(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the newest training metrics."""
        text = _short(values)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif not self.quiet:
            # Since the start of this process: a resumed run does not count the steps before.
            rate = (step - self._start) / max(time.perf_counter() - self._begin, 1e-9)
            left = (self.steps - step) / rate if rate > 0 else float('inf')
            print(f'step {step}/{self.steps}  {text}  {rate:.1f} steps/s  {_clock(left)} left', flush=True)

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif not self.quiet:
            print(text, flush=True)

    def close(self) -> None:
        """Removes the live line."""
        if self._bar is not None:
            self._bar.close()


def _short(values: Mapping[str, float]) -> str:
    """Returns the metrics of the whole run, `train/loss`, but not `train/adam/loss`: there may be many of those."""
    hidden = ('step_seconds', 'data_seconds', 'grad_norm')
    shown = {k.rpartition('/')[2]: v for k, v in values.items() if not k.endswith(hidden) and k.count('/') == 1}
    shown = {'lr' if name == 'learning_rate' else name: value for name, value in shown.items()}
    return ' '.join(f'{name} {value:.4g}' for name, value in shown.items())


def _clock(seconds: float) -> str:
    if seconds == float('inf'):
        return '?'
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'
