"""What a run says: rows of metrics on disk, one live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and the same values to TensorBoard events, without TensorFlow.

    resume_at: rows of later steps are dropped: they were written after the checkpoint that the run resumes from.
    """

    def __init__(self, workdir: Path, resume_at: int = 0, tensorboard: bool = True):
        self.path = workdir / 'metrics.jsonl'
        if self.path.exists():
            kept = [line for line in read_rows(self.path) if line['step'] <= resume_at]
            part = self.path.with_suffix('.part')
            part.write_text(''.join(json.dumps(row) + '\n' for row in kept))
            part.replace(self.path)
        self._file = self.path.open('a')
        self._events = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(workdir), purge_step=resume_at + 1 if resume_at else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({'step': step, **values}) + '\n')
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def figure(self, name: str, figure, step: int) -> None:
        if self._events is not None:
            self._events.add_figure(name, figure, step, close=False)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Progress:
    """One live line (step, loss, accuracy, rate, time left) on a terminal, else a plain line a log row."""

    def __init__(self, steps: int, start: int, quiet: bool = False):
        self.steps, self.quiet = steps, quiet
        self._begin, self._start = time.perf_counter(), start
        self._bar = None
        if not quiet and sys.stderr.isatty():
            form = '{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]{postfix}'
            self._bar = tqdm(
                total=steps, initial=start, unit=' steps', bar_format=form, dynamic_ncols=True, leave=False
            )

    def restart_clock(self, step: int) -> None:
        """Rates count from here: what came before was compilation."""
        self._begin, self._start = time.perf_counter(), step
        if self._bar is not None:
            self._bar.unpause()

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the newest training metrics."""
        text = _short(values)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif not self.quiet:
            rate = (step - self._start) / max(time.perf_counter() - self._begin, 1e-9)
            left = (self.steps - step) / rate if rate > 0 else float('inf')
            print(f'step {step}/{self.steps}  {text}  {rate:.1f} steps/s  {_clock(left)} left', flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif not self.quiet:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _short(values: Mapping[str, float]) -> str:
    """What concerns the whole: `train/loss`, not `train/adam/loss`, of which there may be many."""
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
