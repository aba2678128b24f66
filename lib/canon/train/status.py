"""`status.json`: how a run stands, for people and for commands that do not run it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from canon.train.workdir import write_status


class Status:
    """Writes `status.json`; only the first process of a job does."""

    def __init__(self, workdir: Path, steps: int, main: bool):
        """Makes the status of a run.

        Args:
          workdir: the folder of the run.
          steps: length of the run.
          main: whether this process writes.
        """
        self.step = 0  # the newest that was reported
        self._workdir, self._steps, self._main = workdir, steps, main
        self._began = time.perf_counter()

    def write(
        self,
        state: str,
        step: int | None = None,
        metrics: Mapping[str, float] = {},
        weights: str = '',
        train_seconds: float = 0.0,
        error: BaseException | None = None,
    ) -> None:
        """Writes how the run stands.

        Args:
          state: 'running', 'stopped', 'failed' or 'done'.
          step: updates made; None keeps the number that was written before.
          metrics: the newest metrics, at the end those of the weights that are handed on.
          weights: which weights these are of.
          train_seconds: time in steps, without compilation, evaluation and saves.
          error: why the run failed.

        Raises:
          CanonError: the file cannot be written.
        """
        self.step = self.step if step is None else step
        if not self._main:
            return
        write_status(
            self._workdir,
            {
                'state': state,
                'step': self.step,
                'steps': self._steps,
                'metrics': dict(metrics),
                'weights': weights,
                'train_seconds': round(train_seconds, 3),
                'seconds': round(time.perf_counter() - self._began, 3),
                # In one line; of an error without text, its class.
                'error': None if error is None else ' '.join(str(error).split()) or type(error).__name__,
            },
        )
