"""Reads files of boxes with identities, and checks what all formats share."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from canon.data.text import text_files
from canon.data.tracking.tables import DETECTION, TrackTable, make_table
from canon.errors import UsageError

_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf(inity)?)', re.IGNORECASE)
_MOST_FRAMES = 10_000_000  # four days at 30 per second: a larger number is another column


def read_text(path: str | Path) -> str:
    """Returns the text of a file without a byte order mark. Raises UsageError if it is missing or not UTF-8."""
    path = text_files.expand_path(path)
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    try:
        return path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UsageError(f'{path} is not text ({error.reason} at byte {error.start}); give a text file') from error


def read_numbers(path: str | Path, form: str, columns: tuple[int, int]) -> np.ndarray:
    """Reads the rows of a file of numbers between commas, float64 [N, C]; [0, C] of an empty one.

    Spaces around numbers, empty lines and commas at the ends of lines are skipped.

    Args:
      path: of the file.
      form: of the format, for messages.
      columns: the least and the largest number of columns.

    Raises:
      UsageError: a line has something else; the message says which format the file looks like.
    """
    text = read_text(path)
    try:
        # Rows of numbers are read at once, in C. Whatever fails there is read again line by line, to name the line.
        with io.StringIO(text) as lines:
            rows = (
                np.loadtxt(lines, delimiter=',', ndmin=2, comments=None) if text.strip() else np.zeros((0, columns[1]))
            )
    except ValueError:
        rows = _read_lines(path, text, form)
    if len(rows) and not columns[0] <= rows.shape[1] <= columns[1]:
        expected = f'{columns[0]} to {columns[1]}' if columns[0] < columns[1] else columns[0]
        raise UsageError(
            f'{path} has {rows.shape[1]} columns, and {form} has {expected}; it looks like {describe_format(text)}'
        )
    return rows


def find_line(path: str | Path, row: int) -> str:
    """Returns 'FILE line 7' for a row of the file, for messages."""
    lines = [i for i, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    return f'{path} line {lines[row] if row < len(lines) else row + 1}'


def describe_format(text: str) -> str:
    """Returns the format that the text of a file looks like."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), '')
    words, fields = first.split(), [field.strip() for field in first.rstrip(',').split(',')]
    if first.startswith('<'):
        return "UA-DETRAC's XML" if '<sequence' in text[:2000] else 'XML or HTML'
    if first[:1] in ('{', '['):
        return 'seqinfo.ini' if re.match(r'\[\w+\]$', first) else 'JSON'
    if len(words) in (17, 18) and not _NUMBER.fullmatch(words[2]):
        return "KITTI's tracking labels"
    if len(words) in (15, 16) and not _NUMBER.fullmatch(words[0]):
        return "KITTI's object labels, which have no frames and ids"
    if len(words) == 5 and all(_NUMBER.fullmatch(word) for word in words):
        return "YOLO's labels, which have no frames and ids"
    if len(words) > 5 and all(_NUMBER.fullmatch(word) for word in words):
        return 'numbers between spaces, and commas are expected'
    if len(fields) > 1 and all(_NUMBER.fullmatch(field) for field in fields):
        kind = {6: "UA-DETRAC's detections, or MOTChallenge's without scores", 7: "UA-DETRAC's detections"}
        kind[10] = 'detections of MOTChallenge' if fields[1] == '-1' else 'truth of MOT15 or results of MOTChallenge'
        kind[9] = 'truth of MOT16, MOT17 or MOT20'
        return kind.get(len(fields), f'{len(fields)} numbers between commas')
    if len(fields) > 3 and not any(_NUMBER.fullmatch(field) for field in fields):
        return 'a CSV with a line of names'
    return f'text that begins with {first[:40]!r}'


def to_integers(path: str | Path, name: str, values: np.ndarray) -> np.ndarray:
    """Returns a column as int64. Raises UsageError, which names the line, if a value is not an integer."""
    wrong = ~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**31))
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(f'{find_line(path, row)}: the {name} {values[row]:g} is not an integer')
    return values.astype(np.int64)


def build_table(
    path: str | Path,
    frames: np.ndarray,
    ids: np.ndarray | None,
    boxes: np.ndarray,
    scores: np.ndarray | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    first_frame: int = 1,
    length: int | None = None,
    name_row: Callable[[int], str] | None = None,
) -> TrackTable:
    """Makes the table of a file's rows after checking them.

    Args:
      path: of the file, for messages.
      frames: [N], as the file counts them.
      ids: [N]; None for detections.
      boxes: [N, 4] of [x0, y0, x1, y1] in pixels at pixel edges.
      scores: [N].
      labels: [N].
      ignored: [N].
      first_frame: the number of the first frame in the file.
      length: of the sequence, in frames; None if it is not known.
      name_row: names the place of a row for messages; 'FILE line 7' if None, where each row is one line.

    Raises:
      UsageError: a row is before the first frame or after the last, frames go backwards, an id is doubled or negative,
        or a box is not finite or has a negative size. The message names the line and the fix.
    """

    name_line = name_row or (lambda row: find_line(path, row))
    finite = np.isfinite(boxes).all(1) & (np.isfinite(scores) if scores is not None else True)
    if not finite.all():
        raise UsageError(f'{name_line(int((~finite).argmax()))}: a value is not a finite number; correct or remove it')
    sizes = boxes[:, 2:] - boxes[:, :2]
    if (sizes < 0).any():
        row = int((sizes < 0).any(1).argmax())
        raise UsageError(
            f'{name_line(row)}: the box has the size {sizes[row, 0]:g} x {sizes[row, 1]:g}; sizes must not be negative '
            '(are the last two numbers corners where a width and a height are expected, or the reverse?)'
        )
    last = first_frame + length - 1 if length is not None else None
    outside = (frames < first_frame) | (frames > (last if last is not None else _MOST_FRAMES))
    if outside.any():
        row = int(outside.argmax())
        if frames[row] < first_frame:
            raise UsageError(f'{name_line(row)}: frame {frames[row]}; the format counts frames from {first_frame}')
        if last is None:
            raise UsageError(f'{name_line(row)}: frame {frames[row]}; sequences have at most {_MOST_FRAMES} frames')
        raise UsageError(
            f'{name_line(row)}: frame {frames[row]}, and the sequence has frames {first_frame} to {last}; is the file '
            'of another sequence?'
        )
    if ids is None:
        _check_order(frames, name_line)
    else:
        _check_identities(frames, ids, name_line)
    return make_table(frames - first_frame, ids, boxes, scores, labels, ignored)


def _check_order(frames: np.ndarray, name_line: Callable[[int], str]) -> None:
    backwards = np.flatnonzero(np.diff(frames) < 0)
    if len(backwards):
        row = int(backwards[0])
        raise UsageError(
            f'{name_line(row + 1)}: frame {frames[row + 1]} follows frame {frames[row]}; detections are in order of '
            'frames: sort them, or split the file if it joins sequences'
        )


def _check_identities(frames: np.ndarray, ids: np.ndarray, name_line: Callable[[int], str]) -> None:
    if (ids < 0).any():
        row = int((ids < 0).argmax())
        if (ids == DETECTION).all():
            raise UsageError(f'{name_line(row)}: all ids are -1: these are detections, and identities are expected')
        raise UsageError(f'{name_line(row)}: the id {ids[row]} is negative')
    # Files are in order of frames, or of ids and then of frames: within an id, frames always ascend.
    order = np.argsort(ids, kind='stable')
    same, steps = np.diff(ids[order]) == 0, np.diff(frames[order])
    wrong = np.flatnonzero(same & (steps <= 0))
    if not len(wrong):
        return
    order_by_frame = np.lexsort((frames, ids))
    doubled = np.flatnonzero((np.diff(ids[order_by_frame]) == 0) & (np.diff(frames[order_by_frame]) == 0))
    if len(doubled):
        row = int(order_by_frame[doubled[0] + 1])
        raise UsageError(
            f'{name_line(row)}: id {ids[row]} is a second time in frame {frames[row]}; an id is one object of a frame'
        )
    row = int(order[wrong[0] + 1])
    raise UsageError(
        f'{name_line(row)}: id {ids[row]} goes back from frame {frames[order[wrong[0]]]} to frame {frames[row]}; sort '
        'the file by frame, or split it if it joins sequences'
    )


def _read_lines(path: str | Path, text: str, form: str) -> np.ndarray:
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.strip().rstrip(',').split(',')]
        if not all(_NUMBER.fullmatch(field) for field in fields):
            if not rows:
                raise UsageError(f'{path} is not {form}: it looks like {describe_format(text)}')
            wrong = next(field for field in fields if not _NUMBER.fullmatch(field))
            raise UsageError(f'{path} line {number}: {wrong!r} is not a number')
        if rows and len(fields) != len(rows[0]):
            raise UsageError(
                f'{path} line {number} has {len(fields)} columns, and the lines before have {len(rows[0])}'
            )
        rows.append([float(field) for field in fields])
    return np.array(rows)
