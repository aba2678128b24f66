"""The weights that a run hands on, read without its experiment, and put into the state of another run."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten_with_path, tree_map_with_path
from optax import MaskedNode

from canon import optim
from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.optim.average import EmaState, LateAverageState
from canon.optim.core import path_name
from canon.optim.descent import NesterovState
from canon.optim.schedule_free import ScheduleFreeState
from canon.optim.valley import ValleyState
from canon.train.checkpoint_files import name_model, name_model_tree, read_numpy, read_value, shorten_error
from canon.train.digests import find_damage
from canon.train.ranking import best_step, choose_steps
from canon.train.settings import InitFrom
from canon.train.statistics import AVERAGED, TRAINED, average_variables
from canon.train.types import State, is_carried
from canon.train.workdir import read_mapping

AVERAGES = 'evaluated_from'  # in the progress: (path in the optimizer state, type) of each state `eval_params` reads
_STATES: dict[str, Any] = {
    kind.__name__: kind for kind in (EmaState, LateAverageState, NesterovState, ScheduleFreeState, ValleyState)
}

_log = logging.getLogger('canon')


def init_from(state: State, settings: InitFrom, read: Callable | None = None) -> State:
    """Returns `state` with parameters and mutable of another run, on the devices where they are now.

    Every array must be in the other run under its name with its shape, except those that `settings.new` matches and
    what rows carry.

    Args:
      state: the state whose arrays are replaced.
      settings: the path, and how names differ.
      read: `Experiment.read`, which may know the path as published weights instead of a run.

    Raises:
      UsageError: lists what is missing, what has another shape, and what is left over.
    """
    path = settings.path or ''
    stored = None if read is None else read(path, name_model(state))
    stored = read_model(path) if stored is None else stored
    # All problems are collected, so that one message is enough to write the rules.
    used, missing, misfit, new = set(), [], [], []

    def take(path, leaf):
        name = path_name(path)
        # A carry belongs to the text that was read, in batches of that size.
        if is_carried(name) or (settings.new is not None and re.search(settings.new, name)):
            new.append(name)
            return leaf
        source = _rename(name, settings.rules)
        if source not in stored:
            missing.append(f'{source}{suggest(source, set(stored))}' if len(missing) < 3 else source)
            return leaf
        used.add(source)
        if stored[source].shape != leaf.shape:
            misfit.append(f'{name} is {leaf.shape} here and {stored[source].shape} there')
            return leaf
        # The new run decides the dtype and the layout; the other one may have had more devices.
        return jax.device_put(stored[source].astype(leaf.dtype), leaf.sharding)

    params = tree_map_with_path(take, state.params)
    mutable = tree_map_with_path(take, state.mutable)
    unused = sorted(name for name in set(stored) - used if not is_carried(name))
    if missing or misfit:
        raise UsageError(
            f'run.init_from: {path} does not fit. Missing there: {missing or "nothing"}. Other shape: '
            f'{misfit or "nothing"}. Left over: {unused or "nothing"}. Rename with run.init_from.rules, or name what '
            'keeps its initialisation in run.init_from.new'
        )
    _log.info(
        'init_from %s: %d arrays taken; keep their initialisation: %s; left over there: %s',
        *(path, len(used), ', '.join(new) or 'none', ', '.join(unused) or 'none'),
    )
    return state._replace(params=params, mutable=mutable)


def _rename(name: str, rules) -> str:
    for pattern, replacement in rules:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def read_model(path: Path | str) -> dict[str, np.ndarray]:
    """Returns the weights that a run hands on, as {name: array}, by their names in the model (`Conv_0/kernel`).

    They are the weights that were evaluated: an average with its batch statistics if the optimizer keeps one, and the
    mean of several checkpoints in a run with `run.checkpoint.average`.

    Args:
      path: the folder of a run (its average, else its best step, else the newest), its `checkpoints/`, or the folder of
        one checkpoint.

    Raises:
      UsageError: there is no checkpoint.
      CanonError: a checkpoint is damaged.
    """
    folders = _find_checkpoints(Path(path).expanduser().absolute())
    params, mutable = average_variables(map(_read_evaluated, folders))
    _log.info('%s: the weights of step %s', path, ', '.join(folder.name for folder in folders))
    return {name: np.asarray(x) for name, x in name_model_tree({'params': params, 'mutable': mutable}).items()}


def _find_checkpoints(path: Path) -> list[Path]:
    """Returns the checkpoint that a path names, or those whose mean a run hands on."""
    if (path / 'model').is_dir():
        return [path]
    folder = path / 'checkpoints' if (path / 'checkpoints').is_dir() else path
    steps = sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit()) if folder.is_dir() else []
    if not steps:
        raise UsageError(f'{path} holds no checkpoint; name a run folder, or a folder of its checkpoints/')
    settings = _checkpoint_settings(folder.parent)

    def find_best() -> int | None:
        values = {s: v for s in steps if (v := read_value(folder / str(s))) is not None}
        # Runs of earlier versions took every metric to be maximised.
        if values and settings.get('mode') not in ('min', 'max'):
            raise UsageError(
                f'{folder.parent} does not state run.checkpoint.mode, so its best checkpoint is unknown; name the '
                'folder of one step'
            )
        return best_step(values, settings.get('mode')) if values else None

    average = settings.get('average')
    _, chosen = choose_steps(steps, average if isinstance(average, int) else 1, find_best)
    return [folder / str(step) for step in chosen]


def _checkpoint_settings(run: Path) -> Mapping[str, Any]:
    """`run.checkpoint` in the config of a run; empty if it is not known."""
    try:
        return dict(read_mapping(run / 'config.json')['run']['checkpoint'])
    except (KeyError, TypeError, ValueError):
        return {}


def _read_evaluated(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Returns parameters and mutable of one checkpoint: the weights that were evaluated, with their statistics."""
    damage = find_damage(folder)
    if damage is not None:
        raise CanonError(f'the checkpoint {folder} is damaged: {damage}')
    try:
        tree = read_numpy(folder / 'model')
        params, mutable = tree.get('params') or {}, dict(tree.get('mutable') or {})
        averages = json.loads((folder / 'progress' / 'metadata').read_text()).get(AVERAGES)
        if averages:
            params = optim.eval_params(params, _rebuild_averages(read_numpy(folder / 'opt'), averages))
    except CanonError:
        raise
    except Exception as error:  # of Orbax, tensorstore or JSON: the folder is not what a run wrote
        raise CanonError(f'the checkpoint {folder} cannot be read: {shorten_error(error)}') from error
    # Of averaged weights: their own statistics take the place of those of the trained weights.
    if AVERAGED in mutable:
        mutable[TRAINED] = mutable.pop(AVERAGED)
    return params, mutable


def find_averages(tree: Any, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Returns (path, type) of each optimizer state because of which other parameters are evaluated than are trained.

    A checkpoint records them, so that the evaluated parameters can be computed from it without its optimizer.
    """
    averages = []
    for path, node in tree_flatten_with_path(tree, is_leaf=lambda x: type(x) in _STATES.values())[0]:
        if type(node) in _STATES.values():
            keys = (*prefix, *(path_name([key]) for key in path))
            averages.append((keys, type(node).__name__))
            for field in _split_fields(type(node))[0]:
                averages += find_averages(getattr(node, field), (*keys, field))
    return averages


def _rebuild_averages(stored: Any, averages: list[tuple[list[str], str]]) -> list[Any]:
    """Returns the states that `find_averages` recorded, from an optimizer state that was read without its types."""
    rebuilt = []
    for keys, kind in averages:
        node = stored
        for key in keys:
            node = node[int(key)] if isinstance(node, list | tuple) else node[key]
        arrays, static = _split_fields(_STATES[kind])
        fields = {name: _restore_masks(node.get(name)) for name in arrays}
        rebuilt.append(_STATES[kind](**fields, **dict.fromkeys(static, '')))  # evaluation reads no static field
    return rebuilt


def _split_fields(kind: Any) -> tuple[list[str], list[str]]:
    """Returns the names of a state's fields: those that hold arrays, and the static ones of a dataclass."""
    if hasattr(kind, '_fields'):
        return list(kind._fields), []
    fields = dataclasses.fields(kind)
    static = [field.name for field in fields if field.metadata.get('static')]
    return [field.name for field in fields if field.name not in static], static


def _restore_masks(tree: Any) -> Any:
    """Puts back the empty nodes of leaves that a partition gives to another group; they were saved as None."""
    return jax.tree.map(lambda x: MaskedNode() if x is None else x, tree, is_leaf=lambda x: x is None)
