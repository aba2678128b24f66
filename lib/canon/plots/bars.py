"""Bar charts by class: accuracy of classifiers, any score by class and by size; reliability diagrams."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MAX_BARS = 40  # beyond it labels overlap
_SIZES = {'small': '#9ecae1', 'medium': '#4292c6', 'large': '#084594'}


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
    # Counts next to the names show how much an accuracy of few examples can be trusted.
    labels = [f'{names[present[i]]} ({np.diagonal(counts)[present[i]]} of {sizes[present[i]]})' for i in classes]
    axes.set_yticks(rows, labels, fontsize=8)
    if len(classes) < len(order):
        axes.axhline(_MAX_BARS / 2 - 0.5, color='k', linewidth=0.8, linestyle='--')
    mean = float(accuracy.mean()) if len(accuracy) else float('nan')
    axes.axvline(mean, color='#f58518', linewidth=1.2, label=f'mean of {len(order)} classes {mean:.4f}')
    selection = f': {_MAX_BARS // 2} worst, {_MAX_BARS // 2} best' if len(classes) < len(order) else ''
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xlabel='fraction of the class that is correct')
    axes.set_title(f'accuracy by class{selection}', fontsize=10)
    style_axes(axes)
    figure.legend(loc='outside lower right', frameon=False, fontsize=8)
    return figure


def draw_class_scores(
    scores: np.ndarray,
    class_names: Sequence[str],
    label: str,
    size_scores: np.ndarray | None = None,
    notes: Sequence[str] | None = None,
) -> Figure:
    """Draws a score in 0..1 by class, worst first, and by class and size: average precision, intersection over union.

    Of more than 40 classes the 20 worst and the 20 best are drawn.

    Args:
      scores: [C]; NaN for a class that has none and is left out.
      class_names: C names.
      label: of the horizontal axis.
      size_scores: [C, 3], of small, medium and large objects, in a second panel; NaN where there are none.
      notes: written after each class's name, for example how many objects it has.
    """
    scores = np.asarray(scores, float)
    present = np.flatnonzero(~np.isnan(scores))
    order = present[np.argsort(scores[present], kind='stable')]
    drawn = order
    if len(order) > _MAX_BARS:
        drawn = np.concatenate([order[: _MAX_BARS // 2], order[-_MAX_BARS // 2 :]])
    panels, step = (1, 0.26) if size_scores is None else (2, 0.4)
    height = 1.2 + step * max(len(drawn), 3) + 0.2 * (panels - 1)
    figure = Figure(figsize=(4.6 * panels + 0.4, height), layout='constrained')
    left, *right = np.atleast_1d(figure.subplots(1, panels, sharey=True))
    rows = np.arange(len(drawn))
    left.barh(rows, scores[drawn], color='#4c78a8', height=0.7)
    for row, score in zip(rows, scores[drawn], strict=True):
        if score > 0.85:  # beyond the bar it would leave the axes
            left.text(score - 0.01, row, f'{score:.3f}', va='center', ha='right', fontsize=7, color='w')
        else:
            left.text(score + 0.01, row, f'{score:.3f}', va='center', fontsize=7)
    left.set_yticks(rows, [class_names[i] + (f' ({notes[i]})' if notes else '') for i in drawn], fontsize=8)
    mean = float(scores[present].mean()) if len(present) else float('nan')
    left.axvline(mean, color='#f58518', linewidth=1.2)
    left.set_title(f'mean of {len(order)} classes {mean:.4f}', fontsize=10)
    for axes in right:
        sizes = np.asarray(size_scores, float)
        for k, (name, colour) in enumerate(_SIZES.items()):
            known = sizes[present, k][~np.isnan(sizes[present, k])]
            text = f'{name}, mean {known.mean():.3f}' if len(known) else f'{name}, no objects'
            places, values = rows + 0.26 * (k - 1), sizes[drawn, k]
            axes.barh(places, np.nan_to_num(values), color=colour, height=0.25, label=text)
            for place in places[np.isnan(values)]:  # a score of 0 has an empty bar, what has none a dash
                axes.text(0.006, place, '–', va='center', fontsize=7, color=colour)
        axes.set_title('by size of the objects', fontsize=10)
        figure.legend(loc='outside lower right', ncols=3, frameon=False, fontsize=8)
    for axes in (left, *right):
        axes.set(xlim=(0, 1), ylim=(len(drawn) - 0.4, -0.6), xlabel=label)
        style_axes(axes)
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
        style_axes(axes)
    return figure


def style_axes(axes: Axes) -> None:
    """Gives axes a light grid behind what is drawn, and no frame above and at the right."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
