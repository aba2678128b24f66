"""Figures of label maps: colours, overlays, rows of image, truth and prediction, and the IU of each class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from canon import plots
from canon.metrics.segmentation import VOID


def make_palette() -> np.ndarray:
    """Returns the colours of Pascal VOC, uint8 [256, 3]: class 0 is black, and void is [224, 224, 192].

    The bits of a class number, three at a time, are the high bits of red, green and blue.
    """
    classes, palette = np.arange(256), np.zeros((256, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= (((classes >> (3 * step + channel)) & 1) << (7 - step)).astype(np.uint8)
    return palette


def encode_label_map(labels: np.ndarray) -> bytes:
    """Returns a label map uint8 [H, W] as a PNG whose pixels are classes, shown in the colours of `make_palette`."""
    from PIL import Image

    image = Image.fromarray(labels, mode='P')
    image.putpalette(make_palette().ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return buffer.getvalue()


def overlay_label_map(image: np.ndarray, labels: np.ndarray, opacity: float = 0.55, ground: int | None = 0):
    """Returns the image uint8 [H, W, 3] under the colours of its classes.

    Args:
      image: uint8 [H, W, 1 or 3].
      labels: uint8 [H, W]; void stays clear.
      opacity: of the colours.
      ground: a class that stays clear too, such as the background; None for none.
    """
    colour = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)
    clear = (labels == VOID) if ground is None else (labels == VOID) | (labels == ground)
    weight = np.where(clear, 0.0, opacity)[..., None]
    return np.round(colour * (1 - weight) + make_palette()[labels] * weight).astype(np.uint8)


def draw_label_maps(rows: Sequence[tuple], names: Sequence[str], title: str):
    """Draws rows (image, truth, prediction, mean IU), three panels each; void is white in truth and prediction.

    Args:
      rows: of `canon.tasks.segmentation`.
      names: of the classes.
      title: of the figure.
    """
    if not rows:
        return plots.draw_gallery(np.zeros((0, 1, 1, 1)), [], title=f'{title}: none')
    ground = find_ground(names)
    panels, titles = [], []
    for image, truth, prediction, score in rows:
        colour = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)
        # Pixels without a true class are void in both, so that the eye compares what the metric does.
        shown = np.where(truth == VOID, VOID, prediction).astype(np.uint8)
        overlays = [overlay_label_map(colour, labels, 0.75, ground) for labels in (truth, shown)]
        panels += [colour, *overlays]
        titles += ['', 'truth', f'mean IU {score:.2f}']
    return plots.draw_gallery(np.stack(panels), titles, columns=6, title=title)


def find_ground(names: Sequence[str]) -> int | None:
    """Returns the class 0 if it is called 'background', else None."""
    return 0 if names and names[0] == 'background' else None
