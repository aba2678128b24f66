"""Predictions as they are computed, and their writer: one table, files and texts.

A generator yields a `Prediction` per input, and perhaps one for all of them (`predict` of an experiment does):

    def predict():
        for path, probabilities in ...:
            yield Prediction(row={'file': path, 'class': names[probabilities.argmax()]})
        yield Prediction(files={'predictions.png': figure})

    write_predictions(predict(), 'out')
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon import plots
from canon.data.images.videos import VideoFiles
from canon.errors import CanonError, UsageError
from canon.plots.saving import VideoWriter
from canon.progress import make_bar

TABLE = 'predictions.csv'
SHEET = 64  # images on a contact sheet
_LISTED = 6  # files that the summary names
_FRAME_RATE = 20.0  # of a video that does not state its own


class SkippedInputs(CanonError):
    """Some inputs could not be read, and all others are predicted."""


class Prediction(NamedTuple):
    """The prediction of a model for one input.

    Attributes:
      row: {column: value}, a row of `predictions.csv`. All rows have the same columns; without any, there is none.
      files: {name: content}, as of `plots.save_content`: text, bytes, a figure, an image, a video, an animation. A
        contact sheet of all inputs is a file of the last prediction.
      text: printed.
    """

    row: Mapping[str, Any] = {}
    files: Mapping[str, Any] = {}
    text: str = ''


def write_predictions(predictions: Iterable[Prediction], output: str | Path, total: int | None = None) -> str:
    """Writes predictions into a folder as they come and prints their texts.

    Each row is in the table before the next prediction is computed, so that an interrupted command leaves what it has
    done. Files are replaced as a whole. The folder is made by the first thing that is written.

    Args:
      predictions: often a generator, which may raise `UsageError` for an input that it cannot read.
      output: the folder.
      total: predictions that are expected, for the live line on a terminal.

    Returns:
      a line that says what was written and where.

    Raises:
      SkippedInputs: all is written, but for inputs that could not be read.
      UsageError: a row has other columns than the first one, or a file name is invalid or repeated.
    """
    folder, table = Path(output), _Table(Path(output) / TABLE)
    names: dict[str, None] = {}
    bar = make_bar(total, 'prediction', 'inputs')
    try:
        for prediction in predictions:
            if prediction.row:
                table.add(prediction.row)
            for name, content in prediction.files.items():
                _check_name(name, names)
                plots.save_content(content, folder / name)
                names[name] = None
            if prediction.text:
                bar.clear()
                print(prediction.text, flush=True)
            bar.update()
    except SkippedInputs as error:
        raise SkippedInputs(f'{_summary(table, folder, list(names))}; {error}') from error
    finally:
        bar.close()
        table.close()
    return _summary(table, folder, list(names))


def predict_images(
    results: Iterable[tuple[Mapping[str, Any], np.ndarray, str]],
    draw: Callable[[np.ndarray, Sequence[str]], Any],
    summarise: Callable[[int], str] = lambda count: '',
) -> Iterator[Prediction]:
    """Yields a prediction per image, and at last a contact sheet of the first ones.

    Args:
      results: (row of the table, image [H, W, C], its title on the sheet) for each image.
      draw: (images [N, H, W, C], titles) -> the sheet.
      summarise: the number of images -> what is printed at the end.
    """
    sheet, count = [], 0
    for row, image, title in results:
        yield Prediction(row)
        count += 1
        if len(sheet) < SHEET:  # the others are not kept: a folder may hold more images than the memory
            sheet.append((image, title))
    images, titles = zip(*sheet, strict=True)
    yield Prediction(files={'predictions.png': draw(np.stack(images), titles)}, text=summarise(count))


def join_frames(predictions: Iterable[Prediction], files: Any, ending: str) -> Iterator[Prediction]:
    """Yields the predictions of the frames of a video with one annotated video, NAME.mp4, in place of their pictures.

    Predictions of other files are passed on as they are.

    Args:
      predictions: of the frames, in order.
      files: `VideoFiles`, or another source of images.
      ending: of the names of the pictures that become frames; other files of a frame are left out.
    """
    if not isinstance(files, VideoFiles):
        yield from predictions
        return
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder) / 'frames.mp4', {frame.stem for frame in files.paths}
        with VideoWriter(path, files.frame_rate or _FRAME_RATE) as writer:
            for prediction in predictions:
                for name, picture in prediction.files.items():
                    if name.endswith(ending):
                        writer.append(picture)
                # A frame's own files begin with its number; a table of all frames does not.
                rest = {n: content for n, content in prediction.files.items() if Path(n).name[:6] not in names}
                yield prediction._replace(files=rest)
        yield Prediction(files={f'{files.name}.mp4': path.read_bytes()})


def report_skipped(predictions: Iterable[Prediction], files: Any) -> Iterator[Prediction]:
    """Yields all predictions, and then raises SkippedInputs if `files.skipped` names files that were left out."""
    yield from predictions
    if skipped := getattr(files, 'skipped', ()):
        shown = ', '.join(map(str, skipped[:5])) + (', ...' if len(skipped) > 5 else '')
        total = len(skipped) + len(files)
        raise SkippedInputs(f'{len(skipped)} of {total} images cannot be read: {shown}; repair or remove them')


class _Table:
    """A CSV file that is opened by its first row, whose keys are its header."""

    def __init__(self, path: Path):
        self.path, self.rows, self.columns = path, 0, ()
        self._file = None

    def add(self, row: Mapping[str, Any]) -> None:
        if self._file is None:
            # Not before: a command that fails at its first input leaves no empty table.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # File names are bytes: those that are not UTF-8 are written as they are.
            self._file = self.path.open('w', newline='', encoding='utf-8', errors='surrogateescape')
            self.columns = tuple(row)
            csv.writer(self._file).writerow(self.columns)
        if set(row) != set(self.columns):  # the order may differ
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


def _summary(table: _Table, folder: Path, names: list[str]) -> str:
    rows = [f'{table.rows} {"row" if table.rows == 1 else "rows"} in {table.path}'] if table.rows else []
    files = [str(folder / name) for name in names[:_LISTED]]
    if len(names) > _LISTED:
        files.append(f'and {len(names) - _LISTED} more files in {folder}')
    return ', '.join(rows + files) or 'nothing was predicted'
