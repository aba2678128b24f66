"""Checkpoints by Orbax: asynchronous, the newest and the best kept, a broken one passed over and kept aside."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import tree_flatten_with_path, tree_map_with_path
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from canon.errors import CanonError, UsageError
from canon.named import near
from canon.train.settings import Checkpointing, InitFrom
from canon.train.shard import path_name, wait_for_all
from canon.train.types import State, is_carried

_log = logging.getLogger('canon')


class Checkpoints:
    """The checkpoints of one run. A save returns once the state is copied; writing goes on beside the training."""

    def __init__(self, directory: Path | str, settings: Checkpointing | None = None, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self.settings = settings or Checkpointing()
        self.read_only = read_only  # nothing is cleaned up or moved: a run may be writing there
        self.saved: int | None = None
        self._open()

    def _open(self) -> None:
        policies: list[Any] = [keeping.LatestN(max(self.settings.keep, 1))]
        best_fn = None
        if self.settings.best is not None:
            best_fn = lambda metrics: metrics['value']  # noqa: E731
            policies.append(
                keeping.BestN(
                    get_metric_fn=best_fn,
                    reverse=self.settings.mode == 'min',
                    n=self.settings.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            best_fn=best_fn,  # without it Orbax does not write the metrics, and best-k is lost at a restart
            best_mode=self.settings.mode or 'max',  # Orbax takes no None; without `best` it is not used
            preservation_policy=keeping.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=not self.read_only,
            read_only=self.read_only,
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, handler_registry=_handlers(jax.process_count())
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:
                raise
            _log.exception('while closing the checkpoints after another error')

    def steps(self) -> list[int]:
        """The steps saved, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the best value of the metric asked for, or None."""
        return self._manager.best_step() if self.settings.best is not None else None

    def save(self, state: State, progress: Mapping[str, Any], value: float | None = None) -> bool:
        """Begins to save `state` under its step; `value` ranks it among the best. False where it exists already.

        Raises CanonError where this save or the one before could not be written; older checkpoints stay intact.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            self._rank(step, value)
            return False
        items = ocp.args.Composite(
            model=ocp.args.PyTreeSave({'params': state.params, 'mutable': state.mutable}),
            opt=ocp.args.PyTreeSave({'step': state.step, 'opt': state.opt}),
            progress=ocp.args.JsonSave(dict(progress)),
        )
        metrics = None if value is None or not np.isfinite(value) else {'value': float(value)}
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:
            raise self._write_error(step, error) from error
        self.saved = step
        return True

    def _rank(self, step: int, value: float | None) -> None:
        """Gives a saved step its value: one that was saved on being asked to stop, and evaluated on resuming."""
        folder = self.directory / str(step)
        if self.settings.best is None or value is None or not np.isfinite(value) or _metric(folder) is not None:
            return
        self.wait()
        if jax.process_index() == 0:
            (folder / 'metrics').mkdir(exist_ok=True)
            (folder / 'metrics' / 'metrics').write_text(json.dumps({'value': float(value)}))
        wait_for_all('a value for a saved step')
        self._manager.close()
        self._open()

    def wait(self) -> None:
        """Until the last save is on disk. Raises CanonError where it could not be written."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._write_error(self.saved, error) from error

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, target: State, step: int | None = None) -> tuple[State, dict[str, Any]] | None:
        """The newest checkpoint that can be read (or that of `step`) as (state, progress); None without any.

        target: an abstract state, `jax.ShapeDtypeStruct` leaves with the shardings wanted, of any number of devices.
        A checkpoint that cannot be read is moved to `unreadable-STEP` and the one before is taken. Raises UsageError
        where a checkpoint is whole but holds another model or optimizer.
        """
        wanted = [step] if step is not None else self.steps()[::-1]
        for candidate in wanted:
            if candidate not in self.steps():
                raise UsageError(f'{self.directory} has no checkpoint of step {candidate}; there are {self.steps()}')
            try:
                return self._read(target, candidate)
            except Exception as error:
                self._refuse_misfit(target, candidate, error)
                if step is not None or self.read_only:
                    raise CanonError(
                        f'checkpoint {self.directory / str(candidate)} cannot be read: {_line(error)}'
                    ) from error
                self._set_aside(candidate, error)
        return None

    def _read(self, target: State, step: int) -> tuple[State, dict[str, Any]]:
        read: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=_restore_args({'params': target.params, 'mutable': target.mutable}),
                opt=_restore_args({'step': target.step, 'opt': target.opt}),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = State(read.opt['step'], read.model['params'], read.model['mutable'], read.opt['opt'])
        return state, dict(read.progress or {})

    def _refuse_misfit(self, target: State, step: int, error: Exception) -> None:
        """Raises where the files of `step` are sound: then the failure is a misfit, not damage."""
        try:
            stored = read_model(self.directory / str(step))
            _read_numpy(self.directory / str(step) / 'opt')
        except Exception:
            return
        ours = flat_model(target)
        differ = [n for n in sorted(stored.keys() | ours.keys()) if _shape(stored, n) != _shape(ours, n)]
        if differ:
            n = differ[0]
            what = f'{n} is {_shape(stored, n) or "absent"} there and {_shape(ours, n) or "absent"} here'
            what += f' ({len(differ)} such)' if len(differ) > 1 else ''
        else:
            what = f'its optimizer state does not fit: {_line(error)}'
        raise UsageError(f'checkpoint {self.directory / str(step)} is of another model or optimizer: {what}')

    def _set_aside(self, step: int, error: Exception) -> None:
        _log.warning(
            'checkpoint of step %d cannot be read (%s); moved to unreadable-%d, the one before is tried',
            step, _line(error), step,
        )  # fmt: skip
        self._manager.close()
        if jax.process_index() == 0:
            aside = self.directory / f'unreadable-{step}'
            while aside.exists():
                aside = aside.with_name(aside.name + '-again')
            (self.directory / str(step)).rename(aside)
        wait_for_all('checkpoint set aside')
        self._open()

    def _write_error(self, step: int | None, error: Exception) -> CanonError:
        full = any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in _causes(error))
        full = full or 'No space left' in str(error) or 'RESOURCE_EXHAUSTED' in str(error)
        why = 'the disk is full; free some space and run again to resume' if full else _line(error)
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()  # the save before may still be on its way, and count as intact
        finished = self._finished()
        if self.saved is not None and self.saved not in finished:
            step = self.saved  # an asynchronous save failed, and the next one brought the news
        whole = [s for s in finished if s != step]
        kept = f'that of step {max(whole)} is intact' if whole else 'there is none before it'
        return CanonError(f'checkpoint of step {step} could not be written to {self.directory}: {why}; {kept}')

    def _finished(self) -> list[int]:
        return [int(p.name) for p in self.directory.glob('*') if p.name.isdigit()]


def read_model(path: Path | str) -> dict[str, np.ndarray]:
    """Parameters and mutable of one checkpoint by name (`Conv_0/kernel`, `batch_stats/BatchNorm_0/mean`), as numpy.

    path: a checkpoint's folder, a run's folder (its best step, else the newest) or its `checkpoints/`.
    Raises UsageError where there is none.
    """
    folder = _checkpoint_folder(Path(path).expanduser().absolute())
    tree = _read_numpy(folder / 'model')
    return _flat(tree.get('params') or {}, tree.get('mutable') or {})


def _handlers(processes: int) -> Any:
    """Writers that take little of the CPU that the training needs.

    Compression would cost 40 % more for weights 8 % smaller. The OCDBT format, which gathers the arrays of many
    processes in few files, takes a third longer to write than a file an array: it is for several processes only. Both
    are read whichever wrote them.
    """
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ('model', 'opt'):
        handler = ocp.PyTreeCheckpointHandler(use_compression=False, use_ocdbt=processes > 1)
        registry.add(item, ocp.args.PyTreeSave, handler)
        registry.add(item, ocp.args.PyTreeRestore, handler)
    registry.add('progress', ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    registry.add('progress', ocp.args.JsonRestore, ocp.JsonCheckpointHandler())
    return registry


def _restore_args(target: Any) -> Any:
    return ocp.args.PyTreeRestore(item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))


def _read_numpy(path: Path) -> Any:
    """A saved tree as numpy, wherever its arrays were when they were saved."""
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        return reader.restore(
            path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        )


def flat_model(state: State) -> dict[str, Any]:
    """The same names for a state's leaves."""
    return _flat(state.params, state.mutable)


def init_from(state: State, settings: InitFrom, read: Callable | None = None) -> State:
    """`state` with parameters and mutable taken from another run's checkpoint, laid out as they are here.

    read: `Experiment.read`, which may know the path as something else than a run: published weights.

    Every name must be found there with its shape, but those that `settings.new` matches and what rows carry. Raises
    UsageError that lists what is missing, what has another shape, and what is left over.
    """
    stored = None if read is None else read(settings.path, flat_model(state))
    stored = read_model(settings.path) if stored is None else stored
    used, missing, misfit, fresh = set(), [], [], []

    def take(name: str, leaf):
        new = settings.new is not None and re.search(settings.new, name)
        if new or is_carried(name):  # a carry belongs to the text that was read, in batches of that size
            fresh.append(name)
            return leaf
        source = _renamed(name, settings.rules)
        if source not in stored:
            missing.append(f'{source}{near(source, set(stored))}' if len(missing) < 3 else source)
            return leaf
        used.add(source)
        if stored[source].shape != leaf.shape:
            misfit.append(f'{name} is {leaf.shape} here and {stored[source].shape} there')
            return leaf
        return jax.device_put(stored[source].astype(leaf.dtype), leaf.sharding)

    params = tree_map_with_path(lambda path, leaf: take(path_name(path), leaf), state.params)
    mutable = tree_map_with_path(lambda path, leaf: take(path_name(path), leaf), state.mutable)
    left = sorted(name for name in set(stored) - used if not is_carried(name))
    if missing or misfit:
        raise UsageError(
            f'run.init_from: {settings.path} does not fit. Missing there: {missing or "nothing"}. Other shape: '
            f'{misfit or "nothing"}. Left over: {left or "nothing"}. Rename with run.init_from.rules, or name what '
            'keeps its initialisation in run.init_from.new'
        )
    _log.info(
        'init_from %s: %d arrays taken; initialised anew: %s; left over there: %s',
        *(settings.path, len(used), ', '.join(fresh) or 'none', ', '.join(left) or 'none'),
    )
    return state._replace(params=params, mutable=mutable)


def _renamed(name: str, rules) -> str:
    for pattern, replacement in rules:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _checkpoint_folder(path: Path) -> Path:
    if (path / 'model').is_dir():
        return path
    folder = path / 'checkpoints' if (path / 'checkpoints').is_dir() else path
    steps = sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit()) if folder.is_dir() else []
    if not steps:
        raise UsageError(f'{path} holds no checkpoint; name a run folder, or a folder of its checkpoints/')
    values = {s: v for s in steps if (v := _metric(folder / str(s))) is not None}
    return folder / str(_best(values, folder.parent) if values else steps[-1])


def _best(values: Mapping[int, float], run: Path) -> int:
    try:
        mode = json.loads((run / 'config.json').read_text())['run']['checkpoint']['mode']
    except (OSError, KeyError, TypeError, ValueError):
        raise UsageError(
            f'{run} does not state run.checkpoint.mode, so its best checkpoint is unknown; name the folder of one step'
        ) from None
    return (min if mode == 'min' else max)(values, key=lambda s: values[s])


def _metric(folder: Path) -> float | None:
    try:
        return json.loads((folder / 'metrics' / 'metrics').read_text())['value']
    except (OSError, KeyError, ValueError):
        return None


def _flat(params: Any, mutable: Any) -> dict[str, Any]:
    return {path_name(path): leaf for tree in (params, mutable) for path, leaf in tree_flatten_with_path(tree)[0]}


def _shape(leaves: Mapping[str, Any], name: str):
    return tuple(leaves[name].shape) if name in leaves else None


def _line(error: BaseException) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _causes(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
