"""The metrics of the steps since the last log row, and the time that these steps took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np


class Window:
    """Sums of metrics between two log rows, with a clock that runs only during steps."""

    def __init__(self, names: tuple[str, ...]):
        """names: the metrics, in the order of the columns that `add` takes."""
        self.names, self.steps, self.data_seconds = names, 0, 0.0
        self._sums = np.zeros((2, len(names)))
        self._earlier = (0.0, 0)  # seconds and untimed steps before the run was resumed
        self.restart_clock()

    def restart_clock(self, untimed: int = 0) -> None:
        """Starts the clock at zero; `untimed` steps were made before, during a compilation."""
        self._spent, self._since, self._untimed = 0.0, time.perf_counter(), untimed

    def pause(self) -> None:
        """Stops the clock during an evaluation, a save or a compilation."""
        # `seconds` includes those before the run was resumed, which are kept apart.
        self._spent, self._since = self.seconds() - self._earlier[0], None

    def resume(self) -> None:
        """Lets the clock run if it is paused."""
        self._since = self._since or time.perf_counter()

    def skip_step(self) -> None:
        """Leaves out of the time per step one that is made while the clock is paused."""
        self._untimed += 1

    def seconds(self) -> float:
        """Returns the seconds that the steps took."""
        return self._earlier[0] + self._spent + (time.perf_counter() - self._since if self._since else 0.0)

    def add(self, values: np.ndarray) -> None:
        """Adds one step's (totals, weights) [2, names]."""
        self._sums += values
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric, and the seconds per step."""
        with np.errstate(invalid='ignore', divide='ignore'):  # nothing had weight: NaN
            values = dict(zip(self.names, (self._sums[0] / self._sums[1]).tolist(), strict=True))
        values['step_seconds'] = self.seconds() / max(self.steps - self._untimed - self._earlier[1], 1)
        values['data_seconds'] = self.data_seconds / self.steps
        return values

    def dump(self) -> dict[str, Any]:
        """Returns what a checkpoint between two log rows keeps, so that the next row is of all its steps."""
        return {
            'names': list(self.names),
            'sums': self._sums.tolist(),
            'steps': self.steps,
            'untimed': self._untimed + self._earlier[1],
            'seconds': self.seconds(),
            'data_seconds': self.data_seconds,
        }

    def restore(self, dumped: Mapping[str, Any] | None) -> None:
        """Continues the window that `dump` described, if its metrics are the same."""
        if dumped is not None and dumped['steps'] and tuple(dumped['names']) == self.names:
            self._sums = np.array(dumped['sums'])
            self.steps, self.data_seconds = dumped['steps'], dumped['data_seconds']
            self._earlier = (dumped['seconds'], dumped['untimed'])
