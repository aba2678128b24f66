"""Ways of optimizers over a surface, still and walking."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from canon.plots.animation import Animation


class Ground(NamedTuple):
    """height: [..., 2] -> [...]; box: (x0, x1, y0, y1); minima: points (x, y)."""

    height: Callable[[Any], Any]
    box: tuple[float, float, float, float]
    minima: Sequence[tuple[float, float]] = ()


def paths(ground: Ground, ways: Mapping[str, np.ndarray], labels: Mapping[str, str] = {}, title: str = '') -> Figure:
    """Contours (closer in height near the bottom) and each way [steps + 1, 2]; start a ring, minima stars."""
    figure, axes = _ground(ground)
    for i, (name, way) in enumerate(ways.items()):
        axes.plot(*way.T, '-', color=f'C{i}', linewidth=1.3, alpha=0.9, label=labels.get(name, name))
        axes.plot(*way[-1], 'o', color=f'C{i}', markersize=5, markeredgecolor='w')
    _legend(axes, ways)
    axes.set_title(title, fontsize=10)
    return figure


def walk(ground: Ground, ways: Mapping[str, np.ndarray], labels: Mapping[str, str] = {}, frames: int = 60) -> Animation:
    """The same as it happened, in `frames` pictures: many of the first steps, fewer later."""
    figure, axes = _ground(ground)
    lines = [
        axes.plot([], [], '-', color=f'C{i}', linewidth=1.3, label=labels.get(n, n))[0] for i, n in enumerate(ways)
    ]
    heads = [axes.plot([], [], 'o', color=f'C{i}', markersize=5)[0] for i in range(len(ways))]
    _legend(axes, ways)
    last = min(len(way) for way in ways.values()) - 1
    moments = np.unique(np.rint(last * np.linspace(0, 1, frames) ** 2).astype(int))
    hold = [last] * max(len(moments) // 6, 1)  # the end is looked at before it begins anew

    def draw(moment):
        for way, line, head in zip(ways.values(), lines, heads, strict=True):
            line.set_data(*way[: moment + 1].T)
            head.set_data(*way[moment : moment + 1].T)
        axes.set_title(f'step {moment}', fontsize=10)

    return Animation(figure, draw, [*moments.tolist(), *hold])


def _ground(ground: Ground):
    x0, x1, y0, y1 = ground.box
    x, y = np.meshgrid(np.linspace(x0, x1, 201), np.linspace(y0, y1, 201))
    heights = np.asarray(ground.height(np.stack([x, y], -1)), float)
    figure = Figure(figsize=(6, 4.5), dpi=80, layout='constrained')
    axes = figure.subplots()
    low = min([heights.min(), *(float(ground.height(np.asarray(m))) for m in ground.minima)])
    levels = low + (heights.max() - low) * np.geomspace(1e-4, 1, 16)
    axes.contour(x, y, heights, levels=levels, colors='0.75', linewidths=0.6, linestyles='solid')
    for place in ground.minima:
        axes.plot(*place, '*', color='k', markersize=11, zorder=3)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel='x', ylabel='y')
    return figure, axes


def _legend(axes, ways: Mapping[str, np.ndarray]) -> None:
    start = next(iter(ways.values()))[0]
    axes.plot(*start, 'o', color='k', fillstyle='none', markersize=8, zorder=3)
    axes.legend(fontsize=8, loc='best', framealpha=0.9)
