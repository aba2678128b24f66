"""Checkpoints by Orbax: saved asynchronously, verified before they are read, the newest and the best kept.

A damaged checkpoint is moved aside, and the one before it is restored.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import operator
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from canon import optim
from canon.errors import CanonError, UsageError
from canon.train import checkpoint_files as files
from canon.train.digests import find_damage, write_digests
from canon.train.init_from import AVERAGES, find_averages
from canon.train.ranking import best_step
from canon.train.settings import Checkpointing
from canon.train.shard import wait_for_all
from canon.train.types import State

_log = logging.getLogger('canon')
_orbax_log = logging.getLogger('absl')


class Checkpoints:
    """The checkpoints of one run. A save returns once the state is copied; it is written while training goes on."""

    def __init__(self, directory: Path | str, settings: Checkpointing | None = None, read_only: bool = False):
        """Opens a folder of checkpoints.

        Args:
          directory: the folder, created if it does not exist.
          settings: which checkpoints are kept.
          read_only: nothing is cleaned up or moved, for a run may be writing there.
        """
        self.directory = Path(directory).absolute()
        self.settings = settings or Checkpointing()
        self.read_only = read_only
        self.saved: int | None = None  # the last step whose save has begun
        self._saving: int | None = None
        _orbax_log.addFilter(self._keep_record)  # until `close`: saves log from threads of their own
        self._open()

    def _open(self) -> None:
        # A step is kept if any policy wants it.
        policies: list[Any] = [preservation.LatestN(max(self.settings.keep, 1))]
        best_fn = None
        if self.settings.best is not None and not self.read_only:  # a reader ranks them itself: see `best_step`
            self._restore_values()
            best_fn = operator.itemgetter('value')
            policies.append(
                preservation.BestN(
                    get_metric_fn=best_fn,
                    reverse=self.settings.mode == 'min',
                    n=self.settings.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            best_fn=best_fn,  # otherwise Orbax does not write the metrics, and the best are lost at a restart
            best_mode=self.settings.mode or 'max',  # Orbax takes no None, and reads it only with `best_fn`
            preservation_policy=preservation.AnyPreservationPolicy(policies),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            cleanup_tmp_directories=not self.read_only,
            lightweight_initialize=self.read_only,  # leaves the metrics, which may be damaged, unread
            read_only=self.read_only,
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, handler_registry=files.make_handlers(jax.process_count())
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:
                raise
            _log.debug('while closing the checkpoints after another error', exc_info=True)

    def close(self) -> None:
        """Waits for the last save, and releases the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()
            _orbax_log.removeFilter(self._keep_record)

    def _keep_record(self, record: logging.LogRecord) -> bool:
        """Drops Orbax's warnings, which are about its own defaults; Canon reports what matters to a user."""
        return record.levelno >= logging.ERROR or 'orbax' not in Path(record.pathname).parts

    def steps(self) -> list[int]:
        """Returns the saved steps, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step with the best value of `settings.best`, the latest of several; None if none has a value."""
        values = {} if self.settings.best is None else self._values()
        return best_step(values, self.settings.mode) if values else None

    def _values(self) -> dict[int, float]:
        values = {step: files.read_value(self.directory / str(step)) for step in self.steps()}
        return {step: value for step, value in values.items() if value is not None}

    # Saving

    def save(self, state: State, progress: Mapping[str, Any], value: float | None = None) -> bool:
        """Begins to save `state` under its step; returns False if that step exists already.

        Args:
          state: what is saved.
          progress: anything JSON holds, returned by `restore`.
          value: ranks the step among the best.

        Raises:
          CanonError: this save or the one before could not be written; older checkpoints stay intact.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            self._rank(step, value)
            return False
        items = ocp.args.Composite(
            # In two items, so that the weights can be read without the optimizer that trained them (`read_model`).
            model=ocp.args.PyTreeSave({'params': state.params, 'mutable': state.mutable}),
            opt=ocp.args.PyTreeSave({'step': state.step, 'opt': state.opt}),
            progress=ocp.args.JsonSave({**progress, AVERAGES: find_averages({'opt': state.opt})}),
        )
        metrics = None if value is None or not np.isfinite(value) else {'value': float(value)}
        try:
            self._manager.wait_until_finished()  # the save before takes its digests under its own number
            self._saving = step
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:
            raise self._write_error(step, error) from error
        self.saved = step
        return True

    def amend(self, step: int, progress: Mapping[str, Any], value: float | None = None) -> None:
        """Adds to a saved step what was evaluated since: its progress, and the value that ranks it among the best.

        A state is saved before it is evaluated, so that nothing that happens in an evaluation can lose it.
        """
        if step not in self._manager.all_steps():
            return
        self.wait()
        if jax.process_index() == 0:
            files.write_amendment(self.directory / str(step), dict(progress))
        wait_for_all('the progress of a saved step')
        self._rank(step, value)
        self._prune()

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises CanonError if it could not be written."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._write_error(self.saved, error) from error

    def _rank(self, step: int, value: float | None) -> None:
        """Writes the value of a saved step."""
        folder = self.directory / str(step)
        if self.settings.best is None or value is None or not np.isfinite(value):
            return
        self.wait()
        if jax.process_index() == 0 and files.read_value(folder) is None:  # other processes may see it written already
            files.write_value(folder, float(value))
        wait_for_all('a value for a saved step')
        self._manager.close()  # Orbax reads values when it opens
        self._open()

    def _prune(self) -> None:
        """Deletes what is neither among the newest nor among the best: a value may come after the save."""
        steps, settings = self.steps(), self.settings
        keep = set(steps[-max(settings.keep, 1) :])
        if settings.best is not None:
            values = self._values()
            for _ in range(min(settings.keep_best, len(values))):
                keep.add(best := best_step(values, settings.mode))
                del values[best]
        wait_for_all('which checkpoints are kept')
        for step in set(steps) - keep:
            self._manager.delete(step)

    def _write_digests(self) -> None:
        """Called by Orbax when all files of a save are written, just before the folder gets its final name."""
        if jax.process_index() != 0:
            return
        unnamed = [p for p in self.directory.glob(f'{self._saving}.*') if p.is_dir()]
        write_digests(unnamed[0] if unnamed else self.directory / str(self._saving))

    def _write_error(self, step: int | None, error: Exception) -> CanonError:
        full = any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in _causes(error))
        full = full or 'No space left' in str(error) or 'RESOURCE_EXHAUSTED' in str(error)
        why = 'the disk is full; free some space and run again to resume' if full else files.shorten_error(error)
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()  # the save before may still be on its way, and count as intact
        # Orbax gives a folder its plain number only when it is complete.
        finished = self._list_finished()
        if self.saved is not None and self.saved not in finished:
            step = self.saved  # an asynchronous save failed, and the next one reported it
        intact = [s for s in finished if s != step]
        kept = f'that of step {max(intact)} is intact' if intact else 'there is none before it'
        return CanonError(f'checkpoint of step {step} could not be written to {self.directory}: {why}; {kept}')

    def _list_finished(self) -> list[int]:
        return [int(p.name) for p in self.directory.glob('*') if p.name.isdigit()]

    # Restoring

    def restore(self, target: State, step: int | None = None) -> tuple[State, dict[str, Any]] | None:
        """Returns the newest sound checkpoint (or that of `step`) as (state, progress); None if nothing was saved.

        Damaged checkpoints newer than it are moved to `unreadable-STEP`.

        Args:
          target: an abstract state, `jax.ShapeDtypeStruct` leaves with shardings over any number of devices.
          step: the step to restore; None for the newest.

        Raises:
          UsageError: a checkpoint is sound but holds another model or optimizer, or there is none of `step`.
          CanonError: there are checkpoints, and none can be read; all stay where they are.
        """
        if step is not None and step not in self.steps():
            raise UsageError(f'{self.directory} has no checkpoint of step {step}; there are {self.steps()}')
        damaged: dict[int, str] = {}
        for candidate in [step] if step is not None else self.steps()[::-1]:
            restored = self._restore_sound(target, candidate)
            if not isinstance(restored, str):
                self._move_aside(damaged, candidate)
                return restored
            damaged[candidate] = restored
        if step is not None:
            raise CanonError(f'the checkpoint of step {step} in {self.directory} is damaged: {damaged[step]}')
        self._refuse_to_start_over(damaged)
        return None

    def _restore_sound(self, target: State, step: int) -> tuple[State, dict[str, Any]] | str:
        """Returns what was saved at `step`, or a description of its damage."""
        damage = self._find_damage(step)
        if damage is not None:
            return damage
        try:
            # Before anything is read: Orbax reports a misfit as one of many kinds of error, like damage.
            files.refuse_misfit(target, self.directory / str(step))
            return self._read(target, step)
        except UsageError:
            raise
        except Exception as error:
            return files.shorten_error(error)

    def _find_damage(self, step: int) -> str | None:
        """The first process compares the digests; all learn whether the checkpoint is sound."""
        damage = find_damage(self.directory / str(step)) if jax.process_index() == 0 else None
        if jax.process_count() == 1:
            return damage
        from jax.experimental import multihost_utils

        damaged = multihost_utils.broadcast_one_to_all(np.array(damage is not None))
        return damage or ('it is not as it was saved' if damaged else None)

    def _read(self, target: State, step: int) -> tuple[State, dict[str, Any]]:
        read: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=files.restore_args({'params': target.params, 'mutable': target.mutable}),
                opt=files.restore_args({'step': target.step, 'opt': target.opt}),
                progress=ocp.args.JsonRestore(),
            ),
        )
        progress = {k: v for k, v in (read.progress or {}).items() if k != AVERAGES}
        progress |= files.read_amendment(self.directory / str(step))
        opt = optim.observe(read.opt['opt'], progress.get('observed') or {})  # it was evaluated after it was saved
        return State(read.opt['step'], read.model['params'], read.model['mutable'], opt), progress

    def _refuse_to_start_over(self, damaged: Mapping[int, str]) -> None:
        """Raises CanonError if steps were saved: beginning again at 0 would overwrite what is left of the run."""
        aside = sorted(p.name for p in self.directory.glob('unreadable-*'))
        if not damaged and not aside:
            return
        problems = '; '.join(f'step {step}: {damage}' for step, damage in damaged.items())
        raise CanonError(
            f'no checkpoint in {self.directory} can be read ({problems or ", ".join(aside)}); put a sound one there, '
            'or remove the folder to train from the start'
        )

    def _move_aside(self, damaged: Mapping[int, str], used: int) -> None:
        """Renames damaged checkpoints; `used` is the step that is restored in their place."""
        if not damaged:
            return
        for step, damage in damaged.items():
            moved = '' if self.read_only else f'; moved to unreadable-{step}'
            _log.warning(
                'the checkpoint of step %d is damaged: %s%s; that of step %d is used', step, damage, moved, used
            )
        if self.read_only:
            return
        # Orbax keeps a list of the steps, which must not be moved under it.
        self._manager.close()
        if jax.process_index() == 0:
            for step in damaged:
                aside = self.directory / f'unreadable-{step}'
                while aside.exists():
                    aside = aside.with_name(aside.name + '-again')
                (self.directory / str(step)).rename(aside)
        wait_for_all('checkpoints moved aside')
        self._open()

    def _restore_values(self) -> None:
        """Writes damaged values, which Orbax reads when it opens, again: the progress of the step knows them."""
        if jax.process_index() == 0 and self.directory.is_dir():
            for step in self._list_finished():
                folder = self.directory / str(step)
                if (folder / 'metrics').exists() and files.read_value(folder) is None:
                    shutil.rmtree(folder / 'metrics')
                    value = self._read_measured(folder, step)
                    _log.warning('the value of step %d was damaged; it is %s', step, 'lost' if value is None else value)
                    if value is not None:
                        files.write_value(folder, value)
        wait_for_all('values of checkpoints')

    def _read_measured(self, folder: Path, step: int) -> float | None:
        """Returns the value that ranks `step` from the metrics in its progress."""
        best = self.settings.best or ''
        progress = files.read_amendment(folder)
        try:
            measured = any(at == step for name, at in progress['measured'].items() if best.startswith(f'{name}/'))
            value = progress['metrics'].get(best) if measured else None
        except (KeyError, AttributeError):
            return None
        return value if isinstance(value, float) and np.isfinite(value) else None


def _causes(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
