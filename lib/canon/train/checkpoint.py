"""Checkpoints by Orbax: asynchronous, checked before they are read, the newest and the best kept.

A damaged checkpoint is passed over for the one before it, and kept aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import math
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import tree_flatten_with_path, tree_map_with_path
from optax import MaskedNode
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from canon import optim
from canon.errors import CanonError, UsageError
from canon.named import near
from canon.optim.average import EmaState, LateAverageState
from canon.optim.descent import NesterovState
from canon.optim.schedule_free import ScheduleFreeState
from canon.train.digests import compare_digest, find_damage, read_digests, write_digests
from canon.train.settings import Checkpointing, InitFrom
from canon.train.shard import host_memory, path_name, wait_for_all
from canon.train.statistics import AVERAGED, TRAINED, average_variables
from canon.train.types import State, is_carried
from canon.train.workdir import replace_text

_log = logging.getLogger('canon')


class Checkpoints:
    """The checkpoints of one run. A save returns once the state is copied; writing goes on beside the training."""

    def __init__(self, directory: Path | str, settings: Checkpointing | None = None, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self.settings = settings or Checkpointing()
        self.read_only = read_only  # nothing is cleaned up or moved: a run may be writing there
        self.saved: int | None = None
        self._saving: int | None = None
        self._open()

    def _open(self) -> None:
        policies: list[Any] = [keeping.LatestN(max(self.settings.keep, 1))]
        best_fn = None
        if self.settings.best is not None and not self.read_only:  # a reader ranks them itself: see `best_step`
            self._restore_values()
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
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            cleanup_tmp_directories=not self.read_only,
            lightweight_initialize=self.read_only,  # leaves the metrics, which may be damaged, unread
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
            _log.debug('while closing the checkpoints after another error', exc_info=True)

    def steps(self) -> list[int]:
        """The steps saved, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step with the best value of `settings.best`, the latest of several; None without any."""
        values = {step: value for step in self.steps() if (value := _metric(self.directory / str(step))) is not None}
        return _best_step(values, self.settings.mode) if self.settings.best is not None and values else None

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
            progress=ocp.args.JsonSave({**progress, _KINDS: _find_averages({'opt': state.opt})}),
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
            _write_amendment(self.directory / str(step), dict(progress))
        wait_for_all('the progress of a saved step')
        self._rank(step, value)
        self._prune()

    def _prune(self) -> None:
        """Deletes what is neither among the newest nor among the best: a rank may come after the save."""
        steps, c = self.steps(), self.settings
        keep = set(steps[-max(c.keep, 1) :])
        if c.best is not None:
            values = {step: v for step in steps if (v := _metric(self.directory / str(step))) is not None}
            for _ in range(min(c.keep_best, len(values))):
                keep.add(best := _best_step(values, c.mode))
                del values[best]
        wait_for_all('which checkpoints are kept')
        for step in set(steps) - keep:
            self._manager.delete(step)

    def _rank(self, step: int, value: float | None) -> None:
        """Gives a saved step its value."""
        folder = self.directory / str(step)
        if self.settings.best is None or value is None or not np.isfinite(value):
            return
        self.wait()
        if jax.process_index() == 0 and _metric(folder) is None:  # other processes may see it written already
            _write_metric(folder, float(value))
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
        """Returns the newest sound checkpoint (or that of `step`) as (state, progress); None where nothing was saved.

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
                self._pass_over(damaged, candidate)
                return restored
            damaged[candidate] = restored
        if step is not None:
            raise CanonError(f'the checkpoint of step {step} in {self.directory} is damaged: {damaged[step]}')
        self._refuse_to_start_over(damaged)
        return None

    def _restore_sound(self, target: State, step: int) -> tuple[State, dict[str, Any]] | str:
        """What was saved at `step`, or a description of its damage."""
        damage = self._find_damage(step)
        if damage is not None:
            return damage
        try:
            self._refuse_misfit(target, step)
            return self._read(target, step)
        except UsageError:
            raise
        except Exception as error:
            return _line(error)

    def _find_damage(self, step: int) -> str | None:
        """The first process compares the digests; all learn whether the checkpoint is sound."""
        damage = find_damage(self.directory / str(step)) if jax.process_index() == 0 else None
        if jax.process_count() == 1:
            return damage
        from jax.experimental import multihost_utils

        damaged = multihost_utils.broadcast_one_to_all(np.array(damage is not None))
        return damage or ('it is not as it was saved' if damaged else None)

    def _refuse_to_start_over(self, damaged: Mapping[int, str]) -> None:
        """Raises CanonError where steps were saved: beginning again at 0 would overwrite what is left of the run."""
        aside = sorted(p.name for p in self.directory.glob('unreadable-*'))
        if not damaged and not aside:
            return
        problems = '; '.join(f'step {step}: {damage}' for step, damage in damaged.items())
        raise CanonError(
            f'no checkpoint in {self.directory} can be read ({problems or ", ".join(aside)}); put a sound one there, '
            'or remove the folder to train from the start'
        )

    def _read(self, target: State, step: int) -> tuple[State, dict[str, Any]]:
        read: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=_restore_args({'params': target.params, 'mutable': target.mutable}),
                opt=_restore_args({'step': target.step, 'opt': target.opt}),
                progress=ocp.args.JsonRestore(),
            ),
        )
        progress = {k: v for k, v in (read.progress or {}).items() if k != _KINDS}
        progress |= _read_amendment(self.directory / str(step))
        opt = optim.observe(read.opt['opt'], progress.get('observed') or {})  # it was evaluated after it was saved
        return State(read.opt['step'], read.model['params'], read.model['mutable'], opt), progress

    def _refuse_misfit(self, target: State, step: int) -> None:
        """Raises UsageError where stored shapes, known before any array is read, differ from those of `target`."""
        folder = self.directory / str(step)
        stored = _flat_model(_read_metadata(folder / 'model'))
        opt = _flat(_read_metadata(folder / 'opt'))
        ours = flat_model(target)
        for title, there, here in (('', stored, ours), ('its optimizer state does not fit: ', opt, _flat_opt(target))):
            differ = [n for n in sorted(there.keys() | here.keys()) if _shape(there, n) != _shape(here, n)]
            if differ:
                n = differ[0]
                more = f' ({len(differ)} such)' if len(differ) > 1 else ''
                if title:  # another optimizer, or one of an earlier version
                    more += '; a new run takes its parameters alone with run.init_from'
                raise UsageError(
                    f'checkpoint {folder} is of another model or optimizer: {title}{n} is '
                    f'{_text(_shape(there, n))} there and {_text(_shape(here, n))} here{more}'
                )

    def _pass_over(self, damaged: Mapping[int, str], taken: int) -> None:
        """Moves damaged checkpoints aside, for the newest sound one is `taken` in their place."""
        if not damaged:
            return
        for step, damage in damaged.items():
            moved = '' if self.read_only else f'; moved to unreadable-{step}'
            _log.warning(
                'the checkpoint of step %d is damaged: %s%s; that of step %d is used', step, damage, moved, taken
            )
        if self.read_only:
            return
        self._manager.close()
        if jax.process_index() == 0:
            for step in damaged:
                self._set_aside(step)
        wait_for_all('checkpoints set aside')
        self._open()

    def _set_aside(self, step: int) -> None:
        aside = self.directory / f'unreadable-{step}'
        while aside.exists():
            aside = aside.with_name(aside.name + '-again')
        (self.directory / str(step)).rename(aside)

    def _write_digests(self) -> None:
        """Called by Orbax when all files of a save are written, just before the folder gets its final name."""
        if jax.process_index() != 0:
            return
        unnamed = [p for p in self.directory.glob(f'{self._saving}.*') if p.is_dir()]
        write_digests(unnamed[0] if unnamed else self.directory / str(self._saving))

    def _restore_values(self) -> None:
        """Renews damaged files of the values that rank checkpoints, which Orbax reads when it opens."""
        if jax.process_index() == 0 and self.directory.is_dir():
            for step in self._finished():
                folder = self.directory / str(step)
                if (folder / 'metrics').exists() and _metric(folder) is None:
                    shutil.rmtree(folder / 'metrics')
                    value = self._evaluated(folder, step)
                    _log.warning('the value of step %d was damaged; it is %s', step, 'lost' if value is None else value)
                    if value is not None:
                        _write_metric(folder, value)
        wait_for_all('values of checkpoints')

    def _evaluated(self, folder: Path, step: int) -> float | None:
        """The value that ranks `step`, from the metrics of its progress."""
        best = self.settings.best or ''
        progress = _read_amendment(folder)
        try:
            measured = any(at == step for name, at in progress['measured'].items() if best.startswith(f'{name}/'))
            value = progress['metrics'].get(best) if measured else None
        except (KeyError, AttributeError):
            return None
        return value if isinstance(value, float) and np.isfinite(value) else None

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
    """Returns the weights that a run hands on, as {name: array}, by their names in a model (`Conv_0/kernel`).

    They are those that were evaluated: an average where the optimizer keeps one, with its batch statistics; of a run
    with `run.checkpoint.average` the mean of so many checkpoints.

    path: a checkpoint's folder, a run's folder (its average, else its best step, else the newest) or its
    `checkpoints/`. Raises UsageError where there is none, CanonError where it is damaged.
    """
    folders = _checkpoint_folders(Path(path).expanduser().absolute())
    params, mutable = average_variables(map(_read_evaluated, folders))
    _log.info('%s: the weights of step %s', path, ', '.join(folder.name for folder in folders))
    return {name: np.asarray(x) for name, x in _flat_model({'params': params, 'mutable': mutable}).items()}


def _read_evaluated(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Parameters and mutable of one checkpoint: the weights that were evaluated, with their batch statistics."""
    damage = find_damage(folder)
    if damage is not None:
        raise CanonError(f'the checkpoint {folder} is damaged: {damage}')
    try:
        tree = _read_numpy(folder / 'model')
        params, mutable = tree.get('params') or {}, dict(tree.get('mutable') or {})
        kinds = json.loads((folder / 'progress' / 'metadata').read_text()).get(_KINDS)
        if kinds:
            params = optim.eval_params(params, _rebuild_averages(_read_numpy(folder / 'opt'), kinds))
    except CanonError:
        raise
    except Exception as error:
        raise CanonError(f'the checkpoint {folder} cannot be read: {_line(error)}') from error
    if AVERAGED in mutable:
        mutable[TRAINED] = mutable.pop(AVERAGED)
    return params, mutable


_KINDS = 'evaluated_from'  # in the progress: [path in the optimizer state, type] of each state `eval_params` reads
_STATES: dict[str, Any] = {
    kind.__name__: kind for kind in (EmaState, LateAverageState, NesterovState, ScheduleFreeState)
}


def _find_averages(tree: Any, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """The (path, type) of each state from which other parameters are evaluated than are trained."""
    averages = []
    for path, node in tree_flatten_with_path(tree, is_leaf=lambda x: type(x) in _STATES.values())[0]:
        if type(node) in _STATES.values():
            keys = (*prefix, *(path_name([key]) for key in path))
            averages.append((keys, type(node).__name__))
            for field in _split_fields(type(node))[0]:
                averages += _find_averages(getattr(node, field), (*keys, field))
    return averages


def _rebuild_averages(stored: Any, kinds: list[tuple[list[str], str]]) -> list[Any]:
    """The states of `_find_averages`, from an optimizer state that was read without its types."""
    rebuilt = []
    for keys, kind in kinds:
        node = stored
        for key in keys:
            node = node[int(key)] if isinstance(node, list | tuple) else node[key]
        arrays, static = _split_fields(_STATES[kind])
        fields = {name: _restore_masks(node.get(name)) for name in arrays}
        rebuilt.append(_STATES[kind](**fields, **dict.fromkeys(static, '')))  # what it watches is not evaluated
    return rebuilt


def _split_fields(kind: Any) -> tuple[list[str], list[str]]:
    """The names of a state's fields: those that hold arrays, and the static ones of a dataclass."""
    if hasattr(kind, '_fields'):
        return list(kind._fields), []
    fields = dataclasses.fields(kind)
    static = [field.name for field in fields if field.metadata.get('static')]
    return [field.name for field in fields if field.name not in static], static


def _restore_masks(tree: Any) -> Any:
    """A leaf that a partition gives to another group is an empty node, and was saved as None."""
    return jax.tree.map(lambda x: MaskedNode() if x is None else x, tree, is_leaf=lambda x: x is None)


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


def _read_metadata(path: Path) -> Any:
    """The tree of a saved item, with each array's shape and type in its place.

    Raises CanonError for an array whose chunks are larger than the array: no such file is written, and the process
    would end trying to allocate one.
    """
    with ocp.PyTreeCheckpointer() as reader:
        tree: Any = reader.metadata(path).item_metadata.tree
    for name, array in _flat(tree).items():
        chunk = getattr(getattr(array, 'storage', None), 'chunk_shape', None) or ()
        if any(c > max(n, 1) for c, n in zip(chunk, array.shape, strict=False)):
            raise CanonError(f'{path}: the array {name} of shape {array.shape} has chunks of {chunk}')
    return tree


def _read_numpy(path: Path) -> Any:
    """A saved tree as numpy, wherever its arrays were when they were saved."""
    stored = _read_metadata(path)
    memory = host_memory()
    for name, array in _flat(stored).items():
        if math.prod(array.shape) * np.dtype(array.dtype).itemsize > memory:
            raise CanonError(f'{path}: the array {name} of shape {array.shape} is larger than the memory')
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(
            path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        )


def flat_model(state: State) -> dict[str, Any]:
    """The same names for a state's leaves."""
    return _flat_model({'params': state.params, 'mutable': state.mutable})


def _flat_model(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {**_flat(tree.get('params') or {}), **_flat(tree.get('mutable') or {})}


def _flat_opt(state: State) -> dict[str, Any]:
    return _flat({'step': state.step, 'opt': state.opt})


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


def _checkpoint_folders(path: Path) -> list[Path]:
    """The checkpoint that a path names, or several whose mean a run hands on."""
    if (path / 'model').is_dir():
        return [path]
    folder = path / 'checkpoints' if (path / 'checkpoints').is_dir() else path
    steps = sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit()) if folder.is_dir() else []
    if not steps:
        raise UsageError(f'{path} holds no checkpoint; name a run folder, or a folder of its checkpoints/')

    def find_best() -> int | None:
        values = {s: v for s in steps if (v := _metric(folder / str(s))) is not None}
        return _best_step(values, _mode(folder.parent)) if values else None

    average = _checkpoint_settings(folder.parent).get('average')
    _, chosen = choose_steps(steps, average if isinstance(average, int) else 1, find_best)
    return [folder / str(step) for step in chosen]


def choose_steps(
    steps: Sequence[int], average: int, find_best: Callable[[], int | None]
) -> tuple[str, tuple[int, ...]]:
    """Returns which of the saved steps a run hands on, by name: its 'average', else its 'best', else its 'last'."""
    if average > 1:
        return 'average', tuple(steps[-average:])
    best = find_best()
    return ('last', (steps[-1],)) if best is None else ('best', (best,))


def _best_step(values: Mapping[int, float], mode: str | None) -> int:
    """The step with the highest value (mode 'max') or the lowest ('min'); the latest of several."""
    sign = -1 if mode == 'min' else 1
    return max(values, key=lambda step: (sign * values[step], step))


def _mode(run: Path) -> str:
    mode = _checkpoint_settings(run).get('mode')
    if mode not in ('min', 'max'):
        raise UsageError(
            f'{run} does not state run.checkpoint.mode, so its best checkpoint is unknown; name the folder of one step'
        )
    return mode


def _checkpoint_settings(run: Path) -> Mapping[str, Any]:
    """`run.checkpoint` of a run's config; empty where it is not known."""
    try:
        return dict(json.loads((run / 'config.json').read_text())['run']['checkpoint'])
    except (OSError, KeyError, TypeError, ValueError):
        return {}


_METRIC = 'metrics/metrics'  # where Orbax keeps it


def _metric(folder: Path) -> float | None:
    """The value that ranks a checkpoint; None where it has none, or where its file is damaged."""
    try:
        digest = (read_digests(folder) or {}).get(_METRIC)
        if digest is not None and compare_digest(folder, _METRIC, digest) is not None:
            return None
        value = json.loads((folder / _METRIC).read_text())['value']
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _write_metric(folder: Path, value: float) -> None:
    path = folder / _METRIC
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'value': value}))
    with contextlib.suppress(ValueError):  # damaged digests condemn the checkpoint anyway
        if read_digests(folder) is not None:
            write_digests(folder, [_METRIC])


_AMENDMENT = 'evaluated.json'  # checked by itself: it is written after the digests


def _write_amendment(folder: Path, progress: Mapping[str, Any]) -> None:
    text = json.dumps(progress)
    replace_text(folder / _AMENDMENT, json.dumps({'crc': zlib.crc32(text.encode()), 'progress': text}))


def _read_amendment(folder: Path) -> dict[str, Any]:
    """What was added to the progress of a checkpoint; empty where there is nothing, or where it is damaged."""
    try:
        amendment = json.loads((folder / _AMENDMENT).read_text())
        sound = zlib.crc32(amendment['progress'].encode()) == amendment['crc']
        return dict(json.loads(amendment['progress'])) if sound else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _flat(tree: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def _text(shape: tuple[int, ...] | None) -> str:
    return 'absent' if shape is None else str(shape)


def _shape(leaves: Mapping[str, Any], name: str):
    return tuple(leaves[name].shape) if name in leaves else None


def _line(error: BaseException) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _causes(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
