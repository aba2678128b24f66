"""Features of several domains in the plane, and the examples of a source that count most and least."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from canon.plots.bars import style_axes
from canon.plots.images import draw_gallery
from canon.plots.pictures import hide_frame

_SHOWN_CLASSES = 20  # more would not be told apart


def draw_domain_features(
    panels: Mapping[str, np.ndarray], is_target: np.ndarray, classes: Mapping[str, np.ndarray], title: str = ''
) -> Figure:
    """Draws points of two domains, a column per panel: above coloured by domain, below by class.

    Args:
      panels: {title: points [N, 2] of both domains}.
      is_target: bool [N].
      classes: {title: classes [N] by which the points of that panel are coloured}.
      title: of the figure.
    """
    figure = Figure(figsize=(4.2 * len(panels), 8.0), layout='constrained')
    axes = np.reshape(figure.subplots(2, len(panels)), (2, -1))
    for column, (name, points) in enumerate(panels.items()):
        by_domain, by_class = axes[:, column]
        for domain, rows, colour in (('source', ~is_target, 'C0'), ('target', is_target, 'C3')):
            by_domain.scatter(*points[rows].T, s=7, color=colour, alpha=0.6, linewidths=0, label=domain)
        hide_frame(by_domain, name, fontsize=10)
        for rows, marker in ((~is_target, 'o'), (is_target, '^')):
            colours = [f'C{c % 10}' if c < _SHOWN_CLASSES else '0.5' for c in classes[name][rows]]
            by_class.scatter(*points[rows].T, s=9, c=colours, marker=marker, alpha=0.7, linewidths=0)
        hide_frame(by_class, 'by class (o source, ^ target as predicted)', fontsize=8)
    axes[0, 0].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def draw_example_weights(images: np.ndarray, weights: np.ndarray, count: int = 16, title: str = '') -> Figure:
    """Draws the examples of greatest weight, then those of least weight.

    Args:
      images: [N, H, W, C], uint8.
      weights: of the examples, [N].
      count: images of either kind.
      title: of the figure.
    """
    order = np.argsort(-np.asarray(weights), kind='stable')
    count = min(count, len(order) // 2)
    chosen = np.concatenate([order[:count], order[len(order) - count :]])
    titles: Sequence[str] = [f'{weights[i]:.3g}' for i in chosen]
    return draw_gallery(images[chosen], titles, 8, title)


def draw_mean_errors(
    lines: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str, ylabel: str, title: str = ''
) -> Figure:
    """Draws the mean of each line's values with its standard error against a number, or as bars at a single number.

    Args:
      lines: {name: {x: values of the seeds}}.
      xlabel: of the numbers.
      ylabel: of the values.
      title: of the figure.
    """
    figure = Figure(figsize=(6.0, 4.0), layout='constrained')
    axes = figure.add_subplot()
    places = sorted({x for line in lines.values() for x in line})
    for number, (name, line) in enumerate(lines.items()):
        xs = sorted(line)
        means, errors = zip(*(mean_and_error(line[x]) for x in xs), strict=True)
        if len(places) == 1:
            axes.bar([number], means, yerr=np.nan_to_num(errors), color=f'C{number % 10}', alpha=0.8, capsize=3)
            axes.annotate(f'{means[0]:.3f}', (number, means[0]), xytext=(4, 4), textcoords='offset points', fontsize=8)
        else:
            # In order of size: 0, 1, 5 and 100 labels would share a corner of a linear axis.
            axes.errorbar(
                [places.index(x) for x in xs], means, np.nan_to_num(errors), label=name, marker='o', ms=4, capsize=3
            )
    if len(places) == 1:
        axes.set_xticks(range(len(lines)), list(lines), rotation=20, fontsize=8)
    else:
        axes.set_xticks(range(len(places)), [f'{x:g}' for x in places])
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel=xlabel if len(places) > 1 else '', ylabel=ylabel, title=title)
    style_axes(axes)
    return figure


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error, s / sqrt(n); the error of a single value is NaN."""
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return float(array.mean()), float(error)
