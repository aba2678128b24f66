"""What `predict` of an experiment yields, and the writer of it: one table, files and texts.

def predict(config, experiment, params, mutable, source):
    for path, probabilities in ...:
        yield Prediction(row={'file': path, 'class': names[probabilities.argmax()]})
    yield Prediction(files={'predictions.png': figure})
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon.errors import UsageError

TABLE = 'predictions.csv'
_DPI = 100  # of figures
_MILLISECONDS = 50  # per frame of a video
_LISTED = 6  # files that the summary names


class Prediction(NamedTuple):
    """What a model says about one input.

    Attributes:
      row: {column: value}, a row of `predictions.csv`. All rows have the same columns; without any, there is none.
      files: {name: content}. The content is text, bytes, a matplotlib figure, an image or a video (uint8
        [H, W], [H, W, C] or [T, H, W, C] for .gif and .mp4), or an object with `save(path)` such as
        `plots.Animation`. The ending of the name decides the format. A contact sheet of all inputs is a file of the
        last prediction.
      text: printed.
    """

    row: Mapping[str, Any] = {}
    files: Mapping[str, Any] = {}
    text: str = ''


def write(predictions: Iterable[Prediction], output: str | Path) -> str:
    """Writes predictions into a folder as they come and prints their texts.

    Each row is in the table before the next prediction is computed, so that an interrupted command leaves what it has
    done. Files are replaced as a whole. The folder is made by the first thing that is written.

    Args:
      predictions: often a generator, which may raise `UsageError` for an input that it cannot read.
      output: the folder.

    Returns:
      a line that says what was written and where.

    Raises:
      UsageError: a row has other columns than the first one, or a file name is invalid or repeated.
    """
    folder, table = Path(output), _Table(Path(output) / TABLE)
    names: dict[str, None] = {}
    try:
        for prediction in predictions:
            if prediction.row:
                table.add(prediction.row)
            for name, content in prediction.files.items():
                _check_name(name, names)
                save(content, folder / name)
                names[name] = None
            if prediction.text:
                print(prediction.text, flush=True)
    finally:
        table.close()
    return _summary(table, folder, list(names))


def save(content: Any, path: Path) -> None:
    """Writes the content of a file of `Prediction.files`: first next to `path`, then in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.stem}.part{path.suffix}')  # writers of images choose the format by the ending
    try:
        _write_content(content, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class _Table:
    """A CSV file that is opened by its first row, whose keys are its header."""

    def __init__(self, path: Path):
        self.path, self.rows, self.columns = path, 0, ()
        self._file = None

    def add(self, row: Mapping[str, Any]) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # File names are bytes: those that are not UTF-8 are written as they are.
            self._file = self.path.open('w', newline='', encoding='utf-8', errors='surrogateescape')
            self.columns = tuple(row)
            csv.writer(self._file).writerow(self.columns)
        if set(row) != set(self.columns):
            raise UsageError(
                f'{self.path}: row {self.rows + 1} has the columns {", ".join(row)}, the first row has '
                f'{", ".join(self.columns)}; `predict` must yield the same columns each time'
            )
        csv.writer(self._file).writerow([row[column] for column in self.columns])
        self._file.flush()
        self.rows += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _check_name(name: str, names: Iterable[str]) -> None:
    path = Path(name)
    if path.is_absolute() or '..' in path.parts or name == TABLE or not path.name:
        raise UsageError(f'a prediction has the file {name!r}; expected a path below the output folder, not {TABLE}')
    if name in names:
        raise UsageError(f'two predictions have the file {name!r}; `predict` must name each file differently')


def _write_content(content: Any, path: Path) -> None:
    if isinstance(content, str):
        path.write_bytes(content.encode(errors='surrogateescape'))  # bytes: line ends stay as they are
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        _write_image(content, path)
    elif hasattr(content, 'savefig'):
        content.savefig(path, dpi=_DPI)
    elif hasattr(content, 'save'):
        content.save(path)
    else:
        raise TypeError(f'{path.name}: cannot write a {type(content).__name__}; see experiments.predictions.Prediction')


def _write_image(image: np.ndarray, path: Path) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3, 4):
        raise TypeError(
            f'{path.name}: expected uint8 [H, W], [H, W, C] or [T, H, W, C], got {image.dtype} {image.shape}'
        )
    import imageio.v3 as imageio

    if image.ndim < 4:
        imageio.imwrite(path, image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    elif path.suffix == '.gif':
        imageio.imwrite(path, image, duration=_MILLISECONDS, loop=0)
    else:
        imageio.imwrite(path, image, fps=1000 / _MILLISECONDS, macro_block_size=1)


def _summary(table: _Table, folder: Path, names: list[str]) -> str:
    rows = [f'{table.rows} {"row" if table.rows == 1 else "rows"} in {table.path}'] if table.rows else []
    files = [str(folder / name) for name in names[:_LISTED]]
    if len(names) > _LISTED:
        files.append(f'and {len(names) - _LISTED} more files in {folder}')
    return ', '.join(rows + files) or 'nothing was predicted'
