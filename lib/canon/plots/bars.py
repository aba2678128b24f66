"""Bar charts of classifiers: accuracy by class, and reliability diagrams."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_MAX_BARS = 40  # beyond it labels overlap


def draw_class_accuracy(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws the accuracy of each class, worst first; of more than 40 classes the 20 worst and the 20 best.

    Args:
      counts: confusion matrix [C, C] of (true class, predicted class).
      names: C class names.
    """
    counts = np.asarray(counts)
    sizes = counts.sum(1)
    present = np.flatnonzero(sizes)
    accuracy = np.diagonal(counts)[present] / sizes[present]
    order = np.argsort(accuracy, kind='stable')  # classes of equal accuracy keep their order
    classes = order
    if len(order) > _MAX_BARS:
        classes = np.concatenate([order[: _MAX_BARS // 2], order[-_MAX_BARS // 2 :]])
    figure = Figure(figsize=(5, 1.1 + 0.24 * max(len(classes), 3)), layout='constrained')
    axes = figure.add_subplot()
    rows = np.arange(len(classes))
    axes.barh(rows, accuracy[classes], color='#4c78a8')
    # Counts beside the names show how much an accuracy of few examples can be trusted.
    labels = [f'{names[present[i]]} ({np.diagonal(counts)[present[i]]} of {sizes[present[i]]})' for i in classes]
    axes.set_yticks(rows, labels, fontsize=8)
    if len(classes) < len(order):
        axes.axhline(_MAX_BARS / 2 - 0.5, color='k', linewidth=0.8, linestyle='--')
    mean = float(accuracy.mean()) if len(accuracy) else float('nan')
    axes.axvline(mean, color='#f58518', linewidth=1.2, label=f'mean of {len(order)} classes {mean:.4f}')
    selection = f': {_MAX_BARS // 2} worst, {_MAX_BARS // 2} best' if len(classes) < len(order) else ''
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xlabel='fraction of the class that is correct')
    axes.set_title(f'accuracy by class{selection}', fontsize=10)
    _style(axes)
    figure.legend(loc='outside lower right', frameon=False, fontsize=8)
    return figure


def draw_reliability(count: np.ndarray, confidence: np.ndarray, correct: np.ndarray, error: float) -> Figure:
    """Draws a reliability diagram, Guo et al. 2017, figure 1, above the distribution of confidence.

    Args:
      count: predictions in each of M bins of confidence.
      confidence: sums of their confidence, [M].
      correct: numbers of correct ones, [M].
      error: the expected calibration error, for the title.
    """
    count, confidence, correct = (np.asarray(x, float) for x in (count, confidence, correct))
    edges = np.linspace(0, 1, len(count) + 1)
    filled = count > 0
    accuracy = np.divide(correct, count, where=filled, out=np.zeros_like(count))
    mean_confidence = np.divide(confidence, count, where=filled, out=np.zeros_like(count))
    figure = Figure(figsize=(4.4, 4.4), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    style = dict(width=np.diff(edges), align='edge', edgecolor='w', linewidth=0.5)
    upper.bar(edges[:-1], accuracy, color='#4c78a8', label='accuracy', **style)
    gap = dict(color='#e45756', alpha=0.45, label='gap to the confidence')
    upper.bar(edges[:-1], np.where(filled, mean_confidence - accuracy, 0), bottom=accuracy, **{**style, **gap})
    upper.plot([0, 1], [0, 1], color='k', linewidth=0.8, linestyle='--')
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel='accuracy')
    upper.set_title(f'expected calibration error {error:.4f}', fontsize=10)
    upper.legend(frameon=False, fontsize=8, loc='upper left')
    lower.bar(edges[:-1], count / max(count.sum(), 1), color='#9aa5b8', **style)
    lower.set(xlabel='confidence: the largest probability', ylabel='fraction of all')
    for axes in (upper, lower):
        _style(axes)
    return figure


def _style(axes) -> None:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
