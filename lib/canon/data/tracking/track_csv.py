"""Boxes with identities in a CSV of one's own, with a line of names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from canon.data.tracking import track_files
from canon.data.tracking.tables import SequenceInfo, TrackSequence, TrackTable
from canon.data.tracking.track_sequences import TrackSequences, list_sequences
from canon.errors import UsageError
from canon.named import suggest

_CORNERS, _SIZES = ('x0', 'y0', 'x1', 'y1'), ('left', 'top', 'width', 'height')
_OPTIONAL = ('id', 'score', 'label', 'ignored')


def track_csv(
    path: str, split: str = 'train', class_names: tuple[str, ...] | None = None, first_frame: int = 0
) -> TrackSequences:
    """Reads a folder of CSV files, one per sequence; files without a column `id` are detections, others are truth.

    Args:
      path: the folder, or the one above the folder `split`.
      split: may be sliced.
      class_names: as of `read_track_csv`.
      first_frame: the number of the first frame in the files.
    """
    files = list_sequences(path, split, 'track_csv', 'files NAME.csv', lambda p: p.suffix.lower() == '.csv')

    def read(file: Path) -> TrackSequence:
        table, names = read_track_csv(file, class_names, first_frame)
        info = SequenceInfo(file.stem, int(table.frames.max(initial=0)) + 1, class_names=names)
        is_truth = len(table.ids) and table.ids[0] >= 0
        return TrackSequence(info, *((table, None) if is_truth else (None, table)))

    return TrackSequences('track_csv', split, [lambda p=p: read(p) for p in files])


def read_track_csv(
    path: str | Path,
    class_names: tuple[str, ...] | None = None,
    first_frame: int = 0,
    length: int | None = None,
) -> tuple[TrackTable, tuple[str, ...]]:
    """Reads a CSV whose first line names its columns; returns the table and the names of the classes.

    The columns are `frame`, either `x0,y0,x1,y1` or `left,top,width,height` in pixels at pixel edges, and optionally
    `id` (none in detections), `score`, `label` (a name) and `ignored` (0 or 1), in any order. Others are skipped.

    Args:
      path: of the file.
      class_names: the classes, in the order of `labels`; the sorted names of the file if None, or 'object'.
      first_frame: the number of the first frame in the file.
      length: frames of the sequence; None does not check them.

    Raises:
      UsageError: a column is missing, or a line cannot be read.
    """
    text = track_files.read_text(path)
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip().lower() for name in next(reader, [])]
    box = _CORNERS if set(_CORNERS) <= set(names) else _SIZES
    if missing := [name for name in ('frame', *box) if name not in names]:
        if not set(names) & {'frame', *_CORNERS, *_SIZES, *_OPTIONAL}:
            raise UsageError(
                f'{path} has no line of names such as frame,id,x0,y0,x1,y1; it looks like '
                f'{track_files.describe_format(text)}'
            )
        raise UsageError(f'{path} has no column {missing[0]!r}{suggest(missing[0], names)}')
    rows, lines = [], []
    for fields in reader:
        if not any(fields):
            continue
        if len(fields) != len(names):
            raise UsageError(f'{path} line {reader.line_num} has {len(fields)} columns, and the first has {len(names)}')
        rows.append(fields)
        lines.append(reader.line_num)
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}

    def to_numbers(name: str, default: float) -> np.ndarray:
        try:
            return np.array([float(x) for x in columns.get(name, [default] * len(rows))])
        except ValueError:
            pairs = zip(columns[name], lines, strict=True)
            return np.array([_to_float(x, f'{path} line {line}: {name}') for x, line in pairs])

    def to_integers(name: str) -> np.ndarray:
        values = to_numbers(name, 0)
        wrong = ~np.isfinite(values) | (values != np.round(values))
        if wrong.any():
            row = int(wrong.argmax())
            raise UsageError(f'{path} line {lines[row]}: the {name} {values[row]:g} is not an integer')
        return values.astype(np.int64)

    boxes = np.stack([to_numbers(name, 0) for name in box], 1).reshape(-1, 4)
    if box is _SIZES:
        boxes[:, 2:] += boxes[:, :2]
    found = columns.get('label', [])
    class_names = class_names or tuple(sorted(set(found))) or ('object',)
    if unknown := [row for row, name in enumerate(found) if name not in class_names]:
        name, line = found[unknown[0]], lines[unknown[0]]
        raise UsageError(f'{path} line {line}: the label {name!r} is not in class_names{suggest(name, class_names)}')
    table = track_files.build_table(
        path,
        to_integers('frame'),
        to_integers('id') if 'id' in columns else None,
        boxes,
        to_numbers('score', 1),
        [class_names.index(name) for name in found] or None,
        to_numbers('ignored', 0) != 0,
        first_frame,
        length,
        lambda row: f'{path} line {lines[row]}',
    )
    return table, class_names


def write_track_csv(
    path: str | Path, table: TrackTable, class_names: tuple[str, ...] = ('object',), first_frame: int = 0
) -> None:
    """Writes a CSV that `read_track_csv` reads, to the last bit.

    Args:
      path: of the file; folders above it are made.
      table: of one sequence; without the column `id` if it is of detections.
      class_names: of its labels.
      first_frame: the number of the first frame in the file.
    """
    has_ids = not len(table.ids) or bool((table.ids >= 0).all())
    names = ['frame', *(['id'] if has_ids else []), *_CORNERS, 'score', 'label', 'ignored']
    columns = [(table.frames + first_frame).tolist(), *([table.ids.tolist()] if has_ids else [])]
    columns += [*table.boxes.T.tolist(), table.scores.tolist(), [class_names[i] for i in table.labels.tolist()]]
    columns.append(table.ignored.astype(int).tolist())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', encoding='utf-8', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows([names, *zip(*columns, strict=True)])


def _to_float(value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f'{where} {value!r} is not a number') from error
