"""Reader processes that neither signals nor the end of their parent leave in a wrong state.

Ctrl-C and a scheduler's SIGTERM reach the whole group of processes. The run answers them by saving, for which it needs
its readers; they end when it closes them, or when it is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from multiprocessing import connection, resource_tracker

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held() -> Generator[None]:
    """Holds back SIGINT and SIGTERM in this thread; processes that are started meanwhile begin with them held back.

    A reader needs seconds of imports before it can ignore them itself.
    """
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_worker(index: int, count: int) -> None:
    """Called first in each reader process: ignores signals for the run, and ends the process with its parent."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Waits for the parent's end of a pipe to close, which a kill does, too; shared memory is left to the tracker."""
    connection.wait([sentinel])
    os._exit(1)
