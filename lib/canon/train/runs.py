"""Reads finished and unfinished runs from their folders: config, state, metrics and curves.

    for run in find_runs(Path('runs')):
        print(run.folder, run.state, describe_result(run))

Whatever a run left is read as far as it is sound: it may be missing, half written or from another version.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon.errors import CanonError
from canon.train.log import read_rows
from canon.train.workdir import is_abandoned, read_json

_STAGE = re.compile(r'\d+-')  # a run in stages has a folder `0-name`, `1-name`, ... for each stage


class Run(NamedTuple):
    """A run as its folder describes it.

    Attributes:
      folder: of the run; for a run in stages, the folder that holds the stages.
      config: FILE or FILE:ARG of its config; '?' if unknown.
      overrides: {dotted key: value} that the command line gave.
      target: the config's `target`.
      state: 'done', 'stopped', 'failed' or 'running' as the run reports it; 'begun' before its first report;
        'killed' if it reports that it is running and no process holds its folder; 'broken' if its files are damaged.
      step: the last step reported.
      steps: how many steps the run has in all.
      metrics: of the last evaluation.
      seconds: wall time so far.
      error: why it failed.
      values: {dotted key: value} of its config, overridden or not.
    """

    folder: Path
    config: str
    overrides: dict[str, Any]
    target: dict[str, Any]
    state: str
    step: int | None = None
    steps: int | None = None
    metrics: Mapping[str, float] = {}
    seconds: float | None = None
    error: str | None = None
    values: Mapping[str, Any] = {}


def read_run(folder: Path) -> Run:
    """Reads one run, or one stage, from its folder."""
    about, status, config = (_mapping(read_json(folder / f'{name}.json')) for name in ('run', 'status', 'config'))
    state = status.get('state') if about and status else None
    if state is None:
        state = 'broken' if (folder / 'status.json').exists() or not about else 'begun'
    # A process that was killed could not report it, but the system has released its lock.
    if state in ('running', 'begun') and is_abandoned(folder):
        state = 'killed'
    # JSON has no NaN: a metric that was not finite is written as null.
    metrics = {k: math.nan if v is None else v for k, v in _mapping(status.get('metrics')).items()}
    # `type(v) is int` excludes true and false, which are ints to isinstance.
    step, steps = (v if type(v) is int else None for v in map(status.get, ('step', 'steps')))
    seconds, error = status.get('seconds'), status.get('error')
    return Run(
        folder=folder,
        config=str(about.get('config') or '?'),
        overrides=_mapping(about.get('overrides')),
        target=_mapping(config.get('target')),
        state=str(state),
        step=step,
        steps=steps,
        metrics={k: v for k, v in metrics.items() if isinstance(v, int | float)},
        seconds=seconds if isinstance(seconds, int | float) else None,
        error=None if error is None else str(error),
        values=flatten_settings(config),
    )


def find_runs(folder: Path) -> list[Run]:
    """Returns every run in a folder and below it, sorted by path; a run in stages once, as its latest stage."""
    runs: dict[Path, Run] = {}
    for path, folders, files in os.walk(folder):
        if 'run.json' in files or 'config.json' in files:
            folders.clear()  # checkpoints and figures may be thousands of files
            run = read_run(Path(path))
            root = run.folder.parent if _STAGE.match(run.folder.name) else run.folder
            if root not in runs or _stage_number(run) > _stage_number(runs[root]):
                runs[root] = run
        folders.sort()
    return [run._replace(folder=root) for root, run in runs.items()]


def list_stages(folder: Path) -> list[tuple[str, Path]]:
    """Returns [('0-name/', folder of the stage)], and [('', folder)] for a run that is not in stages."""
    stages = [path for path in folder.iterdir() if _STAGE.match(path.name) and (path / 'run.json').exists()]
    stages.sort(key=lambda path: int(path.name.partition('-')[0]))
    return [(f'{path.name}/', path) for path in stages] or [('', folder)]


def read_curves(folders: Sequence[Path], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps [N] that the logs of all runs have, and the metric [runs, N] at these steps."""
    logs = [{row['step']: row[metric] for row in read_rows(f / 'metrics.jsonl') if metric in row} for f in folders]
    # Runs of a sweep may have stopped at different steps: a mean over seeds needs all of them.
    steps = sorted(set.intersection(*map(set, logs))) if logs else []
    return np.array(steps), np.array([[log[step] for step in steps] for log in logs])


def read_training_seconds(folder: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the seconds of training, without evaluations and compilation, and the metric [n] at each evaluation."""
    seconds, last_step, points = 0.0, 0, []
    for row in read_rows(folder / 'metrics.jsonl'):
        # A row has the mean time of the steps since the row before.
        if 'train/step_seconds' in row:
            seconds += (row['step'] - last_step) * row['train/step_seconds']
            last_step = row['step']
        if metric in row:
            points.append((seconds, row[metric]))
    return np.array([s for s, _ in points]), np.array([v for _, v in points])


def interpolate_crossing(seconds: np.ndarray, values: np.ndarray, threshold: float) -> float | None:
    """Returns when `values` first reach `threshold`, linear between evaluations; None if they never do."""
    above = np.flatnonzero(values >= threshold)
    if not len(above):
        return None
    i = above[0]
    if i == 0:
        return float(seconds[0])
    fraction = (threshold - values[i - 1]) / (values[i] - values[i - 1])
    return float(seconds[i - 1] + fraction * (seconds[i] - seconds[i - 1]))


def describe_result(run: Run | None, metric: str = '') -> str:
    """Returns `test/accuracy 0.9833` (the target's metric unless one is named), or why there is no such number."""
    if run is None:
        return 'left no run'
    name = metric or run.target.get('metric') or next(iter(run.metrics), 'metric')
    if name in run.metrics:
        return f'{name} {run.metrics[name]:.4g}'
    return (run.error or '').partition('\n')[0] or f'no {name}'


def format_result(metrics: Mapping[str, float], target: Mapping[str, Any]) -> str:
    """Returns `test/accuracy 0.9889 (target: at least 0.98)`, or all metrics if the target's was not measured."""
    name = str(target.get('metric'))
    if name not in metrics:
        return ', '.join(f'{name} {value:.4g}' for name, value in metrics.items()) or 'done'
    value, bounds = metrics[name], (('at_least', 'at least'), ('at_most', 'at most'))
    # Four decimals suit an accuracy; four digits show what would be 0.0000, or more digits than are measured.
    number = f'{value:.4f}' if 1e-3 <= abs(value) < 1e3 or value == 0 else f'{value:.4g}'
    return (
        f'{name} {number} (target: {" and ".join(f"{word} {target[key]:g}" for key, word in bounds if key in target)})'
    )


def finished_runs(runs: Sequence[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """Returns the runs that are done, each with its config. Raises CanonError if there are none."""
    finished = [(run, dict(read_json(run.folder / 'config.json') or {})) for run in runs if run.state == 'done']
    if not finished:
        raise CanonError('no run of this sweep is done, so there is nothing to draw')
    return finished


def get_setting(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a dotted key."""
    for part in key.split('.'):
        config = config[part]
    return config


def format_settings(config: Mapping[str, Any], keys: str | Sequence[str]) -> str:
    """Formats the values of the keys as a label, `relu, batch`; a model's name goes without its module."""
    return ', '.join(
        _format_setting(key, get_setting(config, key)) for key in ((keys,) if isinstance(keys, str) else keys)
    )


def _format_setting(key: str, value: Any) -> str:
    name = key.rpartition('.')[2]
    if isinstance(value, bool):
        return name if value else f'not {name}'
    return value.rpartition('.')[2] if isinstance(value, str) else f'{name} {value:g}'


def _stage_number(run: Run) -> int:
    return int(run.folder.name.partition('-')[0]) if _STAGE.match(run.folder.name) else -1


def flatten_settings(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns {dotted key: value} of nested mappings."""
    flat = {}
    for key, value in config.items():
        flat |= flatten_settings(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return flat


def _mapping(value: Any) -> dict[str, Any]:
    """Returns `value`, or an empty dict if damage has left something else in its place."""
    return dict(value) if isinstance(value, Mapping) else {}
