"""Sweeps over one setting: every method compared at its best."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Scores = Mapping[float, Sequence[float]]  # setting -> final scores of its seeds, lower is better
Curve = tuple[np.ndarray, np.ndarray]  # steps [n], values [seeds, n]
Point = tuple[str, float, float, Path]  # method, swept setting, score (lower is better), folder of the run
ReadCurves = Callable[[str, Sequence[Path]], Curve]  # method, folders of its seeds -> their curve
_WORST_RATIO = 30  # scores this many times the best are cut off


def draw_sweep(
    finals: Mapping[str, Scores],
    curves: Mapping[str, Mapping[str, Curve]] = {},
    labels: Mapping[str, str] = {},
    xlabel: str = '',
    ylabel: str = '',
    title: str = '',
) -> Figure:
    """Draws the final scores of methods against the swept setting, and their training curves.

    The left panel has one dot per seed, a line through the medians, and a ring around the best setting of each method.
    The panels to the right have the median of the seeds in a band from the lowest to the highest. Axes of positive
    values that differ much are logarithmic.

    Args:
      finals: {method: {setting: final scores of its seeds}}, lower is better.
      curves: {panel: {method: curve}}.
      labels: {method: text of the legend}; names by default.
      xlabel: of the left panel.
      ylabel: of the left panel.
      title: of the figure.
    """
    panels = 1 + len(curves)
    figure = Figure(figsize=(4.6 * panels, 4.2), layout='constrained')
    first, *rest = np.atleast_1d(figure.subplots(1, panels))
    styles = {name: dict(color=f'C{i % 10}', linestyle='-' if i < 10 else '--') for i, name in enumerate(finals)}
    for name, scores in finals.items():
        xs, style, best = sorted(scores), styles[name], best_setting(scores)
        first.plot(xs, [median_score(scores[x]) for x in xs], **style, label=labels.get(name, name))
        seeds = [x for x in xs for _ in scores[x]], [y for x in xs for y in scores[x]]
        first.plot(*seeds, '.', color=style['color'], ms=3)
        first.plot(best, median_score(scores[best]), 'o', color=style['color'], fillstyle='none', ms=9)
    first.set(xlabel=xlabel, ylabel=ylabel)
    settings = sorted({x for scores in finals.values() for x in scores})
    if settings[0] > 0:
        first.set_xscale('log')
        if len(settings) <= 8:  # few enough to label the settings themselves instead of powers of ten
            first.set_xticks(settings, [f'{x:g}' for x in settings])
            first.minorticks_off()
    for axes, (panel, lines) in zip(rest, curves.items(), strict=True):
        for name, (x, values) in lines.items():
            if len(x):
                axes.plot(x, np.median(values, 0), **styles[name], linewidth=1.3)
                axes.fill_between(x, values.min(0), values.max(0), color=styles[name]['color'], alpha=0.15, lw=0)
        axes.set(xlabel='step', title=panel)
    for axes in (first, *rest):
        values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.zeros(1)])
        values = values[np.isfinite(values)]
        if len(values) and values.min() > 0 and values.max() > 5 * values.min():
            axes.set_yscale('log')
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.3)
    least = min(median_score(scores[best_setting(scores)]) for scores in finals.values())
    if 0 < _WORST_RATIO * least < first.get_ylim()[1]:
        first.set_ylim(top=_WORST_RATIO * least)
    longest = max(len(labels.get(name, name)) for name in finals)
    columns = max(1, min(len(finals), 60 * panels // (longest + 8)))  # a panel is about 60 letters wide
    figure.legend(loc='outside lower center', ncols=columns, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_best(points: Iterable[Point], panels: Mapping[str, ReadCurves], unit: str = '', **axes: Any) -> Figure:
    """Draws all results on the left, and the curves of each method at its best value in one panel per metric.

    Args:
      points: of all runs; seeds of one method and value count by their median.
      panels: {title: reads the curves of a method}.
      unit: precedes the value in the legend.
      **axes: of `draw_sweep`.
    """
    finals: dict[str, dict[float, list[float]]] = {}
    folders: dict[tuple[str, float], list[Path]] = {}
    for name, value, result, folder in points:
        finals.setdefault(name, {}).setdefault(value, []).append(result)
        folders.setdefault((name, value), []).append(folder)
    best = {name: best_setting(line) for name, line in finals.items()}
    curves = {
        panel: {name: read(name, folders[name, value]) for name, value in best.items()}
        for panel, read in panels.items()
    }
    labels = {n: f'{n}  {unit}{value:g}: {median_score(finals[n][value]):.3g}' for n, value in best.items()}
    return draw_sweep(finals, curves, labels, **axes)


def best_setting(scores: Scores) -> float:
    """Returns the setting with the lowest median score."""
    return min(sorted(scores), key=lambda x: median_score(scores[x]))


def median_score(values: Sequence[float]) -> float:
    """Returns the median; NaN, of a seed that diverged, counts as infinite."""
    return median(np.nan_to_num(np.asarray(values, float), nan=np.inf, posinf=np.inf).tolist())
