"""KITTI tracking: label_02/0000.txt per sequence, boxes with zero-based frames and pixels.

Columns: frame, id, type, truncation, occlusion, alpha, x0, y0, x1, y1, three of size, three of place, rotation, and in
results a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from canon.data.pipeline import splits
from canon.data.text import text_files
from canon.data.tracking import track_files
from canon.data.tracking.tables import IgnoredRegions, SequenceInfo, TrackSequence, TrackTable
from canon.data.tracking.track_sequences import TrackSequences
from canon.errors import UsageError

KITTI_CLASSES = ('car', 'van', 'truck', 'pedestrian', 'person', 'cyclist', 'tram', 'misc')
_TYPES = {'car': 'Car', 'van': 'Van', 'truck': 'Truck', 'pedestrian': 'Pedestrian', 'person': 'Person',
          'cyclist': 'Cyclist', 'tram': 'Tram', 'misc': 'Misc'}  # fmt: skip
_LABELS = {name: i for i, name in enumerate(KITTI_CLASSES)} | {'person_sitting': 4}
_MAX_OCCLUSION, _MAX_TRUNCATION = 2, 0  # of objects that are scored
_REGION = 'dontcare'


def kitti_tracking(path: str, split: str = 'training', detections: str | None = None) -> TrackSequences:
    """Reads the sequences of KITTI tracking.

    Args:
      path: the folder with label_02/ and evaluate_tracking.seqmap.SPLIT, or the one above the folder `split`. Images
        are those of image_02/SEQUENCE, if it exists.
      split: 'training', or another that has a seqmap; may be sliced. Without a seqmap, all files are read, and a
        sequence is as long as its images, or else as its labels.
      detections: the folder of files NAME.txt of a detector, such as those that KITTI publishes (det_02 of L-SVM, or of
        regionlets). With them, a split may have no labels, as 'testing'.

    Raises:
      UsageError: a file is missing, or a line cannot be read.
    """
    base, first, last = splits.parse_split(split)
    root = text_files.expand_path(path)
    root = root / base if (root / base).is_dir() else root
    found = text_files.expand_path(detections) if detections else None
    if found is not None and not found.is_dir():
        raise UsageError(f'kitti_tracking: detections={detections!r} is not a folder; give that of files NAME.txt')
    labels = root / 'label_02'
    if not labels.is_dir() and found is None:
        raise UsageError(f'kitti_tracking: there is no folder {labels}')
    seqmap = next((p / f'evaluate_tracking.seqmap.{base}' for p in (root, root.parent)
                   if (p / f'evaluate_tracking.seqmap.{base}').is_file()), None)  # fmt: skip
    lengths: Mapping[str, int | None]
    lengths = (
        read_kitti_seqmap(seqmap)
        if seqmap
        else {p.stem: None for p in sorted((labels if found is None or labels.is_dir() else found).glob('*.txt'))}
    )
    chosen = list(lengths)[splits.to_slice(first, last, len(lengths))]
    if not chosen:
        raise UsageError(f'kitti_tracking: split={split!r} selects none of the {len(lengths)} sequences of {labels}')
    makers = [lambda name=name: _read_sequence(root, name, lengths[name], found) for name in chosen]
    return TrackSequences('kitti_tracking', split, makers)


def read_kitti_seqmap(path: str | Path) -> dict[str, int]:
    """Reads a seqmap, '0000 empty 000000 000154' per line: the number of frames by sequence."""
    lengths = {}
    for number, line in enumerate(track_files.read_text(path).splitlines(), 1):
        fields = line.split()
        if fields and (len(fields) < 4 or not fields[3].isdigit() or not int(fields[3])):
            raise UsageError(
                f'{path} line {number}: expected a name, a word, 000000 and the number of frames, got {line!r}'
            )
        if fields:
            lengths[fields[0]] = int(fields[3])
    return lengths


def read_kitti_labels(path: str | Path, length: int | None = None) -> tuple[TrackTable, IgnoredRegions]:
    """Reads the labels of a sequence; returns the truth and the DontCare regions.

    Boxes of occlusion above 2 or truncation above 0 are `ignored`, which KITTI does not score.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    numbers, types, lines = _read_rows(path, scored=False)
    region = types == -1
    frames = track_files.to_integers(path, 'frame', numbers[:, 0])
    # TrackEval and the development kit read both as integers.
    truncation, occlusion = np.trunc(numbers[:, 2]), np.trunc(numbers[:, 3])
    kept = ~region
    table = track_files.build_table(
        path,
        frames[kept],
        track_files.to_integers(path, 'id', numbers[:, 1])[kept],
        numbers[kept, 5:9],
        labels=types[kept],
        ignored=((occlusion > _MAX_OCCLUSION) | (truncation > _MAX_TRUNCATION))[kept],
        first_frame=0,
        length=length,
        name_row=lambda row: f'{path} line {lines[kept][row]}',
    )
    order = np.flatnonzero(region)[np.argsort(frames[region], kind='stable')]
    return table, IgnoredRegions(frames[order].astype(np.int32), numbers[order, 5:9])


def read_kitti_results(path: str | Path, length: int | None = None) -> TrackTable:
    """Reads the results of a tracker, with or without a score in the last column.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    numbers, types, lines = _read_rows(path, scored=True)
    if (types == -1).any():
        raise UsageError(f'{path} line {lines[(types == -1).argmax()]}: DontCare is no result; are these labels?')
    frames, ids = (track_files.to_integers(path, name, numbers[:, i]) for i, name in enumerate(('frame', 'id')))
    scores = numbers[:, 16] if numbers.shape[1] > 16 else None
    return track_files.build_table(
        path,
        frames,
        ids,
        numbers[:, 5:9],
        scores,
        types,
        first_frame=0,
        length=length,
        name_row=lambda row: f'{path} line {lines[row]}',
    )


def read_kitti_detections(path: str | Path, length: int | None = None) -> TrackTable:
    """Reads the detections of a sequence: rows as of results, of any id, with the score in the last column.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    numbers, types, lines = _read_rows(path, scored=True)
    if len(numbers) and numbers.shape[1] < 17:
        raise UsageError(f'{path} has 17 columns, as labels have; detections have a score in column 18')
    kept = types != -1
    return track_files.build_table(
        path,
        track_files.to_integers(path, 'frame', numbers[:, 0])[kept],
        None,
        numbers[kept, 5:9],
        numbers[kept, -1],
        types[kept],
        first_frame=0,
        length=length,
        name_row=lambda row: f'{path} line {lines[kept][row]}',
    )


def write_kitti_results(
    path: str | Path,
    table: TrackTable,
    class_names: tuple[str, ...] = KITTI_CLASSES,
    kind: Literal['results', 'detections'] = 'results',
) -> None:
    """Writes the results of a sequence as KITTI's server reads them; what a 2-D tracker does not know is -1, or -10.

    Args:
      path: of the file; folders above it are made.
      table: of one sequence.
      class_names: of its labels; each must be one of `KITTI_CLASSES`.
      kind: 'detections' writes the id -1.
    """
    if unknown := [name for name in class_names if name.lower() not in _LABELS]:
        raise UsageError(f'write_kitti_results: KITTI has no class {unknown[0]!r}; it has {", ".join(KITTI_CLASSES)}')
    lines = [
        f'{format_kitti_row(frame, number if kind == "results" else -1, class_names[label], box)} {score:.6g}\n'
        for frame, number, box, score, label, _ in zip(*(c.tolist() for c in table), strict=True)
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(lines), encoding='ascii')


def format_kitti_row(
    frame: int, number: int, name: str, box: Sequence[float], truncation: int = -1, occlusion: int = -1
) -> str:
    """Returns a row of labels without a score: the box in the picture, and placeholders for angles, sizes and places.

    Args:
      frame: counted from 0.
      number: the id.
      name: of the class, in `KITTI_CLASSES`, or 'DontCare'.
      box: [x0, y0, x1, y1] in pixels, rounded to 0.01.
      truncation: 0 or 1; -1 if it is not known.
      occlusion: 0 to 3; -1 if it is not known.
    """
    kind = name if name.lower() == _REGION else _TYPES[KITTI_CLASSES[_LABELS[name.lower()]]]
    sides = ' '.join(f'{side:.2f}' for side in box)
    return f'{frame} {number} {kind} {truncation} {occlusion} -10 {sides} -1 -1 -1 -1000 -1000 -1000 -10'


def _read_sequence(root: Path, name: str, length: int | None, detections: Path | None) -> TrackSequence:
    images = sorted((root / 'image_02' / name).glob('*.png')) or None
    if images and length is not None and len(images) != length:
        raise UsageError(f'{root}/image_02/{name} has {len(images)} images, and the seqmap says {length} frames')
    length = len(images) if images and length is None else length
    truth = regions = table = None
    if (root / 'label_02').is_dir():
        truth, regions = read_kitti_labels(root / 'label_02' / f'{name}.txt', length)
    if detections is not None:
        table = read_kitti_detections(detections / f'{name}.txt', length)
    if length is None:
        length = 1 + max(int(part.frames.max(initial=-1)) for part in (truth, regions, table) if part is not None)
    info = SequenceInfo(name, length, 10.0, class_names=KITTI_CLASSES)
    return TrackSequence(info, truth, table, images, regions)


def _read_rows(path: str | Path, scored: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the numbers but the type [N, 16 or 17], the labels [N] (-1: DontCare) and the lines [N]."""
    text = track_files.read_text(path)
    rows = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    widths = (17, 18) if scored else (17,)
    numbers, types = [], []
    for i, fields in rows:
        label = (
            _LABELS.get(fields[2].lower(), -1 if fields[2].lower() == _REGION else None) if len(fields) > 2 else None
        )
        if not numbers and (len(fields) not in (17, 18) or label is None):
            raise UsageError(
                f"{path} is not KITTI's tracking labels: it looks like {track_files.describe_format(text)}"
            )
        if len(fields) not in widths or (numbers and len(fields) != len(numbers[0]) + 1):
            expected = 'with 17 columns, as labels have' if not scored else f'like those before, {len(numbers[0]) + 1}'
            raise UsageError(f'{path} line {i} has {len(fields)} columns; expected rows {expected}')
        if label is None:
            raise UsageError(f'{path} line {i}: KITTI has no type {fields[2]!r}; it has {", ".join(_TYPES.values())}')
        try:
            numbers.append([float(x) for x in fields[:2] + fields[3:]])
        except ValueError as error:
            raise UsageError(f'{path} line {i}: {error}') from error
        types.append(label)
    values = np.array(numbers, np.float64).reshape(-1, len(numbers[0]) if numbers else 16)
    return values, np.array(types, np.int64), np.array([i for i, _ in rows], np.int64)
