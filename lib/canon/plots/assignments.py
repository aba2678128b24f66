"""Soft assignments as matrices."""

import numpy as np
from matplotlib.figure import Figure

_NUMBERED = 20  # rows up to which probabilities fit into the cells


def draw_assignment(plan: np.ndarray, matches: np.ndarray, title: str = '') -> Figure:
    """Draws the probabilities of links between tracks and detections, with a ring around each true one.

    Args:
      plan: [N, M] in 0..1; rows are tracks.
      matches: int [N], the true column of each row, -1 if it has none.
      title: of the figure.
    """
    rows, columns = plan.shape
    figure = Figure(figsize=(2.0 + 0.4 * max(columns, 4), 1.6 + 0.4 * max(rows, 4)), layout='constrained')
    axes = figure.add_subplot(xlabel='detection', ylabel='track', title=title)
    image = axes.imshow(plan.reshape(rows, columns), cmap='Blues', vmin=0, vmax=1, aspect='auto')
    figure.colorbar(image, ax=axes, fraction=0.046)
    axes.set(xticks=range(columns), yticks=range(rows))
    for i, j in np.argwhere(plan > 0.05) if max(rows, columns) <= _NUMBERED else ():
        axes.text(
            j, i, f'{plan[i, j]:.2f}', ha='center', va='center', fontsize=7, color='w' if plan[i, j] > 0.5 else 'k'
        )
    linked = np.flatnonzero(np.asarray(matches) >= 0)
    axes.plot(np.asarray(matches)[linked], linked, 'o', markersize=20, markerfacecolor='none', markeredgecolor='C1')
    return figure
