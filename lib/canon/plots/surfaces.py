"""Paths of optimizers over a function of two variables, still and animated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from canon.plots.animation import Animation


class Landscape(NamedTuple):
    """A function of two variables, as the background of paths.

    Attributes:
      height: points [..., 2] -> [...].
      box: (x0, x1, y0, y1).
      minima: points (x, y).
    """

    height: Callable[[Any], Any]
    box: tuple[float, float, float, float]
    minima: Sequence[tuple[float, float]] = ()


def draw_paths(
    landscape: Landscape, paths: Mapping[str, np.ndarray], labels: Mapping[str, str] = {}, title: str = ''
) -> Figure:
    """Draws paths over contours, which lie closer in height near the minimum. The start is a ring, minima are stars.

    Args:
      landscape: the function.
      paths: {name: points [steps + 1, 2]}, with one start.
      labels: {name: text of the legend}; names by default.
      title: of the figure.
    """
    figure, axes = _draw_landscape(landscape)
    for i, (name, path) in enumerate(paths.items()):
        axes.plot(*path.T, '-', color=f'C{i}', linewidth=1.3, alpha=0.9, label=labels.get(name, name))
        axes.plot(*path[-1], 'o', color=f'C{i}', markersize=5, markeredgecolor='w')
    _draw_start_and_legend(axes, paths)
    axes.set_title(title, fontsize=10)
    return figure


def animate_paths(
    landscape: Landscape, paths: Mapping[str, np.ndarray], labels: Mapping[str, str] = {}, frames: int = 60
) -> Animation:
    """Animates paths over contours, slowly at first: the step of a frame grows quadratically.

    Args:
      landscape: the function.
      paths: {name: points [steps + 1, 2]}, with one start.
      labels: {name: text of the legend}; names by default.
      frames: at most; the last one is held for a while.
    """
    figure, axes = _draw_landscape(landscape)
    lines = [
        axes.plot([], [], '-', color=f'C{i}', linewidth=1.3, label=labels.get(name, name))[0]
        for i, name in enumerate(paths)
    ]
    heads = [axes.plot([], [], 'o', color=f'C{i}', markersize=5)[0] for i in range(len(paths))]
    _draw_start_and_legend(axes, paths)
    last = min(len(path) for path in paths.values()) - 1
    # Most of the distance is covered in the first steps.
    steps = np.unique(np.rint(last * np.linspace(0, 1, frames) ** 2).astype(int))
    # The end is shown for a sixth of the frames, before the animation restarts.
    hold = [last] * max(len(steps) // 6, 1)

    def draw(step):
        for path, line, head in zip(paths.values(), lines, heads, strict=True):
            line.set_data(*path[: step + 1].T)
            head.set_data(*path[step : step + 1].T)
        axes.set_title(f'step {step}', fontsize=10)

    return Animation(figure, draw, [*steps.tolist(), *hold])


def _draw_landscape(landscape: Landscape):
    x0, x1, y0, y1 = landscape.box
    x, y = np.meshgrid(np.linspace(x0, x1, 201), np.linspace(y0, y1, 201))
    heights = np.asarray(landscape.height(np.stack([x, y], -1)), float)
    figure = Figure(figsize=(6, 4.5), dpi=80, layout='constrained')
    axes = figure.subplots()
    # The grid may miss the minima, whose heights are the lowest.
    low = min([heights.min(), *(float(landscape.height(np.asarray(m))) for m in landscape.minima)])
    # Geometric levels show the bottom of narrow valleys, where optimizers spend most of their steps.
    levels = low + (heights.max() - low) * np.geomspace(1e-4, 1, 16)
    axes.contour(x, y, heights, levels=levels, colors='0.75', linewidths=0.6, linestyles='solid')
    for minimum in landscape.minima:
        axes.plot(*minimum, '*', color='k', markersize=11, zorder=3)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel='x', ylabel='y')
    return figure, axes


def _draw_start_and_legend(axes, paths: Mapping[str, np.ndarray]) -> None:
    start = next(iter(paths.values()))[0]
    axes.plot(*start, 'o', color='k', fillstyle='none', markersize=8, zorder=3)
    axes.legend(fontsize=8, loc='best', framealpha=0.9)
