"""Arrays in an .npz file as a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from canon import named
from canon.data import splits
from canon.data.source import Arrays, Info
from canon.errors import CanonError, UsageError


def npz(
    path: str,
    split: str = 'train',
    fields: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Arrays:
    """The arrays of an .npz file, each with the examples on its first axis, as one source in memory.

    path: a file, or a folder that holds `train.npz`, `test.npz`, ... A file alone has one split, 'train'; slice it
    ('train[:90%]', in the stored order) to hold some out.
    fields: {name here: name in the file}, as {'image': 'x_test', 'label': 'y_test'}; None takes all as they are.
    num_classes, class_names: of the field 'label', which is then checked.

    Raises UsageError for a missing file or array and for unequal lengths, CanonError for a file that is no .npz and
    for a label out of range.
    """
    base, first, last = splits.parse(split)
    file = _file(Path(path).expanduser(), base)
    arrays = _read(file, fields)
    names = tuple(class_names) if class_names is not None else None
    source = Arrays(arrays, Info(str(file), split, num_classes or (len(names) if names else None), names))
    _check_labels(source)
    part = splits.bounds(first, last, len(source))
    return Arrays({field: array[part] for field, array in arrays.items()}, source.info)


def _file(path: Path, base: str) -> Path:
    if path.is_dir():
        if (path / f'{base}.npz').is_file():
            return path / f'{base}.npz'
        raise UsageError(f'{path} has no {base}.npz{named.near(base, [p.stem for p in path.glob("*.npz")])}')
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    if base != 'train':
        raise UsageError(
            f"{path} is one file and has no split {base!r}: slice it ('train[90%:]') or name a folder with {base}.npz"
        )
    return path


def _read(file: Path, fields) -> dict[str, np.ndarray]:
    try:
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise UsageError(f'{file} holds one array without a name; save it with numpy.savez(image=...)')
        with stored:
            wanted = dict(fields) if fields else {name: name for name in stored.files}
            for name in wanted.values():
                if name not in stored.files:
                    raise UsageError(f'{file} has no array {name!r}{named.near(name, stored.files)}')
            return {field: stored[name] for field, name in wanted.items()}
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CanonError(f'{file} cannot be read as .npz: {error}') from error


def _check_labels(source: Arrays) -> None:
    if source.info.num_classes is None or 'label' not in source.arrays:
        return
    labels, n = source.arrays['label'], source.info.num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= n))
    if len(wrong):
        raise CanonError(
            f'{source.info.name}: {len(wrong)} of {len(labels)} labels are not in 0..{n - 1}; the first is'
            f' label {labels.flat[wrong[0]]} of example {wrong[0]}'
        )
