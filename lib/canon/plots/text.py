"""Figures of text: recognised images, frame probabilities, surprisal of tokens, and translations."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from canon.plots.images import to_colours
from canon.plots.pictures import hide_frame

_FAINT = 0.05  # characters whose probability stays below it are not drawn
_LETTER = 0.088, 0.17  # width and height in inches of a letter of size 7.3
_LINE_ENDS = ('⏎', '<eos>')


def draw_text_images(
    images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str], columns: int = 4, title: str = ''
) -> Figure:
    """Draws images of text in a grid, each under its title, in cells of the images' own aspect ratio.

    Args:
      images: N of [H, W, 1 or 3]; widths may differ.
      titles: one per image.
      columns: of the grid.
      title: of the figure.
    """
    columns = min(columns, max(len(images), 1))
    rows = -(-len(images) // columns) or 1
    height, width = np.max([image.shape[:2] for image in images], axis=0) if len(images) else (32, 100)
    cell = 2.2 * min(height / width, 1.5) + 0.32
    figure = Figure(figsize=(2.2 * columns, cell * rows + (0.4 if title else 0)), layout='constrained')
    for i, (image, text) in enumerate(zip(images, titles, strict=True), 1):
        axes = figure.add_subplot(rows, columns, i)
        hide_frame(axes, text, fontsize=9, pad=3)
        axes.imshow(to_colours(image), cmap='gray', interpolation='nearest')
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def draw_frame_probabilities(image: np.ndarray, probabilities: np.ndarray, characters: str, title: str = '') -> Figure:
    """Draws an image of text above the probabilities of its characters, frame by frame.

    CTC learns short spikes with blanks in between (Graves et al. 2006, figure 1). The blank is grey and dashed.

    Args:
      image: [H, W, 1 or 3].
      probabilities: [T, 1 + len(characters)] of T frames evenly spaced over the image's width; class 0 is the blank.
      characters: of classes 1, 2, ...
      title: of the lower panel.
    """
    probabilities = np.asarray(probabilities)
    height, width = image.shape[:2]
    # The receptive fields of frames overlap, so positions are approximate.
    frames = np.linspace(0, width, len(probabilities))
    figure = Figure(figsize=(7, 7 * height / width + 2.2), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(7 * height / width, 2.2))
    upper.imshow(to_colours(image), cmap='gray', aspect='auto', extent=(0, width, height, 0), interpolation='nearest')
    upper.axis('off')
    lower.plot(frames, probabilities[:, 0], color='0.6', linestyle='--', linewidth=1, label='blank')
    for index, character in enumerate(characters, 1):
        probability = probabilities[:, index]
        if probability.max() > _FAINT:
            (line,) = lower.plot(frames, probability, marker='.', markersize=4, linewidth=1.4)
            peak = int(probability.argmax())
            position = frames[peak], probability[peak] + 0.03
            lower.text(*position, character, color=line.get_color(), ha='center', fontsize=9)
    lower.set(xlim=(0, width), ylim=(0, 1.15), xlabel='pixels', ylabel='probability', title=title)
    lower.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    lower.grid(alpha=0.3)
    lower.spines[['top', 'right']].set_visible(False)
    return figure


def draw_surprisal(tokens: Sequence[str], bits: np.ndarray, title: str = '', columns: int = 90) -> Figure:
    """Draws text with a background that is darker where a language model was more surprised.

    Args:
      tokens: wrapped at `columns` characters; '⏎' and '<eos>' end a line too.
      bits: -log2 of the probability of each token, [n].
      title: followed by the mean and the maximum.
      columns: characters per line.
    """
    bits = np.asarray(bits, np.float64)
    places, row, column = [], 0, 0
    for token in tokens:
        # A token without characters still gets a column, or its surprisal would be invisible.
        width = max(len(token), 1)
        if column and column + width > columns:
            row, column = row + 1, 0
        places.append((row, column, width))
        column += width
        if token in _LINE_ENDS:
            row, column = row + 1, 0
    rows = (places[-1][0] if places else 0) + 1
    figure, axes = _text_axes(rows, columns)
    most = max(float(bits.max(initial=0)), 1.0)
    # The darkest 15 % of the colour map are left out: black text would not be legible on them.
    colours = matplotlib.colormaps['Oranges']
    for token, (row, column, width), surprisal in zip(tokens, places, bits, strict=True):
        axes.add_patch(Rectangle((column, row), width, 1, facecolor=colours(0.85 * surprisal / most), linewidth=0))
        axes.text(column, row + 0.75, token, family='monospace', fontsize=7.3, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_title(f'{title}; mean {bits.mean() if len(bits) else 0:.2f}, maximum {most:.1f}', fontsize=9)
    return figure


def draw_translations(rows: Sequence[tuple[str, ...]], title: str = '', columns: int = 110) -> Figure:
    """Draws sentences, one under the other: source in black, reference in grey, translation in blue.

    Args:
      rows: (source, reference, translation), or (source, translation).
      title: of the figure.
      columns: characters per line.
    """
    lines: list[tuple[str, str]] = []
    for *texts, translation in rows:
        for text, colour in (*zip(texts, ('black', '0.5'), strict=False), (translation, 'C0')):
            lines += [(part, colour) for part in textwrap.wrap(text, columns) or ['']]
        lines.append(('', 'black'))
    # Lines are laid out by hand: matplotlib wraps text only at the edge of a figure.
    figure, axes = _text_axes(len(lines), columns)
    for row, (line, colour) in enumerate(lines):
        axes.text(0, row + 0.75, line, family='monospace', fontsize=7.3, color=colour, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(max(len(lines), 1), 0))
    axes.set_title(title, fontsize=9)
    return figure


def _text_axes(rows: int, columns: int):
    """Returns a figure and axes without frame for lines of monospaced text."""
    width, height = _LETTER
    figure = Figure(figsize=(width * columns + 0.8, height * rows + 0.7), layout='constrained')
    axes = figure.add_subplot()
    axes.axis('off')
    return figure, axes


def draw_caption(image: np.ndarray, text: str, least_width: int = 320) -> np.ndarray:
    """Draws a text in a band above an image: uint8 [H, W, 3], enlarged by a whole factor to the least width.

    Args:
      image: uint8 [H, W, 3].
      text: one line; what does not fit is cut off.
      least_width: pixels that a text needs.
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = -(-least_width // image.shape[1])
    image = image.repeat(factor, 0).repeat(factor, 1)
    size = max(14, image.shape[1] // 24)
    band = Image.new('RGB', (image.shape[1], 2 * size), 'white')
    ImageDraw.Draw(band).text((6, 0.3 * size), text, 'black', ImageFont.load_default(size))
    return np.concatenate((np.asarray(band), image))
