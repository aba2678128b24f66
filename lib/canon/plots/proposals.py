"""Recall of proposals against their number and against the overlap that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from canon.plots.bars import style_axes

_COLOURS = ('#4c78a8', '#f58518', '#54a24b', '#e45756', '#72b7b2', '#b279a2')
_THRESHOLDS = np.linspace(0.5, 1, 51)


def draw_proposal_recall(
    best_iou: Mapping[str, np.ndarray],
    counts: Mapping[str, Sequence[float] | np.ndarray],
    threshold: float = 0.5,
    scores: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Draws the recall of several kinds of proposals against their number, and of all of them against the overlap.

    Args:
      best_iou: of each kind, [Q, N], the best IoU of every object with the first counts[n] proposals of its image.
      counts: of each kind, N mean numbers of proposals per image.
      threshold: IoU from which an object is reached, for the left part.
      scores: of each kind, the mAP of a detector with so many proposals, N, for a third part; None leaves it out.
    """
    parts = 2 if scores is None else 3
    figure = Figure(figsize=(4 * parts, 3.4), layout='constrained')
    left, right, *more = figure.subplots(1, parts)
    for i, (name, values) in enumerate(best_iou.items()):
        values, colour = np.asarray(values), _COLOURS[i % len(_COLOURS)]
        if not len(values):
            continue
        left.plot(counts[name], (values >= threshold).mean(0), 'o-', markersize=3, color=colour, label=name)
        recall = (values[:, -1:] >= _THRESHOLDS).mean(0)
        # The area below the curve on both sides, as average recall is defined (Hosang et al. 2015).
        average = 2 * float(np.trapezoid(recall, _THRESHOLDS))
        right.plot(_THRESHOLDS, recall, color=colour, label=f'{name}, {counts[name][-1]:.0f}: average {average:.2f}')
    left.set(xscale='log', ylim=(0, 1), xlabel='proposals per image', ylabel=f'recall at an IoU of {threshold:g}')
    right.set(xlim=(0.5, 1), ylim=(0, 1), xlabel='IoU', ylabel='recall')
    for axes in more:
        for i, (name, values) in enumerate((scores or {}).items()):
            axes.plot(counts[name], values, 'o-', markersize=3, color=_COLOURS[i % len(_COLOURS)], label=name)
        axes.set(xscale='log', ylim=(0, 1), xlabel='proposals per image', ylabel='mAP at 0.5')
    for axes in (left, right, *more):
        style_axes(axes)
        if axes.lines:
            axes.legend(frameon=False, fontsize=7.5)
    return figure
