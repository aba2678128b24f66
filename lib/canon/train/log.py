"""The logs of a run: rows of metrics on disk, one live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

from canon.errors import CanonError, UsageError
from canon.progress import make_bar
from canon.train.trackers import TrackedRun, start_trackers
from canon.train.workdir import replace_text

SUMMARY = 'summary'  # begins the names of metrics of the run as a whole (`Experiment.summarise`)

_log = logging.getLogger('canon')


class MetricsWriter:
    """Appends rows to `metrics.jsonl`, and sends the same values to the trackers of the run.

    Rows that were written after the checkpoint from which the run resumes are dropped, for they are written again:
    those of later steps, and of its own step the evaluations that it does not know.
    """

    def __init__(
        self,
        workdir: Path,
        resume_at: int = 0,
        measured: Mapping[str, int] | None = None,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] = {},
    ):
        """Opens the log of a run.

        Args:
          workdir: the folder of the run.
          resume_at: the step of the checkpoint that the run resumes from, 0 for none.
          measured: {evaluator: step of its newest evaluation} in the checkpoint; None keeps all rows of `resume_at`.
          trackers: what else receives the rows: `run.log`.
          config: that of the run, for the trackers.
        """
        self.path = workdir / 'metrics.jsonl'
        known_rows = [row for row in read_rows(self.path) if _is_known(row, resume_at, measured)]
        with _named_errors(self.path):
            if self.path.exists():
                replace_text(self.path, ''.join(_line(row) for row in known_rows))
            self._file = self.path.open('a')
        kept = [row for row in known_rows if row['step'] == resume_at]
        self._trackers = start_trackers(trackers, TrackedRun(workdir, config, resume_at, kept))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a row; once this returns, a kill does not lose it. Raises CanonError if it cannot be written."""
        with _named_errors(self.path):
            self._file.write(_line({'step': step, **values}))
            self._file.flush()  # to the operating system, which a kill does not stop
        for tracker in self._trackers:
            tracker.log(step, values)

    def write_picture(self, name: str, png: bytes, step: int) -> None:
        """Sends the bytes of a PNG file to the trackers."""
        for tracker in self._trackers:
            tracker.log_picture(name, png, step)

    def close(self, state: str = 'done') -> None:
        """Closes the files and the trackers; state: that of the run, see `Tracker.close`."""
        with contextlib.suppress(OSError):  # every row was flushed, or raised when it was written
            self._file.close()
        for tracker in self._trackers:
            tracker.close(state)


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
            self._bar = make_bar(steps, unit='steps', start=start, delay=0.0)

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
