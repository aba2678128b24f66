"""Saves figures, images, videos and texts: each file as a whole, or not at all."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

_DPI = 100  # of figures
_MILLISECONDS = 50  # per frame of a video
_FIRST_IDEOGRAPH = 0x2E80  # Chinese, Japanese and Korean begin here, which matplotlib's own font lacks
_CHINESE = ('WenQuanYi Zen Hei', 'Noto Sans CJK SC', 'AR PL SungtiL GB', 'AR PL KaitiM GB', 'AR PL UMing CN')


def save_content(content: Any, path: str | Path) -> None:
    """Saves one file. It is written next to its place and then moved, so that a failure leaves the old file.

    Args:
      content: text, bytes, a matplotlib figure, an image or a video (uint8 [H, W], [H, W, C], or [T, H, W, C] for .gif
        and .mp4), or an object with `save(path)` such as `Animation`.
      path: of the file; its ending decides the format. Missing folders are made.

    Raises:
      TypeError: the content is none of these.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _name_part(path)
    try:
        _write(content, part, path.name)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class VideoWriter:
    """Writes an MP4 frame by frame, so that a long video does not fill the memory.

    The file appears when the video ends; after an error, an old file of that name is still there.

    with VideoWriter('out.mp4', 30) as writer:
        writer.append(picture)
    """

    def __init__(self, path: str | Path, frame_rate: float):
        self._path, self._frame_rate = Path(path), frame_rate
        self._writer: Any = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._writer is None:
            return
        part = _name_part(self._path)
        try:
            self._writer.close()
            if kind is None:
                os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)

    def append(self, picture: Any) -> None:
        """Adds a frame: an image uint8 [H, W, 3] or a figure. Frames after the first are resized to its size."""
        import imageio.v2 as imageio
        from PIL import Image

        frame = Image.fromarray(_rasterise(picture) if hasattr(picture, 'savefig') else picture).convert('RGB')
        self._size = self._size or frame.size
        if frame.size != self._size:
            frame = frame.resize(self._size)
        if self._writer is None:  # codecs need even sides
            self._writer = imageio.get_writer(_name_part(self._path), fps=self._frame_rate, macro_block_size=2)
        self._writer.append_data(np.asarray(frame))


def _name_part(path: Path) -> Path:
    """Returns the name of a file while it is written, with its ending: writers of images choose the format by it."""
    return path.with_name(f'.{path.stem}.part{path.suffix}')


def _rasterise(figure: Any) -> np.ndarray:
    """Returns a figure as pixels uint8 [H, W, 4]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _show_ideographs(figure)
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _write(content: Any, path: Path, name: str) -> None:
    if isinstance(content, str):
        path.write_bytes(content.encode(errors='surrogateescape'))  # bytes: line ends stay as they are
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        _write_image(content, path, name)
    elif hasattr(content, 'savefig'):
        _show_ideographs(content)
        content.savefig(path, dpi=_DPI)
    elif hasattr(content, 'save'):
        content.save(path)
    else:
        raise TypeError(f'{name}: cannot save a {type(content).__name__}; expected text, bytes, a figure or an image')


def _show_ideographs(figure: Any) -> None:
    """Gives texts with Chinese characters a font that has them, besides their own; without one, shows code points."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if not any(ord(c) >= _FIRST_IDEOGRAPH for c in text.get_text()):
            continue
        if family := _find_chinese_family():
            text.set_fontfamily([*text.get_fontfamily(), family])
        else:
            text.set_text(''.join(f'U+{ord(c):04X}' if ord(c) >= _FIRST_IDEOGRAPH else c for c in text.get_text()))


@functools.cache
def _find_chinese_family() -> str | None:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return next((family for family in _CHINESE if family in installed), None)


def _write_image(image: np.ndarray, path: Path, name: str) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3, 4):
        raise TypeError(f'{name}: expected uint8 [H, W], [H, W, C] or [T, H, W, C], got {image.dtype} {image.shape}')
    import imageio.v3 as imageio

    if image.ndim < 4:
        imageio.imwrite(path, image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    elif path.suffix == '.gif':
        imageio.imwrite(path, image, duration=_MILLISECONDS, loop=0)
    else:  # a codec may need sides that are multiples of 16; 1 keeps the size
        imageio.imwrite(path, image, fps=1000 / _MILLISECONDS, macro_block_size=1)
