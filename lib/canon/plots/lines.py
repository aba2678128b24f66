"""Curves of metrics over steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def draw_curves(series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str = 'step') -> Figure:
    """Draws curves, one panel per metric: 'train/loss' and 'test/loss' share a panel.

    Panels whose positive values span more than two decades are logarithmic.

    Args:
      series: {name: (x, y) points}.
      xlabel: of all panels.
    """
    panels: dict[str, dict[str, Sequence]] = {}
    for name, points in series.items():
        group, _, metric = name.rpartition('/')
        # 'train/loss' and 'test/loss' are two lines of the panel 'loss'.
        panels.setdefault(metric, {})[group or metric] = points
    columns = min(len(panels), 3) or 1
    rows = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout='constrained')
    for i, (metric, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for label, points in lines.items():
            x, y = np.asarray(points, float).reshape(-1, 2).T
            axes.plot(x, y, label=label, marker='.' if len(x) < 30 else None, linewidth=1.4, markersize=4)
        _set_scale(axes, lines)
        axes.set(title=metric.replace('_', ' '), xlabel=xlabel)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        if len(lines) > 1:
            many = len(lines) > 8
            # A legend of many lines is left out of the layout, which would shrink the panel for it.
            axes.legend(frameon=False, ncols=1 + many, fontsize=5 if many else None).set_in_layout(not many)
    return figure


def _set_scale(axes, lines: Mapping[str, Sequence]) -> None:
    values = np.concatenate([np.asarray(points, float).reshape(-1, 2)[:, 1] for points in lines.values()])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 100:
        axes.set_yscale('log')
