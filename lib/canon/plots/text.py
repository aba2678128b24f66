"""Pictures of images of text, of what was read on them and how, frame by frame; of text, and how likely it was."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

_FAINT = 0.05  # probabilities below it are not drawn


def readings(images: np.ndarray, titles: Sequence[str], columns: int = 4, title: str = '') -> Figure:
    """images [N, H, W, 1 or 3] of lines in a grid, each under its title; cells take the images' own shape."""
    columns = min(columns, max(len(images), 1))
    rows = -(-len(images) // columns) or 1
    height, width = images.shape[1:3] if len(images) else (32, 100)
    cell = 2.2 * min(height / width, 1.5) + 0.32
    figure = Figure(figsize=(2.2 * columns, cell * rows + (0.4 if title else 0)), layout='constrained')
    for i, (image, text) in enumerate(zip(images, titles, strict=True), 1):
        axes = figure.add_subplot(rows, columns, i)
        axes.axis('off')
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap='gray', interpolation='nearest')
        axes.set_title(text, fontsize=9, pad=3)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def spikes(image: np.ndarray, probabilities: np.ndarray, characters: str, title: str = '') -> Figure:
    """image [H, W, 1 or 3] above the probabilities [T, 1 + len(characters)] of each character, frame by frame.

    The frames lie evenly from its left to its right edge. The blank (class 0) is grey and dashed: CTC learns short
    spikes with blanks between (Graves et al. 2006, figure 1).
    """
    probabilities = np.asarray(probabilities)
    height, width = image.shape[:2]
    across = np.linspace(0, width, len(probabilities))
    figure = Figure(figsize=(7, 7 * height / width + 2.2), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(7 * height / width, 2.2))
    shown = image[..., 0] if image.shape[-1] == 1 else image
    upper.imshow(shown, cmap='gray', aspect='auto', extent=(0, width, height, 0), interpolation='nearest')
    upper.axis('off')
    lower.plot(across, probabilities[:, 0], color='0.6', linestyle='--', linewidth=1, label='blank')
    for index, character in enumerate(characters, 1):
        chance = probabilities[:, index]
        if chance.max() > _FAINT:
            (line,) = lower.plot(across, chance, marker='.', markersize=4, linewidth=1.4)
            top = int(chance.argmax())
            lower.text(across[top], chance[top] + 0.03, character, color=line.get_color(), ha='center', fontsize=9)
    lower.set(xlim=(0, width), ylim=(0, 1.15), xlabel='pixels', ylabel='probability', title=title)
    lower.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    lower.grid(alpha=0.3)
    lower.spines[['top', 'right']].set_visible(False)
    return figure


def surprise(tokens: Sequence[str], bits: np.ndarray, title: str = '', columns: int = 90) -> Figure:
    """tokens in lines of `columns` characters, each on a ground that is as dark as it has bits; '⏎' ends a line too.

    bits [n]: -log2 of the probability that each had.
    """
    bits = np.asarray(bits, np.float64)
    places, row, column = [], 0, 0
    for token in tokens:
        width = max(len(token), 1)
        if column and column + width > columns:
            row, column = row + 1, 0
        places.append((row, column, width))
        column += width
        if token in ('⏎', '<eos>'):
            row, column = row + 1, 0
    rows = (places[-1][0] if places else 0) + 1
    figure = Figure(figsize=(0.088 * columns + 0.8, 0.17 * rows + 0.7), layout='constrained')
    axes = figure.add_subplot()
    most = max(float(bits.max(initial=0)), 1.0)
    colours = matplotlib.colormaps['Oranges']
    for token, (row, column, width), height in zip(tokens, places, bits, strict=True):
        axes.add_patch(Rectangle((column, row), width, 1, facecolor=colours(0.85 * height / most), linewidth=0))
        axes.text(column, row + 0.75, token, family='monospace', fontsize=7.3, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.axis('off')
    axes.set_title(f'{title}; mean {bits.mean() if len(bits) else 0:.2f}, most {most:.1f}', fontsize=9)
    return figure


def translations(rows: Sequence[tuple[str, str, str]], title: str = '', columns: int = 110) -> Figure:
    """(source, reference, translation) one under the other: black, grey and blue, broken at `columns` characters."""
    lines: list[tuple[str, str]] = []
    for texts in rows:
        for text, colour in zip(texts, ('black', '0.5', 'C0'), strict=True):
            lines += [(part, colour) for part in textwrap.wrap(text, columns) or ['']]
        lines.append(('', 'black'))
    figure = Figure(figsize=(0.088 * columns + 0.8, 0.17 * len(lines) + 0.7), layout='constrained')
    axes = figure.add_subplot()
    for row, (line, colour) in enumerate(lines):
        axes.text(0, row + 0.75, line, family='monospace', fontsize=7.3, color=colour, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(max(len(lines), 1), 0))
    axes.axis('off')
    axes.set_title(title, fontsize=9)
    return figure
