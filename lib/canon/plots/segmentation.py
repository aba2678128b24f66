"""Label maps over images, in Pascal VOC's colours."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from canon.plots.images import make_dense_layout
from canon.plots.pictures import hide_frame

_VOID = 255  # label of pixels without a class


def make_voc_palette(count: int = 256) -> np.ndarray:
    """Returns the colours of Pascal VOC's label maps, uint8 [count, 3]; 0 is black, 255 (void) is ivory.

    Colour i takes bits 0, 3, 6 of i to bits 7, 6, 5 of red, bits 1, 4, 7 to those of green, and 2, 5 to those of blue:
    the development kit's `VOClabelcolormap`.
    """
    labels = np.arange(count)
    palette = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def overlay_label_map(
    image: np.ndarray, labels: np.ndarray, opacity: float = 0.6, palette: np.ndarray | None = None, background: int = 0
) -> np.ndarray:
    """Blends a label map over an image: uint8 [H, W, 3].

    Args:
      image: uint8 [H, W, 1 or 3].
      labels: classes [H, W]; 255 is void.
      opacity: of the colours, 0..1.
      palette: uint8 [256, 3]; None takes `make_voc_palette`.
      background: a class that stays transparent; -1 for none.
    """
    palette = make_voc_palette() if palette is None else palette
    # Grey images have one channel, the colours three.
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    weights = np.where(labels == background, 0, opacity)[..., None]
    return np.rint((1 - weights) * image + weights * palette[labels]).astype(np.uint8)


def draw_label_maps(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    class_names: Sequence[str],
    titles: Sequence[str] = (),
    opacity: float = 0.6,
    palette: np.ndarray | None = None,
    background: int = 0,
    width: float = 2.6,
) -> Figure:
    """Draws images in rows: the image, then one panel per kind of map, with a legend of the classes that occur.

    Args:
      images: uint8 [H, W, 1 or 3] each; sizes may differ.
      maps: for example {'truth': label maps, 'prediction': label maps}, classes [H, W] with 255 for void.
      class_names: names of the classes.
      titles: one per image, written above it.
      opacity: of the maps.
      palette: uint8 [256, 3]; None takes VOC's.
      background: a class that stays transparent; -1 for none.
      width: inches per panel.
    """
    palette = make_voc_palette() if palette is None else palette
    columns, rows = 1 + len(maps), max(len(images), 1)
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1)
    occurring = np.unique(np.concatenate([np.ravel(m) for group in maps.values() for m in group] or [np.zeros(0, int)]))
    # Rows of the legend, which has 6 columns: the figure grows by them so that panels keep their size.
    lines = -(-len(occurring) // 6)
    size = (width * columns, (width * tallest + 0.28) * rows + 0.22 * lines + 0.1)
    figure = Figure(figsize=size, layout=make_dense_layout())
    for i, image in enumerate(images):
        panels = [(titles[i] if len(titles) else 'image', np.broadcast_to(image, (*image.shape[:2], 3)))]
        panels += [(name, overlay_label_map(image, g[i], opacity, palette, background)) for name, g in maps.items()]
        for k, (title, pixels) in enumerate(panels):
            axes = figure.add_subplot(rows, columns, columns * i + k + 1)
            # Names of columns once, names of images in each row.
            hide_frame(axes, title if k == 0 or i == 0 else None, fontsize=8)
            axes.imshow(pixels, interpolation='nearest')
    handles = [
        Patch(facecolor=palette[label] / 255, edgecolor='0.5', linewidth=0.5, label=_get_name(label, class_names))
        for label in occurring.astype(int)
        if label != background
    ]
    if handles:
        figure.legend(handles=handles, loc='outside lower center', ncols=6, frameon=False, fontsize=8)
    return figure


def _get_name(label: int, class_names: Sequence[str]) -> str:
    if label == _VOID and len(class_names) <= _VOID:
        return 'void'
    return class_names[label] if label < len(class_names) else f'class {label}'
