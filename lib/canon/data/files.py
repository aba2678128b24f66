"""Image files: decoding one as RGB, finding them, and a plain list of them as a source.

JPEGs are decoded by OpenCV, which is 1.3 times as fast as Pillow and gives the same pixels (`benchmarks/decode.py`);
everything else, and what OpenCV refuses, by Pillow, which says what is wrong with it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from canon.data.source import Example, Info
from canon.errors import CanonError, UsageError

_SUFFIXES = {'.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'}
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_JPEG = b'\xff\xd8\xff'
_ORIENTATION = 0x0112  # of EXIF
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class Head(NamedTuple):
    """Of the image as it will be decoded. can_reduce: by whole blocks from its upper left corner on."""

    height: int
    width: int
    can_reduce: bool


class Encoded(bytes):
    """An image as in its file, to be decoded by a transform. name: for errors. turn: as its EXIF says."""

    name: str
    turn: bool

    def __new__(cls, data: bytes, name: str = 'an image', turn: bool = True):
        self = super().__new__(cls, data)
        self.name, self.turn = name, turn
        return self

    def __getattr__(self, attribute: str):
        if attribute in ('shape', 'dtype', 'ndim'):
            raise CanonError(f"{self.name} is not decoded yet: put 'decode' before the transforms of its pixels")
        raise AttributeError(attribute)

    def __reduce__(self):
        return Encoded, (bytes(self), self.name, self.turn)


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
    return decode(read_encoded(file))


def read_encoded(file: Path) -> Encoded:
    try:
        return Encoded(file.read_bytes(), str(file))
    except OSError as error:
        raise _refusal(str(file), error) from error


def decode(image: Encoded, reduce: int = 1) -> np.ndarray:
    """uint8 RGB [H, W, 3] of grey (8 or 16 bits), palette, CMYK or RGB.

    reduce: 2, 4 or 8 give [ceil(H / reduce), ceil(W / reduce), 3] at a fraction of the price; JPEGs only.
    Raises CanonError naming the image, for one that is cut short, too.
    """
    if image.startswith(_JPEG):
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), _flags(image, reduce))
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if reduce > 1 else pixels
    try:
        with Image.open(io.BytesIO(image)) as opened:
            pixels = np.asarray(_rgb(ImageOps.exif_transpose(opened) if image.turn else opened))
    except _UNREADABLE as error:
        raise _refusal(image.name, error) from error
    return pixels[::reduce, ::reduce]


def _refusal(name: str, error: Exception) -> CanonError:
    why = re.sub(r' ?<_io.*>', '', str(error))  # where in memory the bytes are
    return CanonError(f'{name} cannot be read ({why}); mend or remove it')


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):  # 16 bits: Pillow's own conversion would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert('RGB')


def _flags(image: Encoded, reduce: int) -> int:
    colour = _REDUCED[reduce] if reduce > 1 else cv2.IMREAD_COLOR_RGB
    return colour | (0 if image.turn else cv2.IMREAD_IGNORE_ORIENTATION)


def head(image: Encoded) -> Head:
    """What the head of the file says. Raises CanonError naming the image."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
            orientation = opened.getexif().get(_ORIENTATION, 1) if image.turn else 1
    except _UNREADABLE as error:
        raise _refusal(image.name, error) from error
    if orientation >= 5:  # rows and columns are exchanged
        width, height = height, width
    return Head(height, width, image.startswith(_JPEG) and orientation == 1)


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
