"""Guards of a run: a soft stop on SIGTERM and Ctrl-C, and a watchdog over steps that hang."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from pathlib import Path

import jax

from canon.train.settings import WatchdogSettings


class Stopper:
    """Turns SIGTERM and the first Ctrl-C into `is_stopping(step)`, so that the run saves before it ends.

    A second Ctrl-C interrupts at once. In a job of several processes all must save the same step: JAX's preemption
    service receives the SIGTERM and agrees on one. Outside the main thread (a worker of a notebook) signals keep their
    handlers.
    """

    def __init__(self):
        self._received = False
        self._interrupted = False
        self._handlers = {}

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            # SIGTERM belongs to the preemption service in a job of several processes.
            numbers = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGTERM, signal.SIGINT]
            self._handlers = {s: signal.signal(s, self._handle) for s in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if self._received and number == signal.SIGINT:
            self._interrupted = True
            raise KeyboardInterrupt
        self._received = True
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which the preemption service receives

    def is_stopping(self, step: int) -> bool:
        """Returns whether the run is to save and end at `step`; all processes of a job must call it at each step."""
        if self._interrupted:  # Python swallows what is raised in a finaliser, which may run anywhere
            raise KeyboardInterrupt
        if jax.process_count() == 1:
            return self._received
        from jax.experimental import multihost_utils

        # Without the preemption service (its flag is off) this is False, and SIGTERM ends the process at once.
        with contextlib.suppress(RuntimeError):
            return multihost_utils.reached_preemption_sync_point(step)
        return False


class Watchdog:
    """Dumps the stacks of all threads to stderr and to `stacks.txt` when a step takes many times the median."""

    def __init__(self, workdir: Path, settings: WatchdogSettings):
        self._path, self._settings = workdir / 'stacks.txt', settings
        # The last hundred steps: a step becomes slower or faster as the data change.
        self._times: deque[float] = deque(maxlen=101)
        self._last: float | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()

    def beat(self) -> None:
        """Notes the end of a step."""
        now = time.monotonic()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now

    def resume(self) -> None:
        """Notes the beginning of a step, after a rest."""
        self._last = self._last or time.monotonic()

    def rest(self) -> None:
        """Stops watching until the next step: a compilation, an evaluation or a save may take any time."""
        self._last = None

    def limit(self) -> float | None:
        """Returns the seconds that the present step may take; None until a median is known."""
        if len(self._times) < 5:
            return None
        # The median, since a few steps are slow without hanging: the disk, another job on the machine.
        return max(self._settings.factor * statistics.median(tuple(self._times)), self._settings.least)

    def _watch(self) -> None:
        # Often enough to dump within a quarter of the shortest limit, rarely enough to cost nothing.
        while not self._end.wait(min(self._settings.least / 4, 5.0)):
            last, limit = self._last, self.limit()
            if last is not None and limit is not None and time.monotonic() - last > limit:
                self._dump(time.monotonic() - last)
                self._last = None  # one dump per hang

    def _dump(self, seconds: float) -> None:
        title = f'watchdog: a step has taken {seconds:.0f} s, the median is {statistics.median(self._times):.3g} s'
        print(f'{title}; stacks in {self._path}', file=sys.stderr, flush=True)
        with self._path.open('a') as file:
            file.write(title + '\n')
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        with contextlib.suppress(Exception):  # a replaced stderr may have no file descriptor
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
