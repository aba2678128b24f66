"""Image files: decodes them as RGB, finds them in folders, and reads them as a source without labels.

OpenCV decodes JPEGs: it is 1.3 times as fast as Pillow and gives the same pixels (`benchmarks/decode.py`). Pillow
decodes everything else, and whatever OpenCV refuses, since it reports what is wrong. An image is rotated as Pillow's
`exif_transpose` does (by EXIF, else by XMP), whichever of the two decodes it. The size in the file's header is checked
before any pixel is decoded.
"""

from __future__ import annotations

import functools
import io
import itertools
import logging
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps, features

from canon.data.pipeline.source import Example, Info
from canon.errors import CanonError, UsageError
from canon.progress import show_progress

Item = TypeVar('Item')
Result = TypeVar('Result')

_AT_ONCE = 16  # images of a task: a million tasks of one each would take a gigabyte
MAX_PIXELS = 89_478_485  # Pillow's own bound for a warning; an image of 9,459 pixels square has as many
_SUFFIXES = {'.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff'}
_SUFFIXES |= {'.webp'} if features.check('webp') else set()
_SUFFIXES |= {'.avif'} if features.check('avif') else set()
_SUFFIXES |= {'.j2k', '.jp2', '.jpx'} if features.check('jpg_2000') else set()
_TEXTS = {'.csv', '.html', '.json', '.md', '.txt', '.xml', '.yaml', '.yml'}  # describe images, in the same folders
# What decoders raise for damaged files: nearly anything, since they interpret bytes that nobody has checked.
UNREADABLE = (
    OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError, MemoryError,
    RuntimeError, struct.error, cv2.error, Image.DecompressionBombError,
)  # fmt: skip
_JPEG = b'\xff\xd8\xff'
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 of a JPEG, which hold its size
_ORIENTATION = 0x0112  # tag of EXIF
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class Head(NamedTuple):
    """The size of the image that `decode_image` will return, read from the header of its file."""

    height: int
    width: int
    can_reduce: bool  # whether `decode_image(reduce=...)` shrinks by whole blocks from the upper left corner on


class Encoded(bytes):
    """The bytes of an image file, to be decoded by a transform.

    Attributes:
      name: of the file, for errors.
      rotate: whether to rotate the image as its EXIF says.
      max_pixels: a larger image is refused before it takes memory.
    """

    name: str
    rotate: bool
    max_pixels: int

    def __new__(cls, data: bytes, name: str = 'an image', rotate: bool = True, max_pixels: int = MAX_PIXELS):
        self = super().__new__(cls, data)
        self.name, self.rotate, self.max_pixels = name, rotate, max_pixels
        return self

    def __getattr__(self, attribute: str):
        # A transform of pixels that comes before `decode` asks for these: name the fix instead of a missing attribute.
        if attribute in ('shape', 'dtype', 'ndim'):
            raise CanonError(f"{self.name} is not decoded yet: put 'decode' before the transforms of its pixels")
        raise AttributeError(attribute)

    def __reduce__(self):
        return Encoded, (bytes(self), self.name, self.rotate, self.max_pixels)


class Files:
    """A source of images without labels: the file `path`, or all below the folder, sorted by name.

    Examples have 'image', uint8 [H, W, 3]. `skipped` lists the files that were left out.
    """

    def __init__(self, path: str | Path, unreadable: str = 'refuse', max_pixels: int = MAX_PIXELS):
        """
        Args:
          path: an image or a folder.
          unreadable: 'skip' decodes every file of a folder once now and leaves out, with a warning, what cannot be
            read; 'refuse' raises CanonError for such a file when it is read, as for a path that is not a folder.
          max_pixels: an image with more counts as unreadable.

        Raises:
          UsageError: there is no such file or folder, or no image in it.
          CanonError: no image of it can be read.
        """
        if not str(path).strip():
            raise UsageError('no file or folder of images is named')
        root = Path(path).expanduser()
        if not root.exists():
            raise UsageError(f'there is no file or folder {root}')
        if not root.is_dir() and not root.is_file():
            raise UsageError(f'{root} is neither a file nor a folder')
        self.paths = tuple(sorted(find_images(root))) if root.is_dir() else (root,)
        if not self.paths:
            raise UsageError(f'{root} holds no images ({", ".join(sorted(_SUFFIXES))})')
        self.skipped: tuple[Path, ...] = ()
        if unreadable == 'skip' and root.is_dir():
            explain = functools.partial(explain_unreadable, max_pixels=max_pixels)
            reasons = dict(zip(self.paths, check_in_threads(explain, self.paths, 'decoding images'), strict=True))
            self.paths = tuple(file for file, reason in reasons.items() if not reason)
            self.skipped = tuple(report_unreadable(reasons, root, True))
        self.info, self.max_pixels = Info(str(root)), max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError naming the file that cannot be decoded."""
        return {'image': read_image(self.paths[index], self.max_pixels)}

    def __repr__(self) -> str:
        return f'Files({self.info.name}, {len(self)} images)'


def read_image(file: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a file as uint8 RGB [H, W, 3], rotated as its EXIF says; see `decode_image`."""
    return decode_image(read_encoded(file, max_pixels))


def read_encoded(file: Path, max_pixels: int = MAX_PIXELS) -> Encoded:
    """Reads the bytes of an image file. Raises CanonError, which names the file, if that fails."""
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise OSError('not a regular file')
        return Encoded(file.read_bytes(), str(file), max_pixels=max_pixels)
    except OSError as error:
        raise _make_error(str(file), error) from error


def decode_image(image: Encoded, reduce: int = 1) -> np.ndarray:
    """Decodes an image to uint8 RGB [H, W, 3].

    It may be grey (8 or 16 bits, or floats in 0..1 or 0..255), palette, CMYK or RGB.

    reduce: 2, 4 or 8 gives [ceil(H / reduce), ceil(W / reduce), 3], for JPEGs at a fraction of the time.
    Raises CanonError, which names the image, also if it is truncated or has more than `image.max_pixels`.
    """
    try:
        pixels = _decode_jpeg(image, reduce) if image.startswith(_JPEG) else None
        if pixels is not None:
            return pixels
        with Image.open(io.BytesIO(image)) as opened:
            _check_pixels(*opened.size, image.max_pixels)
            rotated = ImageOps.exif_transpose(opened) if image.rotate else opened
            pixels = np.asarray(_to_rgb(rotated, opened.format))
    except UNREADABLE as error:
        raise _make_error(image.name, error) from error
    return pixels[::reduce, ::reduce]


def _decode_jpeg(image: Encoded, reduce: int) -> np.ndarray | None:
    """Decodes by OpenCV; None where that fails. It is rotated here, since OpenCV ignores XMP."""
    size = _read_jpeg_size(image)
    if size is None:
        return None
    _check_pixels(*size, image.max_pixels)
    flags = (_REDUCED[reduce] if reduce > 1 else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None:
        return None
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if reduce > 1 else pixels
    # The search takes microseconds, Pillow's reading of the header a tenth of a millisecond.
    if not image.rotate or not (b'Exif\0\0' in image or b'Orientation' in image):
        return pixels
    with Image.open(io.BytesIO(image)) as opened:
        return _rotate(pixels, read_orientation(opened))


def _rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotates and mirrors pixels by orientation 1 to 8 of EXIF."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_orientation(opened: Image.Image) -> int:
    """Returns the orientation 1 to 8 from EXIF, else from XMP; 1 if neither has one or they are broken."""
    try:
        orientation = opened.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns (width, height) from the header of the first frame; None if there is none."""
    at = 2
    # A JPEG is a sequence of segments, each a marker 0xFF.. and, but for a few, its length; the first frame has the
    # size.
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack('>HH', data[at + 5 : at + 9])
            return width, height
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers that are not followed by a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return None


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f'{width}x{height} is more than max_pixels={max_pixels:,}')


def _make_error(name: str, error: Exception) -> CanonError:
    reason = re.sub(r' ?<_io.*>', '', str(error) or type(error).__name__)  # an address in memory helps nobody
    return CanonError(f'{name} cannot be read ({reason}); repair or remove it')


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    """Converts to RGB. Pillow alone would clip integers of more than 8 bits, and floats, at 255 instead of scaling."""
    if image.mode == 'F':
        image = Image.fromarray(_convert_floats(np.asarray(image)))
    elif image.mode.startswith('I'):
        image = Image.fromarray(_convert_integers(np.asarray(image), file_format))
    return image.convert('RGB')


def _convert_floats(values: np.ndarray) -> np.ndarray:
    """Scales floats in 0..1 or 0..255 to uint8."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also refuses NaN
        raise ValueError(f'its floats are in {low:g}..{high:g}; store them in 0..1 or 0..255')
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)


def _convert_integers(values: np.ndarray, file_format: str | None) -> np.ndarray:
    """Scales 16 bits to uint8; some TIFFs hold 8 bits in a wider type."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f'its pixels are in {low}..{high}; store 8 or 16 bits')
    if values.dtype == np.int32 and file_format == 'TIFF' and high <= 255:
        return values.astype(np.uint8)
    return (values >> 8).astype(np.uint8)


def read_head(image: Encoded) -> Head:
    """Reads the size of an image from its header. Raises CanonError, which names the image."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
            _check_pixels(width, height, image.max_pixels)
            orientation = read_orientation(opened) if image.rotate else 1
            is_rotated = opened.format == 'TIFF'  # Pillow rotates these as it opens them
    except UNREADABLE as error:
        raise _make_error(image.name, error) from error
    if orientation >= 5 and not is_rotated:  # rows and columns are exchanged
        width, height = height, width
    return Head(height, width, image.startswith(_JPEG) and orientation == 1)


def drop_rotation(image: Encoded) -> Encoded:
    """Returns the image to be decoded as its pixels are stored, whatever its EXIF says."""
    return Encoded(bytes(image), image.name, rotate=False, max_pixels=image.max_pixels)


def is_image_name(name: str) -> bool:
    """Returns whether the ending of a file's name is one of images."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def find_images(path: Path) -> Iterator[Path]:
    """Yields the files of `list_images` as paths."""
    yield from map(Path, list_images(path))


def list_images(path: Path) -> Iterator[str]:
    """Yields all image files below `path`, by suffix, in no order; hidden and irregular files (pipes) are left out.

    Files of other suffixes, except for texts, are counted in a warning, once per folder. They are strings, because a
    million objects of pathlib take ten seconds and half a gigabyte.
    """
    others: Counter[str] = Counter()
    for file in _files_below(path):
        if is_image_name(file.name):
            yield file.path
        elif (suffix := Path(file.name).suffix.lower()) not in _TEXTS:
            others[suffix or 'without suffix'] += 1
    if others:
        _warn_of_others(path, ', '.join(f'{count} {suffix}' for suffix, count in sorted(others.items())))


def _files_below(path: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(path) as opened:
            entries = [entry for entry in opened if not entry.name.startswith('.')]
    except FileNotFoundError:  # a class that is missing in one of the splits
        return
    except OSError as error:
        raise CanonError(f'{path} cannot be listed ({error.strerror}); check its permissions') from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path))
        elif entry.is_file():
            yield entry


@functools.cache  # once, although each split of a folder is read by itself
def _warn_of_others(path: Path, counts: str) -> None:
    logging.getLogger('canon').warning('%s: files that are not read as images: %s', path, counts)


def explain_unreadable(path: str | Path, max_pixels: int = MAX_PIXELS, decode_pixels: bool = True) -> str:
    """Returns why the file cannot be decoded, or '' if it can. Without `decode_pixels` only its header is read."""
    file = Path(path)
    if decode_pixels:
        return explain_failure(lambda: read_encoded(file, max_pixels), str(file))
    try:
        if file.exists() and not file.is_file():
            return 'not a regular file'
        with Image.open(file) as opened:
            _check_pixels(*opened.size, max_pixels)
    except UNREADABLE as error:
        return re.sub(r" ?'[^']*'$", '', str(error)) or type(error).__name__
    return ''


def explain_failure(read: Callable[[], Encoded], name: str) -> str:
    """Returns why the image `name` that `read` returns cannot be decoded, or '' if it can."""
    try:
        decode_image(read())
    except CanonError as error:
        return re.sub(r'\); (repair or remove|restore) it$', '', str(error).removeprefix(f'{name} cannot be read ('))
    return ''


def check_in_threads(check: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """Returns check(item) of each image or record of one, with a bar of this title."""

    def check_some(start: int) -> list[Result]:
        return [check(item) for item in items[start : start + _AT_ONCE]]

    # Threads suffice: reading and decoding release the interpreter's lock.
    with ThreadPoolExecutor(4) as pool:
        results = itertools.chain.from_iterable(pool.map(check_some, range(0, len(items), _AT_ONCE)))
        return list(show_progress(results, title, 'image', len(items)))


def report_unreadable(reasons: Mapping[Any, str], below: Path, skip: bool) -> list[Path]:
    """Returns the files that cannot be read, and logs them in one line.

    Args:
      reasons: {file, a string or a path: why it cannot be read, or ''}.
      below: the folder of the files, for the message.
      skip: whether to log instead of raising.

    Raises:
      CanonError: some file cannot be read and `skip` is false, or none can be read.
    """
    why = {Path(file): reason for file, reason in reasons.items() if reason}
    bad = sorted(why)
    if not bad:
        return bad
    some = ', '.join(str(file.relative_to(below)) for file in bad[:5]) + (', ...' if len(bad) > 5 else '')
    message = f'{len(bad)} of {len(reasons)} images in {below} cannot be read: {some} (the first: {why[bad[0]]})'
    if not skip or len(bad) == len(reasons):
        raise CanonError(f'{message}; repair them' + ('' if skip else ", or say unreadable='skip'"))
    logging.getLogger('canon').warning('%s; they are skipped', message)
    return bad


def path_within(root: Path, name: str | Path, what: str) -> Path:
    """Returns `root / name`. Raises UsageError, which begins with `what`, if that is outside `root`.

    A file that lists others may come from anywhere, and must not name files elsewhere on the disk. A symbolic link
    within `root` may lead there.
    """
    path = root / name
    if '..' not in str(name) and not os.path.isabs(name):  # the fast path, for lists of millions
        return path
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise UsageError(f'{what}: {str(name)!r} points outside {root}; put the file, or a link to it, there')
    return path
