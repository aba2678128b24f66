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

from canon.train.settings import Watchdog as Settings


class Stopper:
    """Turns SIGTERM and the first Ctrl-C into `asked(step)`, so that the run saves and ends well.

    A second Ctrl-C interrupts at once. In a run of several processes all must save the same step: JAX's preemption
    service hears the SIGTERM and agrees on it. Outside the main thread (a notebook's worker) signals stay
    as they are.
    """

    def __init__(self):
        self._asked = False
        self._interrupted = False
        self._before = {}

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            wanted = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGTERM, signal.SIGINT]
            self._before = {s: signal.signal(s, self._note) for s in wanted}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self._asked and number == signal.SIGINT:
            self._interrupted = True
            raise KeyboardInterrupt
        self._asked = True
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which the preemption service hears

    def asked(self, step: int) -> bool:
        if self._interrupted:  # Python swallows what is raised in a finaliser, which may run anywhere
            raise KeyboardInterrupt
        if jax.process_count() == 1:
            return self._asked
        from jax.experimental import multihost_utils

        # Without the preemption service (its flag is off) this is False, and SIGTERM ends the process at once.
        with contextlib.suppress(RuntimeError):
            return multihost_utils.reached_preemption_sync_point(step)
        return False


class Watchdog:
    """Dumps the stacks of all threads, to stderr and to `stacks.txt`, when a step takes many times the median."""

    def __init__(self, workdir: Path, settings: Settings):
        self._path, self._settings = workdir / 'stacks.txt', settings
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
        """A step has ended."""
        now = time.monotonic()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now

    def resume(self) -> None:
        """A step begins."""
        self._last = self._last or time.monotonic()

    def rest(self) -> None:
        """Something other than a step comes now: compilation, evaluation, a save."""
        self._last = None

    def limit(self) -> float | None:
        """Seconds that the present step may take; None until a median is known."""
        if len(self._times) < 5:
            return None
        return max(self._settings.factor * statistics.median(tuple(self._times)), self._settings.least)

    def _watch(self) -> None:
        while not self._end.wait(min(self._settings.least / 4, 5.0)):
            last, limit = self._last, self.limit()
            if last is not None and limit is not None and time.monotonic() - last > limit:
                self._dump(time.monotonic() - last)
                self._last = None  # one dump a hang

    def _dump(self, seconds: float) -> None:
        title = f'watchdog: a step has taken {seconds:.0f} s, the median is {statistics.median(self._times):.3g} s'
        print(f'{title}; stacks in {self._path}', file=sys.stderr, flush=True)
        with self._path.open('a') as file:
            file.write(title + '\n')
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        with contextlib.suppress(Exception):  # a replaced stderr may have no file descriptor
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
