"""Attention weights of translations, as images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from canon.errors import UsageError


def draw_alignments(
    weights: np.ndarray,
    target: Sequence[str],
    source: Sequence[str],
    titles: Sequence[str] = (),
    columns: int = 4,
    title: str = '',
) -> Figure:
    """Draws attention weights in grey, 0 black and 1 white, as figure 3 of Bahdanau et al. 2015.

    Rows are target words, columns source words.

    Args:
      weights: [T, S], or [heads, T, S] for a grid of heads.
      target: T words.
      source: S words.
      titles: one per head; by default heads are numbered.
      columns: of the grid.
      title: of the figure.

    Raises:
      UsageError: words, titles and weights do not match.
    """
    weights = np.asarray(weights, np.float32)
    heads = weights[None] if weights.ndim == 2 else weights
    if heads.ndim != 3 or heads.shape[1:] != (len(target), len(source)):
        raise UsageError(
            f'weights {weights.shape} are not [T, S] or [heads, T, S] of {len(target)} target and {len(source)} source '
            'words'
        )
    if titles and len(titles) != len(heads):
        raise UsageError(f'{len(titles)} titles for {len(heads)} heads')
    if not titles:
        titles = [f'head {i}' for i in range(1, len(heads) + 1)] if weights.ndim == 3 else ['']
    columns = max(min(columns, len(heads)), 1)
    rows = -(-len(heads) // columns) or 1
    cell = 0.26 if len(heads) == 1 else 0.16  # inches per word
    # The longest word takes the same space next to the rows and above the columns.
    label_size = 0.09 * max((len(word) for word in (*target, *source)), default=1)
    width = columns * max(cell * len(source), 0.8) + label_size + 0.6
    height = rows * (max(cell * len(target), 0.8) + 0.25) + label_size + (0.3 if title else 0)
    figure = Figure(figsize=(max(width, 2.4), max(height, 1.8)), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i >= len(heads):
            axes.axis('off')
            continue
        # One scale for all heads: a head that attends everywhere stays dark.
        axes.imshow(heads[i], cmap='gray', vmin=0, vmax=1, aspect='auto', interpolation='nearest')
        axes.set_title(titles[i], fontsize=8)
        _label_words(axes, target if i % columns == 0 else (), source if i < columns else (), cell)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _label_words(axes, target: Sequence[str], source: Sequence[str], cell: float) -> None:
    """Writes words at the left and above. `$` is escaped, since it would begin a formula."""
    size = min(9, 60 * cell)
    axes.tick_params(top=bool(source), labeltop=bool(source), bottom=False, labelbottom=False, length=0, pad=3)
    axes.set_yticks(range(len(target)), [word.replace('$', r'\$') for word in target], fontsize=size)
    axes.set_xticks(range(len(source)), [word.replace('$', r'\$') for word in source], fontsize=size, rotation=90)
    axes.spines[:].set_visible(False)
