"""Word accuracy against the size of the lexicon."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from canon.plots.bars import style_axes


def draw_lexicon_sizes(
    sizes: Sequence[int],
    accuracies: Mapping[str, Sequence[float]],
    scored: Mapping[str, Sequence[float]],
    title: str = '',
) -> Figure:
    """Draws the share of words read, and the words that are scored for it, against the size of the lexicon.

    Args:
      sizes: of the lexica, ascending.
      accuracies: {name: a share for each size}.
      scored: {name: words per image for each size}; names are those of `accuracies`.
      title: of the figure.
    """
    figure = Figure(figsize=(8.6, 3.4), layout='constrained')
    left, right = figure.subplots(1, 2)
    colours = {name: f'C{number}' for number, name in enumerate(accuracies)}
    for axes, values in ((left, accuracies), (right, scored)):
        for name, line in values.items():
            axes.plot(sizes, line, marker='.', label=name, color=colours[name])
        axes.set(xscale='log', xlabel='words of the lexicon')
        style_axes(axes)
    left.set(ylabel='words read without an error')
    right.set(ylabel='words scored per image', yscale='log')
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
