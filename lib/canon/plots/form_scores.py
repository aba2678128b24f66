"""Several metrics of several systems, each with all seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from canon.plots.bars import style_axes
from canon.plots.sweeps import median_score


def draw_form_scores(scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = '', ylabel: str = '') -> Figure:
    """Draws groups of bars: a group per metric, a bar per system up to the median of its seeds, a dot per seed.

    Args:
      scores: {system: {metric: scores of its seeds}}; all systems have the same metrics. NaN is left out.
      title: of the figure.
      ylabel: of the scores.
    """
    metrics = list(next(iter(scores.values()), {}))
    figure = Figure(figsize=(1.8 + 0.42 * max(len(metrics) * len(scores), 6), 3.8), layout='constrained')
    axes = figure.add_subplot()
    width = 0.8 / max(len(scores), 1)
    for i, (system, values) in enumerate(scores.items()):
        places = np.arange(len(metrics)) + (i - (len(scores) - 1) / 2) * width
        # Diverged seeds are left out: `median_score` counts NaN as an infinite loss, which would top these scores.
        seeds = [[v for v in values[metric] if np.isfinite(v)] for metric in metrics]
        medians = [median_score(s) if s else 0.0 for s in seeds]
        axes.bar(places, medians, width=0.92 * width, color=f'C{i}', label=system, alpha=0.8)
        for place, median, dots in zip(places, medians, seeds, strict=True):
            axes.plot([place] * len(dots), dots, '.', color='k', ms=4)
            axes.annotate(
                f'{median:.2f}', (place, max(dots, default=0)), xytext=(0, 3), textcoords='offset points', ha='center',
                fontsize=7,
            )  # fmt: skip
    axes.set_xticks(range(len(metrics)), metrics, fontsize=8)
    axes.set(ylabel=ylabel, title=title)
    axes.margins(y=0.12)
    style_axes(axes)
    axes.legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
    return figure
