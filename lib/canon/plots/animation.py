"""Animated figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


class Animation:
    """A figure that changes from frame to frame, saved as a GIF.

    All frames share one palette, so that regions that do not change compress to almost nothing: a tenth of the bytes
    that matplotlib's own writer needs for lines over a fixed background.

    Args:
      figure: drawn for each frame.
      draw: changes the figure for one of the frames.
      frames: arguments of `draw`, in order. The last one must show every colour.
      milliseconds: per frame.
    """

    def __init__(self, figure: Figure, draw: Callable[[Any], Any], frames: Sequence[Any], milliseconds: int = 100):
        self.figure, self.draw, self.frames, self.milliseconds = figure, draw, frames, milliseconds

    def save(self, path: str | Path) -> None:
        """Writes the GIF; it loops forever."""
        canvas = FigureCanvasAgg(self.figure)
        self.draw(self.frames[-1])
        canvas.draw()
        self.figure.set_layout_engine('none')  # the layout of the last frame holds for all: axes must not move
        # MAXCOVERAGE keeps colours of few pixels, such as those of thin lines.
        last = self._render(canvas, self.frames[-1])
        palette = last.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        pictures = [self._render(canvas, frame) for frame in self.frames]
        first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
        first.save(path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0)

    def _render(self, canvas: FigureCanvasAgg, frame: Any) -> Image.Image:
        self.draw(frame)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
