"""Galleries of images, and confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from canon.plots.pictures import hide_frame

_NUMBERED_CLASSES = 25  # up to which counts fit into the cells
_UNREADABLE = 10_000  # the least count that does not fit
_NAMED_CLASSES = 50  # up to which names fit along the axes


def draw_confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws a confusion matrix; up to 25 classes with its counts below 10,000, up to 50 with their names.

    Args:
      counts: [C, C] of (true class, predicted class).
      names: C class names.
    """
    counts = np.asarray(counts)
    classes = len(counts)
    size = min(2.2 + 0.24 * classes, 14)
    figure = Figure(figsize=(size + 0.6, size), layout='constrained')
    axes = figure.add_subplot()
    # Colours are fractions of the true class, so that classes of different sizes can be compared.
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label='fraction of the true class')
    axes.set(xlabel='predicted', ylabel='true', title=f'{np.trace(counts)} of {counts.sum()} correct')
    if classes <= _NAMED_CLASSES:
        axes.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(classes), names)
    is_numbered = classes <= _NUMBERED_CLASSES and counts.max(initial=0) < _UNREADABLE
    for i, j in np.argwhere(counts) if is_numbered else ():
        axes.text(j, i, counts[i, j], ha='center', va='center', fontsize=8, color='w' if share[i, j] > 0.5 else 'k')
    return figure


def draw_gallery(images: np.ndarray, titles: Sequence[str], columns: int = 8, title: str = '') -> Figure:
    """Draws images in a grid, each under its title.

    Args:
      images: [N, H, W, C], uint8, or floats of any range, each stretched to its own; any C, see `to_colours`.
      titles: one per image.
      columns: of the grid.
      title: of the figure.
    """
    columns = min(columns, max(len(images), 1))
    rows = -(-max(len(images), 1) // columns)
    figure = Figure(figsize=(1.25 * columns, 1.5 * rows + (0.4 if title else 0)), layout='constrained')
    for i in range(rows * columns):
        axes = figure.add_subplot(rows, columns, i + 1)
        hide_frame(axes, titles[i] if i < len(images) else None, fontsize=8)
        if i < len(images):
            axes.imshow(_stretch(images[i]), cmap='gray', interpolation='nearest')
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def make_dense_layout() -> ConstrainedLayoutEngine:
    """Returns the layout of grids of large images, with little space between them."""
    return ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01)


def to_colours(image: np.ndarray) -> np.ndarray:
    """Returns an image [H, W, C] for `imshow`: grey, RGB, or red and green of 2 channels; the mean of more than 4."""
    if image.shape[-1] == 2:
        return np.concatenate([image, np.zeros_like(image[..., :1])], -1)
    if image.shape[-1] == 1:
        return image[..., 0]
    return image if image.shape[-1] in (3, 4) else image.mean(-1).astype(image.dtype)


def _stretch(image: np.ndarray) -> np.ndarray:
    """Returns an image for `imshow`: uint8 as it is, floats stretched to [0, 1]."""
    image = to_colours(image)
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return (image - low) / max(high - low, 1e-12)
