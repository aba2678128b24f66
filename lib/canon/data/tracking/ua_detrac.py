"""UA-DETRAC: vehicles of traffic cameras; truth in XML, detections and results in text files.

Pixels are counted from 1 at their centres, as in Matlab: the left edge of the image is 0.5 and its right edge 960.5,
which its ignored regions show. So x0 = left - 0.5 at pixel edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from canon.data.text import text_files
from canon.data.tracking import track_files
from canon.data.tracking.tables import IgnoredRegions, SequenceInfo, TrackSequence, TrackTable
from canon.data.tracking.track_sequences import TrackSequences, list_sequences
from canon.errors import UsageError

DETRAC_CLASSES = ('car', 'bus', 'van', 'others')
_EDGE = 0.5  # of the first pixel
DETRAC_SIZE = 540, 960  # height and width of all frames
_PARTS = ('LX', 'LY', 'W', 'H')


def ua_detrac(
    path: str,
    split: str = 'train',
    detections: str | None = None,
    images: str | None = None,
) -> TrackSequences:
    """Reads the sequences of UA-DETRAC.

    Args:
      path: a folder of XML files, one per sequence, or the one above the folder `split`.
      split: may be sliced.
      detections: a folder of NAME_Det_DETECTOR.txt or NAME.txt.
      images: a folder with a folder of images per sequence.

    Raises:
      UsageError: a file is missing, or cannot be read.
    """
    if detections is not None and not text_files.expand_path(detections).is_dir():
        raise UsageError(f'ua_detrac: detections={detections!r} is not a folder; give that of NAME_Det_DETECTOR.txt')
    files = list_sequences(path, split, 'ua_detrac', 'files NAME.xml', lambda p: p.suffix.lower() == '.xml')
    return TrackSequences('ua_detrac', split, [lambda p=p: _read_sequence(p, detections, images) for p in files])


def read_detrac_truth(path: str | Path, length: int | None = None) -> TrackSequence:
    """Reads the XML file of a sequence: its truth and ignored regions.

    Frames without targets may be missing in the file, so that a sequence may be longer than its last frame.

    Args:
      path: of the file.
      length: number of frames; that of the last frame in the file if None.
    """
    text = track_files.read_text(path)
    try:
        root = ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        raise UsageError(
            f"{path} is not UA-DETRAC's XML ({error}); it looks like {track_files.describe_format(text)}"
        ) from error
    if root.tag != 'sequence':
        raise UsageError(f"{path} is not UA-DETRAC's XML: it begins with <{root.tag}> and not with <sequence>")
    frames, ids, boxes, labels = [], [], [], []
    numbers: list[int] = [0]
    for frame in root.iter('frame'):
        number = int(_read_value(path, frame, 'num'))
        numbers.append(number)
        for target in frame.iter('target'):
            frames.append(number)
            ids.append(int(_read_value(path, target, 'id')))
            boxes.append(_read_box(path, target.find('box'), f'target {ids[-1]} of frame {number}'))
            attribute = target.find('attribute')
            kind = (attribute.get('vehicle_type', 'others') if attribute is not None else 'others').lower()
            if kind not in DETRAC_CLASSES:
                raise UsageError(f'{path}: frame {number} has a vehicle_type {kind!r}; expected {DETRAC_CLASSES}')
            labels.append(DETRAC_CLASSES.index(kind))
    table = track_files.build_table(
        path,
        np.array(frames, np.int64),
        np.array(ids, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        labels=labels,
        length=length,
        name_row=lambda row: f'{path}: target {ids[row]} of frame {frames[row]}',
    )
    regions = [_read_box(path, box, 'ignored_region') for box in root.findall('ignored_region/box')]
    ignored = IgnoredRegions(np.full(len(regions), -1, np.int32), np.array(regions, np.float64).reshape(-1, 4))
    length = max(numbers) if length is None else length
    if not length:
        raise UsageError(f'{path} has no frames')
    info = SequenceInfo(root.get('name', Path(path).stem), length, 25.0, *DETRAC_SIZE, DETRAC_CLASSES)
    return TrackSequence(info, table, ignored_regions=ignored)


def read_detrac_detections(path: str | Path, length: int | None = None) -> TrackTable:
    """Reads the detections of a sequence: frame, number within the frame, left, top, width, height, score.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    rows = track_files.read_numbers(path, "UA-DETRAC's detections", (7, 7))
    frames = track_files.to_integers(path, 'frame', rows[:, 0])
    return track_files.build_table(path, frames, None, _to_corners(rows[:, 2:6]), rows[:, 6], length=length)


def read_detrac_results(stem: str | Path) -> TrackTable:
    """Reads STEM_LX.txt, STEM_LY.txt, STEM_W.txt and STEM_H.txt: a row per frame, a column per track, 0 if absent."""
    paths = [Path(f'{stem}_{part}.txt') for part in _PARTS]
    parts = [track_files.read_numbers(p, "UA-DETRAC's results", (1, 2**31)) for p in paths]
    if len({part.shape for part in parts}) > 1:
        shapes = ', '.join(f'{p.name} {part.shape}' for p, part in zip(paths, parts, strict=True))
        raise UsageError(f"UA-DETRAC's results have a row per frame and a column per track; got {shapes}")
    frames, tracks = np.nonzero(parts[2] > 0)
    boxes = _to_corners(np.stack([part[frames, tracks] for part in parts], 1))
    return track_files.build_table(
        paths[0], frames, tracks + 1, boxes, first_frame=0, name_row=lambda row: f'{stem} line {frames[row] + 1}'
    )


def write_detrac_results(stem: str | Path, table: TrackTable, length: int, decimals: int = 2) -> list[Path]:
    """Writes the files that `read_detrac_results` reads, as the toolkit of UA-DETRAC does; returns their paths.

    Args:
      stem: folder and name of the sequence, as 'results/0.3/MVI_39031'; folders above it are made.
      table: of one sequence; ids become columns in ascending order.
      length: number of frames, which is that of rows.
      decimals: of coordinates.
    """
    values, columns = np.unique(table.ids, return_inverse=True)
    paths = []
    for name, part in zip(_PARTS, to_detrac_boxes(table.boxes).T, strict=True):
        matrix = np.zeros((length, max(len(values), 1)))
        matrix[table.frames, columns.reshape(-1)] = part
        paths.append(Path(f'{stem}_{name}.txt'))
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(paths[-1], matrix, fmt=f'%.{decimals}f', delimiter=',')
    return paths


def to_detrac_boxes(boxes: np.ndarray) -> np.ndarray:
    """Returns boxes [N, 4] of corners at pixel edges as the [left, top, width, height] of UA-DETRAC's files."""
    return np.concatenate([boxes[:, :2] + _EDGE, boxes[:, 2:] - boxes[:, :2]], 1)


def _read_sequence(path: Path, detections: str | None, images: str | None) -> TrackSequence:
    frames = sorted((Path(images) / path.stem).glob('*.jpg')) if images else None
    if frames is not None and not frames:
        raise UsageError(f'ua_detrac: {images}/{path.stem} has no images')
    sequence = read_detrac_truth(path, len(frames) if frames else None)
    table = None
    if detections:
        files = [*sorted(Path(detections).glob(f'{path.stem}_Det_*.txt')), Path(detections) / f'{path.stem}.txt']
        table = read_detrac_detections(files[0])
        # The XML ends with the last frame that has targets; the detections of later ones belong to the sequence.
        length = max(sequence.info.length, int(table.frames.max(initial=-1)) + 1)
        sequence = sequence._replace(info=sequence.info._replace(length=length))
    return sequence._replace(frames=frames, detections=table)


def _read_value(path, element: ElementTree.Element, name: str) -> float:
    value = element.get(name)
    try:
        return float(value or '')
    except ValueError as error:
        raise UsageError(f'{path}: a <{element.tag}> has {name}={value!r}; expected a number') from error


def _read_box(path, box: ElementTree.Element | None, where: str) -> Sequence[float]:
    if box is None:
        raise UsageError(f'{path}: {where} has no <box>')
    left, top, width, height = (_read_value(path, box, name) for name in ('left', 'top', 'width', 'height'))
    return left - _EDGE, top - _EDGE, left - _EDGE + width, top - _EDGE + height


def _to_corners(boxes: np.ndarray) -> np.ndarray:
    low = boxes[:, :2] - _EDGE
    return np.concatenate([low, low + boxes[:, 2:]], 1)
