"""Reads the files of a data set from a folder, or from an uncompressed tar as it was downloaded."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from canon.data.images import image_files
from canon.data.text import text_files
from canon.errors import CanonError, UsageError, first_line


class FileTree:
    """The files below a folder, or in a tar, by their names relative to it: 'JPEGImages/000001.jpg'.

    A tar that has one folder is read as that folder. It is not unpacked: each file is read from its place, so that any
    number of threads and processes may read at once.
    """

    def __init__(self, path: str | Path):
        """Raises UsageError if there is no folder or tar at `path`, or the tar is compressed."""
        self.root = text_files.expand_path(path)
        self._members: Mapping[str, tuple[int, int]] | None = None  # offset and size of the files of a tar
        if self.root.is_file():
            self._members = _list_tar(self.root)
        elif not self.root.is_dir():
            raise UsageError(f'there is no folder or tar file {self.root}{text_files.suggest_neighbours(self.root)}')

    def has_file(self, name: str) -> bool:
        """Returns whether there is a file of this name. Raises UsageError for a name that leads out of the folder."""
        if self._members is not None:
            return name in self._members
        return image_files.path_within(self.root, name, str(self.root)).is_file()

    def has_folder(self, name: str) -> bool:
        """Returns whether there is a folder of this name; a tar has those that hold files."""
        if self._members is not None:
            return any(member.startswith(f'{name}/') for member in self._members)
        return (self.root / name).is_dir()

    def list_names(self, folder: str = '') -> list[str]:
        """Returns the sorted names of the files and folders in a folder, without hidden ones; [] if it is missing."""
        if self._members is not None:
            prefix = f'{folder}/' if folder else ''
            below = (member[len(prefix) :] for member in self._members if member.startswith(prefix))
            names = {name.partition('/')[0] for name in below}
        else:
            names = {p.name for p in (self.root / folder).iterdir()} if self.has_folder(folder) else set()
        return sorted(name for name in names if not name.startswith('.'))

    def show(self, name: str) -> str:
        """Returns the path of a file for messages."""
        return f'{self.root}:{name}' if self._members is not None else str(self.root / name)

    def open_file(self, name: str) -> BinaryIO:
        """Opens a file to read it. Raises CanonError, which names it, if that fails."""
        try:
            if self._members is None:
                return image_files.path_within(self.root, name, str(self.root)).open('rb')
            offset, size = self._members[name]
            # Opened for each file: a shared handle has one position, which threads and forked processes would move.
            with self.root.open('rb') as archive:
                archive.seek(offset)
                return io.BytesIO(archive.read(size))
        except (OSError, KeyError, ValueError) as error:  # ValueError: an annotation names a file with a null byte
            raise CanonError(f'{self.show(name)} cannot be read ({error}); restore it') from error

    def read_bytes(self, name: str) -> bytes:
        """Returns the content of a file. Raises CanonError, which names it, if that fails."""
        with self.open_file(name) as opened:
            return opened.read()

    def read_lines(self, name: str) -> list[str]:
        """Returns the lines of a text file in UTF-8. Raises CanonError if it is not."""
        try:
            # Editors of Windows begin a text with a byte order mark, which would become part of the first name.
            return self.read_bytes(name).decode('utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise CanonError(f'{self.show(name)} is not UTF-8 text ({error.reason}); convert it') from error

    def read_encoded(self, name: str, max_pixels: int = image_files.MAX_PIXELS) -> image_files.Encoded:
        """Returns the bytes of an image file, to be decoded."""
        return image_files.Encoded(self.read_bytes(name), self.show(name), max_pixels=max_pixels)

    def read_image_size(self, name: str) -> ImageSize:
        """Reads the size of an image from its header. Raises CanonError, which names the file."""
        with self.open_file(name) as opened:
            try:
                with Image.open(opened) as image:
                    width, height = image.size
                    # Orientations from 5 exchange rows and columns. Pillow turns TIFFs itself as it opens them.
                    is_turned = image.format != 'TIFF' and image_files.read_orientation(image) >= 5
            except image_files.UNREADABLE as error:
                raise CanonError(f'{self.show(name)} is not an image ({first_line(error)}); restore it') from error
        return ImageSize(height, width, is_turned)

    def __repr__(self) -> str:
        return f'FileTree({self.root})'


class ImageSize(NamedTuple):
    """The size of an image in its file, and whether its EXIF asks to exchange rows and columns."""

    height: int
    width: int
    is_turned: bool = False

    @property
    def rotated(self) -> tuple[int, int]:
        """The (height, width) after the rotation that EXIF asks for."""
        return (self.width, self.height) if self.is_turned else (self.height, self.width)


def _list_tar(path: Path) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(path, 'r:') as archive:  # ':' refuses compression, which has no random access
            members = [member for member in archive if member.isreg()]
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UsageError(
            f'{path} is not an uncompressed tar ({first_line(error)}): unpack it and give the folder'
        ) from error
    files = {member.name.removeprefix('./'): (member.offset_data, member.size) for member in members}
    tops = {name.partition('/')[0] for name in files if '/' in name}
    if len(tops) == 1:  # perhaps next to a licence
        prefix = f'{tops.pop()}/'
        files = {name.removeprefix(prefix): place for name, place in files.items()}
    return files
