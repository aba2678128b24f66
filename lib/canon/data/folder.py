"""A folder of images per class as a data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from canon import named
from canon.data import splits
from canon.data.files import decodes, images_below, opens, read_encoded, read_image
from canon.data.source import Example, Info
from canon.errors import CanonError, UsageError

_SPLITS = ('train', 'test', 'val', 'valid', 'validation')


def folder(path: str, split: str = 'train', unreadable: str = 'refuse', decode: bool = True) -> Folder:
    """The images under `path`, one folder a class: `path/cat/1.jpg`, or `path/train/cat/1.jpg` where there are splits.

    Labels number the class folders in sorted order; with splits, those of all splits together, so that a class that
    is missing in one of them shifts no label. Without splits everything is 'train', which a slice ('train[:90%]')
    divides: the examples stand in the order of a hash of their names, hence mixed.
    unreadable: 'refuse' opens each file now and raises CanonError with their number and names, and again later for
    one whose pixels are cut short; 'skip' decodes every file once now, leaves out what fails, logs it, and lists it in
    `source.skipped`.
    decode: without, 'image' holds the bytes of the file, for `decode` or `decode_random_resized_crop` among the
    transforms: the cache then keeps the compressed images, and large JPEGs are decoded no finer than needed.

    Raises UsageError for a missing folder, split or class folder and for no images at all.
    """
    if unreadable not in ('refuse', 'skip'):
        raise UsageError(f"unreadable={unreadable!r} is neither 'refuse' nor 'skip'")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    base, first, last = splits.parse(split)
    below, names = _layout(root, base)
    files = sorted(
        ((p, y) for y, name in enumerate(names) for p in images_below(below / name)), key=lambda f: _hash(f[0], below)
    )
    if not files:
        raise UsageError(f'{below} holds no images in folders of classes ({", ".join(names) or "no folders"})')
    for empty in sorted(set(range(len(names))) - {y for _, y in files}):
        logging.getLogger('canon').warning('class %r has no images in %s', names[empty], below)
    files, skipped = _check(files, below, unreadable)
    info = Info(str(root), split, len(names), names)
    return Folder(files[splits.bounds(first, last, len(files))], skipped, info, decode)


class Folder:
    """image: uint8 [H, W, 3], turned as its EXIF says, or the bytes of its file; label: int64 [].

    `skipped`: the files that were left out.
    """

    def __init__(self, files: Sequence[tuple[Path, int]], skipped: Sequence[Path], info: Info, decode: bool = True):
        self.files, self.skipped, self.info, self.decode = tuple(files), tuple(skipped), info, decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError naming the file that cannot be decoded."""
        file, label = self.files[index]
        return {'image': (read_image if self.decode else read_encoded)(file), 'label': np.asarray(label)}

    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self.files], np.int64)

    def __repr__(self) -> str:
        return f'Folder({self.info.name}, {self.info.split}, {len(self)} examples)'


def _layout(root: Path, base: str) -> tuple[Path, tuple[str, ...]]:
    """(the folder that holds the class folders of split `base`, the class names)."""
    found = _folders(root)
    if not any(name in _SPLITS for name in found):
        if base != 'train':
            raise UsageError(f"{root} has no split {base!r}: make {root / base}, or slice, as 'train[90%:]'")
        return root, tuple(found)
    if base not in found:
        raise UsageError(f'{root} has no split {base!r}{named.near(base, found)}')
    return root / base, tuple(sorted({name for split in found for name in _folders(root / split)}))


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _hash(file: Path, below: Path) -> bytes:
    return hashlib.md5(file.relative_to(below).as_posix().encode(), usedforsecurity=False).digest()


def _check(files, below, unreadable):
    """(the files that can be read, those that cannot)."""
    readable = decodes if unreadable == 'skip' else opens
    with ThreadPoolExecutor(4) as pool:
        good = list(pool.map(readable, [file for file, _ in files]))
    bad = [file for (file, _), fine in zip(files, good, strict=True) if not fine]
    if bad:
        some = ', '.join(str(f.relative_to(below)) for f in sorted(bad)[:5]) + (', ...' if len(bad) > 5 else '')
        message = f'{len(bad)} of {len(files)} images in {below} cannot be read: {some}'
        if unreadable == 'refuse' or len(bad) == len(files):
            raise CanonError(f"{message}; mend them, or say unreadable='skip'")
        logging.getLogger('canon').warning('%s; they are skipped', message)
    return [f for f, fine in zip(files, good, strict=True) if fine], sorted(bad)
