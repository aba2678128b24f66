"""A data set of images in one folder per class."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from canon import named
from canon.data.images.checked import check_files
from canon.data.images.image_files import (
    MAX_PIXELS,
    explain_unreadable,
    list_images,
    read_encoded,
    read_image,
    report_unreadable,
)
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.errors import UsageError

_SPLITS = ('train', 'test', 'val', 'valid', 'validation')
_OWN_SPLITS = ('train', 'test', 'all')  # of a folder that is not divided into splits


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
    is missing in one split does not shift the labels. The examples are in the order of a hash of their names, hence
    mixed. A folder without splits is divided: of each class the first share `held_out` in that order is 'test', the
    rest 'train'; 'all' is both. The same files always give the same division, which is logged.

    Args:
      path: the folder.
      split: may be sliced, 'train[:90%]'.
      unreadable: 'refuse' opens each file now and raises CanonError with the number and names of those that cannot be
        read, and later for one whose pixels are truncated; 'skip' decodes every file once now, leaves out those that
        fail, logs them, and lists them in `source.skipped`. What was checked in large folders is remembered:
        `canon.data.images.checked`.
      decode: if False, 'image' holds the bytes of the file, for `decode` or `decode_random_resized_crop` among the
        transforms: the cache then keeps the compressed images, and large JPEGs are decoded no finer than needed.
      held_out: the share of each class that becomes 'test' if the folder has no splits of its own.
      max_pixels: an image with more, according to its header, counts as unreadable. (Pillow has a bound of its own,
        twice the default, for all formats but JPEG.)

    Raises:
      UsageError: the folder, the split or the class folders are missing, or there are no images.
    """
    if unreadable not in ('refuse', 'skip'):
        raise UsageError(f"unreadable={unreadable!r} is neither 'refuse' nor 'skip'")
    root = text_files.require_folder(path)
    base, first, last = splits.parse_split(split)
    below, names = _layout(root, base)
    files = _list_files(below, names)
    if not files:
        raise UsageError(f'{below} holds no images in folders of classes ({", ".join(names) or "no folders"})')
    for empty in sorted(set(range(len(names))) - {y for _, y in files}):
        logging.getLogger('canon').warning('class %r has no images in %s', names[empty], below)
    if below == root and base != 'all':
        files = _divide(files, base == 'test', held_out, root)
    # The files of a split are checked for themselves, so the result is remembered for that split.
    files, skipped = _check(files, below, unreadable == 'skip', max_pixels, f'{base} without {held_out}')
    info = Info(str(root), split, len(names), tuple(map(_printable, names)), len(files))
    return Folder(files[splits.to_slice(first, last, len(files))], skipped, info, decode, max_pixels)


class Folder:
    """Examples have 'image', uint8 [H, W, 3] rotated as its EXIF says or the bytes of its file, and 'label', int64 [].

    `skipped` lists the files that were left out.
    """

    def __init__(
        self,
        files: Sequence[tuple[str | Path, int]],
        skipped: Sequence[Path],
        info: Info,
        decode: bool = True,
        max_pixels: int = MAX_PIXELS,
    ):
        """files: (path, label) of each example. The other arguments are those of `folder`."""
        self.files, self.skipped, self.info = tuple(files), tuple(skipped), info
        self.decode, self.max_pixels = decode, max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError, which names the file, if it cannot be decoded."""
        file, label = self.files[index]
        read = read_image if self.decode else read_encoded
        return {'image': read(Path(file), self.max_pixels), 'label': np.asarray(label)}

    def labels(self) -> np.ndarray:
        """Returns the labels [n], without reading images."""
        return np.array([label for _, label in self.files], np.int64)

    def __repr__(self) -> str:
        return f'Folder({self.info.name}, {self.info.split}, {len(self)} examples)'


def _layout(root: Path, base: str) -> tuple[Path, tuple[str, ...]]:
    """Returns the folder that holds the class folders of split `base`, and the class names."""
    names = _folder_names(root)
    split_folders = [name for name in names if name in _SPLITS and _folder_names(root / name)]  # 'train' may be a class
    if not split_folders:
        if base not in _OWN_SPLITS:
            raise UsageError(
                f"{root} has no split {base!r}: make {root / base}, or take 'train' and 'test' of its own division"
            )
        return root, tuple(names)
    if base not in names:
        example = split_folders[0]
        raise UsageError(
            f'{root} has no split {base!r}{named.suggest(base, split_folders)}; or hold some out by slices,'
            f" data.train.split='{example}[:80%]' and data.evals.NAME.split='{example}[80%:]'"
        )
    return root / base, tuple(sorted({name for split in names for name in _folder_names(root / split)}))


def _divide(files, test: bool, held_out: float, root: Path):
    """Returns the files of 'test' (of each class the first share `held_out`, at least one of two) or of 'train'."""
    counts: dict[int, int] = {}
    for _, y in files:
        counts[y] = counts.get(y, 0) + 1
    to_test = {y: min(max(round(held_out * n), 1), n - 1) if held_out else 0 for y, n in counts.items()}
    sides: tuple[list, list] = ([], [])  # train, test
    for file, y in files:
        sides[to_test[y] > 0].append((file, y))
        to_test[y] -= 1
    _log_division(root, *map(len, sides))
    if not sides[test]:
        raise UsageError(f'{root}: no image is left for {("train", "test")[test]!r} with held_out={held_out}')
    return sides[test]


@functools.cache  # once, although each split is read by itself
def _log_division(root: Path, train: int, test: int) -> None:
    log = logging.getLogger('canon')
    log.info('%s has no splits: %d images to train and %d to test, by a hash of their names', root, train, test)


def _folder_names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _list_files(below: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """Returns (file, label) of all images in the class folders, in the order of a hash of their names below `below`."""
    hashed = []
    for label, name in enumerate(names):
        start = len(str(below / name)) + 1
        for file in list_images(below / name):
            within = os.fsencode(f'{name}/{file[start:]}'.replace(os.sep, '/'))  # the bytes on the disk, UTF-8 or not
            hashed.append((hashlib.md5(within, usedforsecurity=False).digest(), file, label))
    return [(file, label) for _, file, label in sorted(hashed)]


def _printable(name: str) -> str:
    """Replaces each byte of a name that is not UTF-8 by a mark."""
    return os.fsencode(name).decode(errors='replace')


def _check(files, below: Path, skip: bool, max_pixels: int, part: str):
    """Returns the files that can be read, and those that cannot."""
    explain = functools.partial(explain_unreadable, max_pixels=max_pixels, decode_pixels=skip)
    title = 'decoding images' if skip else 'opening images'
    kind = f'{title} of {part}, at most {max_pixels} pixels'
    reasons = check_files(explain, [f for f, _ in files], below, title, kind)
    bad = report_unreadable({f: reason for (f, _), reason in zip(files, reasons, strict=True)}, below, skip)
    return [f for f, reason in zip(files, reasons, strict=True) if not reason], bad
