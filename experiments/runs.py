"""What run folders say of themselves: the reading side of `run.json` and `status.json`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon.errors import UsageError
from canon.train.log import read_rows
from canon.train.workdir import is_abandoned, read_json
from experiments import configs, overrides

STAGE = re.compile(r'\d+-')  # a run in stages keeps each stage in a folder `0-name` of its own


class Run(NamedTuple):
    """A run as its folder describes it.

    state: 'done', 'stopped', 'failed' or 'running', as the run wrote it, or 'begun' before it did; 'killed' where it
    says that it runs and no process holds its folder; 'broken' where its files cannot be read.
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
    values: Mapping[str, Any] = {}  # of every dotted key of its config, overridden or not


def read(folder: Path) -> Run:
    """The run in `folder`, whatever is missing or half written there."""
    about, status, config = (_mapping(folder / f'{name}.json') for name in ('run', 'status', 'config'))
    state = status.get('state') if about and status else None
    if state is None:
        state = 'broken' if (folder / 'status.json').exists() or not about else 'begun'
    if state in ('running', 'begun') and is_abandoned(folder):
        state = 'killed'
    metrics = {k: math.nan if v is None else v for k, v in _dict(status.get('metrics')).items()}
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    step, steps = (v if type(v) is int else None for v in map(status.get, ('step', 'steps')))
    seconds, error = status.get('seconds'), status.get('error')
    return Run(
        folder=folder,
        config=str(about.get('config') or '?'),
        overrides=_dict(about.get('overrides')),
        target=_dict(config.get('target')),
        state=str(state),
        step=step,
        steps=steps,
        metrics=numbers,
        seconds=seconds if isinstance(seconds, int | float) else None,
        error=None if error is None else str(error),
        values=_flat(config),
    )


def below(folder: Path) -> list[Run]:
    """Every run in `folder` and below; a run in stages counts once, as its last stage stands."""
    found: dict[Path, Run] = {}
    for path, folders, files in os.walk(folder):
        if 'run.json' in files or 'config.json' in files:
            folders.clear()  # checkpoints and figures, thousands of files at times
            run = read(Path(path))
            whole = run.folder.parent if STAGE.match(run.folder.name) else run.folder
            before = found.get(whole)
            if before is None or _stage(run) > _stage(before):
                found[whole] = run
        folders.sort()
    return [run._replace(folder=whole) for whole, run in found.items()]


def find(source: str, flags: Sequence[str], root: Path) -> Run | None:
    """The run of the overrides in `flags` below the folder of all runs; None where there is none."""
    try:
        values = overrides.apply(overrides.load(source), overrides.read_flags(flags)[0])
    except UsageError:  # which is why there is no run
        return None
    return next(iter(below(workdir(source, values, root))), None)


def workdir(source: str | None, values: Mapping[str, Any], root: Path) -> Path:
    """ROOT/<task>/<name>[-arg]/<hash of the overrides>: the same words find the same folder, so they resume."""
    text = json.dumps(values, sort_keys=True, default=str)
    last = hashlib.sha256(text.encode()).hexdigest()[:8] if values else 'default'
    return home(source or '', root) / last


def home(source: str, root: Path) -> Path:
    """ROOT/<task>/<name>[-arg]: the folder with the runs of one config."""
    path, argument = configs.split(source)
    return root / path.absolute().parent.name / (path.stem + (f'-{argument}' if argument else ''))


def curve(folders: Sequence[Path], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and the values [runs, n] of one metric of the logs, at the steps that all of them have."""
    logs = [{row['step']: row[metric] for row in read_rows(f / 'metrics.jsonl') if metric in row} for f in folders]
    steps = sorted(set.intersection(*map(set, logs))) if logs else []
    return np.array(steps), np.array([[log[step] for step in steps] for log in logs])


def option(flags: Sequence[str], name: str, default: str = '') -> str:
    """The last value given to `--name=`."""
    values = [flag.partition('=')[2] for flag in flags if flag.startswith(f'--{name}=')]
    return values[-1] if values else default


def root(flags: Sequence[str]) -> Path:
    """The folder of all runs."""
    return Path(option(flags, 'runs', 'runs')).expanduser()


def outcome(run: Run | None, metric: str = '') -> str:
    """`test/accuracy 0.9833`: the target's metric, or the first one, or why there is none."""
    if run is None:
        return 'left no run'
    name = metric or run.target.get('metric') or next(iter(run.metrics), 'metric')
    if name in run.metrics:
        return f'{name} {run.metrics[name]:.4g}'
    return (run.error or '').partition('\n')[0] or f'no {name}'


def _stage(run: Run) -> int:
    return int(run.folder.name.partition('-')[0]) if STAGE.match(run.folder.name) else -1


def _flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{dotted key: value} of nested mappings."""
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return flat


def _mapping(path: Path) -> dict[str, Any]:
    return _dict(read_json(path))


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
