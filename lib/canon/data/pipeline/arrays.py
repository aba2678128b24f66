"""Arrays in .npz files as a data set, and safe reading of .npy and .npz files."""

from __future__ import annotations

import logging
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline import splits
from canon.data.pipeline.source import Arrays, Info
from canon.data.text import text_files
from canon.errors import CanonError, UsageError, first_line

# How the arrays of a file with several splits are called: Keras's names, and another common pattern.
_PATTERNS = ({'image': 'x_{}', 'label': 'y_{}'}, {'image': '{}_images', 'label': '{}_labels'})
# What numpy and zipfile raise for damaged files. The header of a .npy is Python code, read by Python's tokenizer.
BROKEN = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_DEFLATED = 1032  # the greatest ratio of compression of deflate


def npz(
    path: str,
    split: str = 'train',
    fields: Mapping[str, str] | None = None,
    num_classes: named.Count | None = None,
    class_names: Sequence[str] | None = None,
) -> Arrays:
    """Reads the arrays of an .npz file, each with the examples on its first axis, as a source in memory.

    The field 'image' [N, H, W] becomes [N, H, W, 1], and integers 'label' [N, 1] become [N].

    Args:
      path: a file, or a folder of `train.npz`, `test.npz`, ... A single file has one split, 'train'; slice it
        ('train[:90%]', in the stored order) to hold some out. A file with x_train, y_train, x_test, y_test (as in
        Keras) or train_images, train_labels, ... has the splits of these names.
      split: may be sliced.
      fields: {field: name in the file}, such as {'image': 'pictures', 'label': 'digit'}; None takes all as they are.
      num_classes: of the field 'label', which is then checked.
      class_names: gives num_classes as well.

    Raises:
      UsageError: the file, the split or an array is missing, or lengths differ.
      CanonError: the file is not an .npz, or labels are not classes.
    """
    base, first, last = splits.parse_split(split)
    file, stored = _file(text_files.expand_path(path), base)
    with open_npz(file) as archive:
        arrays = read_arrays(file, archive, fields or _fields_of_split(archive, file, base, stored))
    names = tuple(class_names) if class_names is not None else None
    if names and num_classes not in (None, len(names)):
        raise UsageError(f'num_classes={num_classes}, but class_names has {len(names)} names')
    n = num_classes if num_classes is not None else len(names) if names else None
    source = Arrays(_with_axes(arrays, str(file)), Info(str(file), split, n, names))
    _check_labels(source)
    part = splits.to_slice(first, last, len(source))
    sliced = {field: array[part] for field, array in source.arrays.items()}
    return Arrays(sliced, source.info._replace(total=len(source)))


def _file(path: Path, base: str) -> tuple[Path, bool]:
    """Returns the file, and whether it holds the split `base` alone."""
    if path.is_dir():
        if (path / f'{base}.npz').is_file():
            return path / f'{base}.npz', True
        raise UsageError(f'{path} has no {base}.npz{named.suggest(base, [p.stem for p in path.glob("*.npz")])}')
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    return path, False


def map_npy(path: Path) -> Any:
    """Memory-maps a .npy file, so that a false header allocates nothing; opens an .npz. Raises one of `BROKEN`."""
    with np.errstate(over='ignore'):  # an absurd shape overflows before numpy refuses it
        return np.load(path, mmap_mode='r', allow_pickle=False)


def read_npy(path: Path) -> np.ndarray:
    """Reads a .npy file. Raises CanonError for a file in another format, with objects, or truncated."""
    try:
        stored = map_npy(path)
        if not isinstance(stored, np.ndarray):
            raise ValueError('it is an .npz archive')
        return np.array(stored)
    except BROKEN as error:
        raise CanonError(f'{path} is not an array of numbers: {first_line(error)}') from error


def open_npz(file: Path) -> np.lib.npyio.NpzFile:
    """Opens an .npz file; `read_arrays` reads its arrays."""
    try:
        stored = np.load(file, allow_pickle=False)
    except BROKEN as error:
        raise CanonError(f'{file} cannot be read as .npz: {error}') from error
    if isinstance(stored, np.ndarray):
        raise UsageError(f'{file} holds one array without a name; save it with numpy.savez(image=...)')
    return stored


def _fields_of_split(archive, file: Path, base: str, stored: bool) -> dict[str, str]:
    """Returns {field: name in the file} of split `base`, by the names of the arrays; all if they name no split."""
    names = list(archive.files)
    if stored:
        return {name: name for name in names}
    for pattern in _PATTERNS:
        prefix, suffix = pattern['image'].split('{}')
        known = [n[len(prefix) : len(n) - len(suffix)] for n in names if n.startswith(prefix) and n.endswith(suffix)]
        known = [split for split in known if split]
        if base in known:
            expected = {field: name.format(base) for field, name in pattern.items()}
            return {field: name for field, name in expected.items() if name in names}
        if known:
            raise UsageError(f'{file} has no split {base!r}{named.suggest(base, known)}')
    if base != 'train':
        raise UsageError(
            f"{file} is one file and has no split {base!r}: slice it ('train[90%:]') or name a folder with {base}.npz"
        )
    return {name: name for name in names}


def read_arrays(file: Path, archive, fields: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Reads {field: name in the file} of an opened .npz file, after checking each header against its entry."""
    for name in fields.values():
        if name not in archive.files:
            raise UsageError(f'{file} has no array {name!r}{named.suggest(name, archive.files)}')
    try:
        for name in fields.values():
            _check_size(archive.zip, name)
        return {field: np.asarray(archive[name]) for field, name in fields.items()}
    except BROKEN as error:
        raise CanonError(f'{file} cannot be read as .npz: {error or "it does not fit into memory"}') from error


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ValueError if the header of an array does not fit its entry: numpy allocates what the header states."""
    entry = archive.getinfo(f'{name}.npy' if f'{name}.npy' in archive.namelist() else name)
    # A header of a few bytes may claim terabytes, which would be allocated before they are found missing.
    if entry.file_size > _DEFLATED * max(entry.compress_size, 1):
        raise ValueError(f'array {name!r} cannot have {entry.file_size} bytes')
    with archive.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
        start = opened.tell()
    # Arrays of objects have no size of their own; numpy refuses to read them without pickle.
    if not dtype.hasobject and start + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f'array {name!r} of shape {list(shape)} does not fit the {entry.file_size} bytes that it has')


def _with_axes(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Gives grey images [N, H, W] their channel, and integer labels [N, 1] the shape [N]."""
    arrays = dict(arrays)
    if 'image' in arrays and arrays['image'].ndim == 3:
        arrays['image'] = arrays['image'][..., None]
    if 'label' in arrays:
        labels = arrays['label']
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.ndim == 1 and not np.issubdtype(labels.dtype, np.integer):
            raise CanonError(f"{name}: labels are integers 0, 1, ..., not {labels.dtype}; store 'label' as int64")
        arrays['label'] = labels
    return arrays


def _check_labels(source: Arrays) -> None:
    n, labels = source.info.num_classes, source.arrays.get('label')
    if n is None or labels is None or labels.ndim != 1:
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= n))
    if len(wrong):
        raise CanonError(
            f'{source.info.name}: {len(wrong)} of {len(labels)} labels are not in 0..{n - 1}; the first is'
            f' label {labels.flat[wrong[0]]} of example {wrong[0]}'
        )
    if len(labels) and labels.max() < n - 1:
        log = logging.getLogger('canon')
        log.warning('%s: num_classes=%d, but the largest label is %d', source.info.name, n, labels.max())
