"""A stage that computes: named artefacts, each of which is complete or absent, in a folder like that of a training."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from canon.errors import CanonError, UsageError
from canon.progress import make_bar
from canon.train import shard
from canon.train.evaluation import Interrupted
from canon.train.guard import Stopper
from canon.train.log import MetricsWriter, Progress
from canon.train.session import Fitted
from canon.train.status import Status
from canon.train.types import Config
from canon.train.workdir import describe_run, lock_workdir, open_workdir, read_mapping

FOLDER = 'artefacts'
_SECONDS_BETWEEN_LINES = 10.0


class Artefacts:
    """The files that a stage computes, below `artefacts/` in its folder."""

    def __init__(self, folder: Path, say: Callable[[str], None], is_stopping: Callable[[], bool], quiet: bool = False):
        """Makes an empty or partly filled folder.

        Args:
          folder: the folder of the artefacts.
          say: shows a line of text.
          is_stopping: whether the computation is to end.
          quiet: shows no live line, which otherwise takes the place of lines on a terminal.
        """
        self.folder = folder
        self._say, self._is_stopping = say, is_stopping
        self._name, self._shown, self._quiet = '', time.monotonic(), quiet
        self._bar = None

    def compute(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Returns the path of an artefact, which is computed unless an earlier call has done it.

        >>> artefacts.compute('ridge.npz', lambda path: np.savez(path, weights=fit_ridge(features)))  # doctest: +SKIP

        Args:
          name: of a file or folder.
          write: writes it to the path that it is given, in a temporary folder; the complete artefact is then moved.

        Raises:
          CanonError: `write` has written nothing.
        """
        if not name or Path(name).name != name or name.startswith('.'):
            raise UsageError(f'{name!r} is not a name for an artefact; give a plain file name')
        path, part = self.folder / name, self.folder / '.part'
        if path.exists():
            return path
        shutil.rmtree(part, ignore_errors=True)  # what a kill left: half an artefact is computed again
        part.mkdir(parents=True)
        self._name, began = name, time.perf_counter()
        self._say(f'computing {name} ...')
        write(part / name)
        self._close_bar()
        if not (part / name).exists():
            raise CanonError(f'{path}: nothing was written')
        os.replace(part / name, path)  # atomic, because both are on one file system
        shutil.rmtree(part, ignore_errors=True)
        self._say(f'computed {name} in {time.perf_counter() - began:.1f} s')
        return path

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def require_space(self, needed: int, what: str) -> None:
        """Raises CanonError unless the disk has room for so many bytes of `what`: before hours of work, not after."""
        free = shutil.disk_usage(self._find_parent()).free
        if needed > free:
            raise CanonError(
                f'{what} take {needed:,} bytes, and {self.folder} has {free:,} free; free some, or give a --workdir on '
                'another disk. What is complete stays, and the same command continues'
            )

    def _find_parent(self) -> Path:
        """Returns the folder, or the nearest of those above that exists."""
        return next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())

    def report(self, done: int, total: int) -> None:
        """Shows progress, on a pipe at most every ten seconds; raises Interrupted if the run is to stop."""
        if self._is_stopping():
            raise Interrupted
        if self._bar is None or done < self._bar.n or total != self._bar.total:  # the first report of a loop
            self._close_bar()
            self._bar = make_bar(total, self._name, 'parts', start=done, quiet=self._quiet)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close_bar()
        elif self._bar.disable and time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            # A stage that only measures has no artefact to name.
            self._say(f'{self._name}: {done} of {total}'.removeprefix(': '))


def compute_stage(
    run: Callable[[Mapping[str, Path], Artefacts], Mapping[str, float] | None],
    stages: Mapping[str, Path],
    config: Config,
    workdir: Path,
    *,
    force: bool = False,
    quiet: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Fitted:
    """Runs a stage that computes, unless it is done; complete artefacts are not computed again.

    In a job of several processes the first computes, and the others wait.

    Args:
      run: (stages, artefacts) -> metrics or None.
      stages: the folders of the finished stages, by name.
      config: written to `config.json`; another config is refused.
      workdir: the folder of this stage.
      force: takes a folder of another config.
      quiet: prints nothing.
      about: what `run.json` also records.
    """
    main = jax.process_index() == 0
    progress = Progress(0, 0, quiet or not main)
    with contextlib.ExitStack() as resources:
        if main:
            resources.enter_context(lock_workdir(workdir))
        path = open_workdir(workdir, config, about or {}, force, main)
        before = read_mapping(path / 'status.json')
        shard.wait_for_all('the status of the stage is read')
        if before.get('state') == 'done':
            metrics = {k: math.nan if v is None else v for k, v in (before.get('metrics') or {}).items()}
            return Fitted(None, metrics, 'done', path)
        if main:  # a stage that is done keeps the config that its artefacts were computed with
            describe_run(path, config, about or {})
        status = Status(path, 0, main)
        try:
            status.write('running', 0)
            metrics = _run_on_first(run, stages, path, progress) if main else {}
            if jax.process_count() > 1:
                # The others wait here until the first process has computed.
                metrics = shard.gather_objects(metrics)[0]
        except Interrupted:
            progress.say('stopped on request: the same command computes the remaining artefacts')
            status.write('stopped', 0)
            return Fitted(None, {}, 'stopped', path)
        except BaseException as error:
            with contextlib.suppress(CanonError):  # the error that brought us here is the one to report
                status.write('failed', None, error=error)
            raise
        status.write('done', 0, metrics)
    return Fitted(None, metrics, 'done', path)


def _run_on_first(run: Callable, stages: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, float]:
    # In a distributed run all must leave a computation at one place, so only a lone process aborts it.
    with Stopper() as stopper:
        is_stopping = (lambda: stopper.is_stopping(0)) if jax.process_count() == 1 else (lambda: False)
        artefacts = Artefacts(workdir / FOLDER, progress.say, is_stopping, progress.quiet)
        metrics = {name: float(value) for name, value in (run(stages, artefacts) or {}).items()}
    if metrics:
        # Resuming at -1 drops all earlier rows: the stage has one row, which is written again.
        writer = MetricsWriter(workdir, resume_at=-1)
        writer.write(0, metrics)
        writer.close()
        progress.say('  '.join(f'{name} {value:.4g}' for name, value in metrics.items()))
    return metrics
