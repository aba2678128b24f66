"""What the threads and processes that prepare batches need of their surroundings: signals held back, one OpenCV thread.

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

import cv2

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_lock = threading.Lock()
_users: list[int] = []  # OpenCV's number of threads as each user of `single_threaded_opencv` found it


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


@contextlib.contextmanager
def single_threaded_opencv() -> Generator[None]:
    """Lets OpenCV compute in the calling thread while several threads prepare batches; its own would contend with them.

    The setting is one per process. It is put back when the last of all concurrent users is done.
    """
    with _lock:
        _users.append(cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _lock:
            before = _users.pop()  # all but the first found 1 already
            if not _users:
                cv2.setNumThreads(before)


def prepare_worker(index: int, count: int) -> None:
    """Called first in each reader process: ignores signals for the run, and ends the process with its parent."""
    cv2.setNumThreads(1)  # the processes are as many as shall compute
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Waits for the parent's end of a pipe to close, which a kill does, too; shared memory is left to the tracker."""
    connection.wait([sentinel])
    os._exit(1)
