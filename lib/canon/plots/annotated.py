"""Images with their annotations: boxes, instance masks and segmentations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from canon.plots.images import to_colours
from canon.plots.pictures import hide_frame

_COLOURS = [to_rgb(c) for c in ('#00c8ff', '#ff2fd0', '#ffe000', '#5dff3b', '#ff4b1f', '#8f5bff', '#00ffc3', '#ff9db5')]
_VOID = 255  # label of pixels without a class, as in PASCAL VOC


def draw_annotated_images(
    examples: Sequence[Mapping[str, Any]], titles: Sequence[str], columns: int = 4, width: float = 2.4
) -> Figure:
    """Draws examples in a grid, each under its title, all at one scale.

    Args:
      examples: each has an 'image' [H, W, 1 or 3], uint8 or floats in 0..1, and may have 'boxes' [K, 4] (x0, y0, x1, y1
        in pixels), drawn as frames; 'masks' [K, H, W], blended in the colours of their boxes; and 'segmentation' [H, W]
        or [H, W, 1], blended in one colour per class, with 0 transparent and 255 (void) white.
      titles: one per example.
      columns: of the grid.
      width: inches per example.
    """
    columns = max(min(columns, len(examples)), 1)
    rows = max(-(-len(examples) // columns), 1)
    tallest = max((np.shape(e['image'])[0] / np.shape(e['image'])[1] for e in examples), default=1)
    figure = Figure(figsize=(width * columns, (width * tallest + 0.28) * rows), layout='constrained')
    for i in range(rows * columns):
        axes = figure.add_subplot(rows, columns, i + 1)
        hide_frame(axes, titles[i] if i < len(examples) else None, fontsize=8)
        if i < len(examples):
            _draw_example(axes, examples[i])
    return figure


def _draw_example(axes: Axes, example: Mapping[str, Any]) -> None:
    image = np.asarray(example['image'])
    height, width = image.shape[:2]
    extent = (0, width, height, 0)  # the corner of the first pixel is (0, 0), as it is for boxes
    axes.imshow(to_colours(image), cmap='gray', vmin=0, vmax=255 if image.dtype == np.uint8 else 1, extent=extent)
    for number, mask in enumerate(np.asarray(example.get('masks', ()))):
        axes.imshow(_make_layer(mask, _colour(number)), extent=extent, interpolation='nearest')
    if 'segmentation' in example:
        classes = np.asarray(example['segmentation']).reshape(height, width)
        for label in np.unique(classes[classes > 0]):  # 0 is the background and stays transparent
            colour = (1.0, 1.0, 1.0) if label == _VOID else _colour(int(label) - 1)
            axes.imshow(_make_layer(classes == label, colour), extent=extent, interpolation='nearest')
    for number, (x0, y0, x1, y1) in enumerate(np.asarray(example.get('boxes', ()), float).reshape(-1, 4)):
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=1.6, edgecolor=_colour(number))
        axes.add_patch(frame)
    axes.set(xlim=(0, width), ylim=(height, 0))


def _colour(number: int) -> tuple[float, ...]:
    return _COLOURS[number % len(_COLOURS)]


def _make_layer(mask: np.ndarray, colour: tuple[float, ...], opacity: float = 0.4) -> np.ndarray:
    """Returns an image [H, W, 4] of one colour where a mask is set, transparent elsewhere."""
    layer = np.zeros((*mask.shape, 4))
    layer[np.asarray(mask, bool)] = (*colour, opacity)
    return layer
