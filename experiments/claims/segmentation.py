"""The figure of a sweep over the strides of segmentation networks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import Run, finished_runs, get_setting

_PANELS = {'test/mean_iu': 'mean IU', 'test/pixel_accuracy': 'pixel accuracy'}


def draw_strides(runs: Sequence[Run], title: str = '') -> Figure:
    """Draws mean IU and pixel accuracy of every seed against the stride of the finest scores: FCN-32s, 16s and 8s.

    Args:
      runs: of the sweep over model.name and seed.
      title: of the figure.
    """
    points: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for run, config in finished_runs(runs):
        name = str(get_setting(config, 'model.name')).partition('.')[2]
        stride = float(''.join(filter(str.isdigit, name)))  # fcn16s has scores of stride 16
        for metric, label in _PANELS.items():
            _, scores = points.setdefault(label, {}).setdefault(name, (stride, []))
            scores.append(run.metrics.get(metric, float('nan')))
    labels = dict(xlabel='stride of the finest scores, pixels', ylabel='of the test scenes', title=title)
    figure = plots.draw_score_by_cost(points, **labels, legend=True)
    strides = sorted({stride for panel in points.values() for stride, _ in panel.values()})
    (axes,) = figure.axes
    axes.set_xticks(strides, [f'{stride:g}' for stride in strides])
    axes.set_xticks([], minor=True)  # the axis is logarithmic
    return figure
