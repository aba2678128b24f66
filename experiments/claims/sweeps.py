"""What the figures of all claims share: the finished runs of a sweep, their settings, and each method at its best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from canon import plots
from canon.errors import CanonError
from canon.train.runs import Run
from canon.train.workdir import read_json

Point = tuple[str, float, float, Path]  # method, swept value, result (lower is better), folder of the run
ReadCurves = Callable[[str, Sequence[Path]], Any]  # method, folders of its seeds -> steps [n], values [seeds, n]


def draw_best(points: Iterable[Point], panels: Mapping[str, ReadCurves], unit: str = '', **axes: Any) -> Figure:
    """Draws all results on the left, and the curves of each method at its best value in one panel per metric.

    Args:
      points: of all runs; seeds of one method and value count by their median.
      panels: {title: reads the curves of a method}.
      unit: precedes the value in the legend.
      **axes: of `canon.plots.draw_sweep`.
    """
    finals: dict[str, dict[float, list[float]]] = {}
    folders: dict[tuple[str, float], list[Path]] = {}
    for name, value, result, folder in points:
        finals.setdefault(name, {}).setdefault(value, []).append(result)
        folders.setdefault((name, value), []).append(folder)
    best = {name: plots.best_setting(line) for name, line in finals.items()}
    curves = {
        panel: {name: read(name, folders[name, value]) for name, value in best.items()}
        for panel, read in panels.items()
    }
    labels = {n: f'{n}  {unit}{value:g}: {plots.median_score(finals[n][value]):.3g}' for n, value in best.items()}
    return plots.draw_sweep(finals, curves, labels, **axes)


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
    return ', '.join(_format(key, get_setting(config, key)) for key in ((keys,) if isinstance(keys, str) else keys))


def _format(key: str, value: Any) -> str:
    name = key.rpartition('.')[2]
    if isinstance(value, bool):
        return name if value else f'not {name}'
    return value.rpartition('.')[2] if isinstance(value, str) else f'{name} {value:g}'
