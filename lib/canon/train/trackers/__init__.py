"""Trackers of experiments: what else receives the metrics of a run, next to its own `metrics.jsonl`.

`run.log=('tensorboard', 'wandb')` selects them by name. A tracker is a function of a module of this package, or
'my_package.module:function', that takes a `TrackedRun` and returns an object with the methods of `Tracker`. Its own
package is imported only then. Whatever goes wrong in a tracker is one warning, and the training goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import secrets
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from canon.errors import UsageError, describe_error
from canon.extras import find_extra
from canon.named import Catalogue
from canon.train.workdir import read_mapping, write_json

TRACKERS = Catalogue('tracker', ('canon.train.trackers',))

_WAITING = 10_000  # rows and pictures that a slow tracker may be behind; later ones are dropped
_PATIENCE = 60.0  # seconds that the end of a run waits for its trackers

_log = logging.getLogger('canon')


class TrackedRun(NamedTuple):
    """The run that a tracker receives.

    Attributes:
      workdir: its folder.
      config: its whole config, plain values.
      resume_at: the step of the checkpoint from which it resumes, 0 for none.
      kept: the rows of metrics at that step that stay valid.
    """

    workdir: Path
    config: Mapping[str, Any]
    resume_at: int = 0
    kept: Sequence[Mapping[str, Any]] = ()

    @property
    def title(self) -> str:
        """The last three parts of the folder: task, config, overrides."""
        return '/'.join(self.workdir.absolute().parts[-3:])

    def remember_id(self, tracker: str, new: str | None = None) -> str:
        """Returns the identity of this run in a tracker, so that a resumed run goes on in the same place.

        Args:
          tracker: its name.
          new: the identity of a run that has none; None draws one.
        """
        path = self.workdir / 'trackers.json'
        known = read_mapping(path)
        if not known.get(tracker):
            known[tracker] = new or secrets.token_hex(6)
            write_json(path, known)
        return str(known[tracker])

    def find_id(self, tracker: str) -> str | None:
        """Returns the identity that was remembered, or None."""
        return read_mapping(self.workdir / 'trackers.json').get(tracker)


class Tracker(Protocol):
    """The methods of a tracker. All calls come from one thread, `open` first."""

    def open(self) -> None:
        """Connects, and sends the config."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends a row of metrics; a resumed run sends rows again that it sent before, with the same values."""
        ...

    def log_picture(self, name: str, png: bytes, step: int) -> None:
        """Sends the bytes of a PNG file."""
        ...

    def close(self, state: str) -> None:
        """Ends the session; state: 'done', 'stopped' (it may be resumed) or 'failed'."""
        ...


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for a name in `run.log` that selects no tracker, or one whose package is not installed."""
    for name in names:
        module = sys.modules[TRACKERS.find(name, 'run.log').__module__]
        package = getattr(module, 'PACKAGE', None)
        if package is not None and importlib.util.find_spec(package) is None:
            extra = find_extra(module.__name__)
            raise UsageError(f"run.log: {name!r} needs the package {package}: pip install 'canon-jax[{extra}]'")


def start_trackers(names: Sequence[str], run: TrackedRun) -> list[Guarded]:
    """Returns the trackers of `run.log`; nothing is opened before the first row."""
    return [Guarded(name, TRACKERS.find(name, 'run.log')(run)) for name in names]


class Guarded:
    """A tracker that cannot delay or stop a training: a thread calls it, and its first error is a warning.

    A tracker with `immediate = True` writes local files: it is called at once, so that a kill loses nothing.
    """

    def __init__(self, name: str, tracker: Tracker):
        self._name, self._tracker = name, tracker
        self._immediate = getattr(tracker, 'immediate', False)
        self._opened = self._failed = False
        self._calls: queue.Queue = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name=f'tracker {name}', daemon=True)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._call('log', step, dict(metrics))

    def log_picture(self, name: str, png: bytes, step: int) -> None:
        self._call('log_picture', name, png, step)

    def close(self, state: str) -> None:
        """Waits a minute for what has not been sent."""
        if not self._opened or self._failed:
            return
        self._call('close', state)
        if not self._immediate:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                _log.warning('run.log: %s has not taken all metrics in %.0f s; the rest is lost', self._name, _PATIENCE)

    def _call(self, method: str, *arguments: Any) -> None:
        if self._failed:
            return
        first, self._opened = not self._opened, True
        if self._immediate:
            if first:
                self._try('open')
            self._try(method, *arguments)
            return
        if first:
            self._thread.start()
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._fail(f'it is {_WAITING} rows behind')

    def _work(self) -> None:
        self._try('open')
        method = 'open'
        while method != 'close' and not self._failed:
            method, arguments = self._calls.get()
            self._try(method, *arguments)

    def _try(self, method: str, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._tracker, method)(*arguments)
        except Exception as error:  # of any library, about any network
            self._fail(describe_error(error))

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            _log.warning('run.log: %s has failed, and the run goes on without it: %s', self._name, why)
