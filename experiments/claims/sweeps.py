"""The picture of a sweep: what each method came to at each value, and how it went at its best one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from canon import plots

Point = tuple[str, float, float, Path]  # method, swept value, what it came to (less is better), the run's folder
Curves = Callable[[str, Sequence[Path]], Any]  # method, folders of its seeds -> steps [n], values [seeds, n]


def at_best(points: Iterable[Point], panels: Mapping[str, Curves], unit: str = '', **axes: Any) -> Figure:
    """Left, all values; right a panel for each of `panels`, at the value with the lowest median of the seeds.

    unit: goes before the value in the legend. axes: of `canon.plots.draw_sweep`.
    """
    finals: dict[str, dict[float, list[float]]] = {}
    folders: dict[tuple[str, float], list[Path]] = {}
    for name, value, result, folder in points:
        finals.setdefault(name, {}).setdefault(value, []).append(result)
        folders.setdefault((name, value), []).append(folder)
    best = {name: plots.best_setting(line) for name, line in finals.items()}
    curves = {
        panel: {name: of(name, folders[name, value]) for name, value in best.items()} for panel, of in panels.items()
    }
    labels = {n: f'{n}  {unit}{value:g}: {plots.median_score(finals[n][value]):.3g}' for n, value in best.items()}
    return plots.draw_sweep(finals, curves, labels, **axes)
