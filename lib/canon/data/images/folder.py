"""A folder of images per class as a data set."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from canon import named
from canon.data.images.image_files import (
    MAX_PIXELS,
    images_below,
    read_encoded,
    read_image,
    report_unreadable,
    why_unreadable,
)
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.errors import UsageError

_SPLITS = ('train', 'test', 'val', 'valid', 'validation')
_OWN_SPLITS = ('train', 'test', 'all')  # of a folder that has none


def folder(
    path: str,
    split: str = 'train',
    unreadable: str = 'refuse',
    decode: bool = True,
    held_out: named.Probability = 0.2,
    max_pixels: named.Count = MAX_PIXELS,
) -> Folder:
    """Reads the images under `path`, one folder per class: `path/cat/1.jpg`, or `path/train/cat/1.jpg` with splits.

    Labels number the class folders in sorted order; with splits, those of all splits together, so that a class that
    is missing in one of them shifts no label. The examples stand in the order of a hash of their names, hence mixed.
    A folder without splits is divided: of each class the first `held_out` in that order are 'test', the rest 'train';
    'all' is both. The same files always give the same division, which is logged.

    Args:
      path: the folder.
      split: which one; it may be sliced ('train[:90%]').
      unreadable: 'refuse' opens each file now and raises CanonError with their number and names, and again later for
        one whose pixels are cut short; 'skip' decodes every file once now, leaves out what fails, logs it, and lists
        it in `source.skipped`.
      decode: if False, 'image' holds the bytes of the file, for `decode` or `decode_random_resized_crop` among the
        transforms: the cache then keeps the compressed images, and large JPEGs are decoded no finer than needed.
      held_out: the share of each class that becomes 'test' where the folder has no splits of its own.
      max_pixels: an image with more, by the head of its file, counts as unreadable. (Pillow has a bound of its own,
        twice the default, for all but JPEGs.)

    Raises UsageError for a missing folder, split or class folder and for no images at all.
    """
    if unreadable not in ('refuse', 'skip'):
        raise UsageError(f"unreadable={unreadable!r} is neither 'refuse' nor 'skip'")
    root = text_files.expand_path(path)
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
    if below == root and base != 'all':
        files = _divide(files, base == 'test', held_out, root)
    files, skipped = _check(files, below, unreadable == 'skip', max_pixels)
    info = Info(str(root), split, len(names), tuple(map(_printable, names)), len(files))
    return Folder(files[splits.bounds(first, last, len(files))], skipped, info, decode, max_pixels)


class Folder:
    """image: uint8 [H, W, 3], turned as its EXIF says, or the bytes of its file; label: int64 [].

    `skipped`: the files that were left out.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        skipped: Sequence[Path],
        info: Info,
        decode: bool = True,
        max_pixels: int = MAX_PIXELS,
    ):
        """Arguments as of `folder`; files: (path, label)."""
        self.files, self.skipped, self.info = tuple(files), tuple(skipped), info
        self.decode, self.max_pixels = decode, max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError naming the file that cannot be decoded."""
        file, label = self.files[index]
        read = read_image if self.decode else read_encoded
        return {'image': read(file, self.max_pixels), 'label': np.asarray(label)}

    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self.files], np.int64)

    def __repr__(self) -> str:
        return f'Folder({self.info.name}, {self.info.split}, {len(self)} examples)'


def _layout(root: Path, base: str) -> tuple[Path, tuple[str, ...]]:
    """(the folder that holds the class folders of split `base`, the class names)."""
    found = _folders(root)
    split_folders = [name for name in found if name in _SPLITS and _folders(root / name)]  # 'train' may be a class
    if not split_folders:
        if base not in _OWN_SPLITS:
            raise UsageError(
                f"{root} has no split {base!r}: make {root / base}, or take 'train' and 'test' of its own division"
            )
        return root, tuple(found)
    if base not in found:
        some = split_folders[0]
        raise UsageError(
            f'{root} has no split {base!r}{named.suggest(base, split_folders)}; or hold some out by slices,'
            f" data.train.split='{some}[:80%]' and data.evals.NAME.split='{some}[80%:]'"
        )
    return root / base, tuple(sorted({name for split in found for name in _folders(root / split)}))


def _divide(files, test: bool, held_out: float, root: Path):
    """The files of one side: of each class the first `held_out` (one at least, if there are two) are the test's."""
    counts: dict[int, int] = {}
    for _, y in files:
        counts[y] = counts.get(y, 0) + 1
    left = {y: min(max(round(held_out * n), 1), n - 1) if held_out else 0 for y, n in counts.items()}
    sides: tuple[list, list] = ([], [])
    for file, y in files:
        sides[left[y] > 0].append((file, y))
        left[y] -= 1
    _tell_division(root, *map(len, sides))
    if not sides[test]:
        raise UsageError(f'{root}: no image is left for {("train", "test")[test]!r} with held_out={held_out}')
    return sides[test]


@functools.cache  # once for the splits of a run
def _tell_division(root: Path, train: int, test: int) -> None:
    log = logging.getLogger('canon')
    log.info('%s has no splits: %d images to train and %d to test, by a hash of their names', root, train, test)


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _hash(file: Path, below: Path) -> bytes:
    name = os.fsencode(file.relative_to(below).as_posix())  # the bytes on the disk, UTF-8 or not
    return hashlib.md5(name, usedforsecurity=False).digest()


def _printable(name: str) -> str:
    """`name` with a mark for each byte that is not UTF-8."""
    return os.fsencode(name).decode(errors='replace')


def _check(files, below: Path, skip: bool, max_pixels: int):
    """(the files that can be read, those that cannot)."""
    with ThreadPoolExecutor(4) as pool:
        reasons = list(pool.map(lambda f: why_unreadable(f[0], max_pixels, whole=skip), files))
    bad = report_unreadable({file: why for (file, _), why in zip(files, reasons, strict=True)}, below, skip)
    return [f for f, why in zip(files, reasons, strict=True) if not why], bad
