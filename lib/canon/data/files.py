"""Image files on disk: reading one as RGB, finding them, and a plain list of them as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from canon.data.source import Example, Info
from canon.errors import CanonError, UsageError

_SUFFIXES = {'.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'}
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Files:
    """Images without labels: `path` itself, or all below it in the order of their names. image: uint8 [H, W, 3]."""

    def __init__(self, path: str | Path):
        """Raises UsageError when there is no such file or folder, or no image in it."""
        root = Path(path).expanduser()
        if not root.exists():
            raise UsageError(f'there is no file or folder {root}')
        self.paths = tuple(sorted(images_below(root))) if root.is_dir() else (root,)
        if not self.paths:
            raise UsageError(f'{root} holds no images ({", ".join(sorted(_SUFFIXES))})')
        self.info = Info(str(root))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError naming the file that cannot be decoded."""
        return {'image': read_image(self.paths[index])}

    def __repr__(self) -> str:
        return f'Files({self.info.name}, {len(self)} images)'


def read_image(file: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3] of grey (8 or 16 bits), palette, CMYK or RGB, turned as EXIF says."""
    try:
        with Image.open(file) as image:
            return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except _UNREADABLE as error:
        raise CanonError(f'{file} cannot be read ({error}); mend or remove it') from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):  # 16 bits: Pillow's own conversion would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert('RGB')


def images_below(path: Path) -> Iterator[Path]:
    """All image files below `path`, by suffix; hidden ones left out. In no order."""
    return (p for p in path.rglob('*') if p.suffix.lower() in _SUFFIXES and not p.name.startswith('.'))


def opens(file: Path) -> bool:
    """Whether the head of `file` is that of an image."""
    try:
        with Image.open(file):
            return True
    except _UNREADABLE:
        return False


def decodes(file: Path) -> bool:
    """Whether every pixel of `file` can be had."""
    try:
        read_image(file)
    except CanonError:
        return False
    return True
