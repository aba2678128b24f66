"""Signals, parents and OpenCV threads of the threads and processes that prepare batches.

Ctrl-C and a scheduler's SIGTERM reach the whole group of processes. The run responds by saving a checkpoint and may
still need its readers; they end when it closes them, or when it has died.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Generator
from multiprocessing import connection, resource_tracker
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_lock = threading.Lock()
_users: list[int] = []  # OpenCV's number of threads as each user of `single_threaded_opencv` found it


@contextlib.contextmanager
def signals_held() -> Generator[None]:
    """Blocks SIGINT and SIGTERM in this thread and in the processes that it starts meanwhile.

    A reader imports for seconds before it can ignore them itself.
    """
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _import_opencv() -> Any:
    """Returns the module, or None if it is not installed: then no transform can use it either."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


@contextlib.contextmanager
def single_threaded_opencv() -> Generator[None]:
    """Makes OpenCV compute in the calling thread: its own threads would contend with those that prepare batches.

    The setting belongs to the process. It is restored when the last concurrent user is done.
    """
    cv2 = _import_opencv()
    if cv2 is None:
        yield
        return
    with _lock:
        _users.append(cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _lock:
            before = _users.pop()  # the first user's entry is popped last
            if not _users:
                cv2.setNumThreads(before)


def close_at_exit(iterator: Generator) -> None:
    """Closes a generator that is still open when the interpreter exits, while the modules that it uses exist."""
    weakref.finalize(iterator, _close, weakref.ref(iterator))


def _close(reference: weakref.ref) -> None:
    iterator = reference()
    if iterator is not None:  # None: it has been collected, which closes it
        with contextlib.suppress(ValueError):  # a daemon thread is reading it
            iterator.close()


def prepare_worker(index: int, count: int) -> None:
    """Prepares a reader process: it ignores the run's signals, ends with its parent, and has one OpenCV thread."""
    if cv2 := _import_opencv():
        cv2.setNumThreads(1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    # A parent that is killed cannot close its readers, which would keep its memory and its files for ever.
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Exits when the parent's end of a pipe closes, even if it is killed; the tracker frees shared memory."""
    connection.wait([sentinel])
    os._exit(1)
