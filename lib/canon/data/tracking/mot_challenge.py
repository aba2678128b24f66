"""MOTChallenge: MOT15 (with TUD and PETS2009), MOT16, MOT17 and MOT20.

Files count frames, and the pixels of `left` and `top`, from 1: a box has x0 = left - 1 at pixel edges.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from canon.data.detection.file_trees import FileTree
from canon.data.text import text_files
from canon.data.tracking import track_files
from canon.data.tracking.tables import SequenceInfo, TrackSequence, TrackTable
from canon.data.tracking.track_sequences import TrackSequences, enter_split, select_sequences
from canon.errors import UsageError

MOT_CLASSES = (
    'pedestrian', 'person_on_vehicle', 'car', 'bicycle', 'motorbike', 'non_mot_vehicle', 'static_person', 'distractor',
    'occluder', 'occluder_on_ground', 'occluder_full', 'reflection', 'crowd',
)  # fmt: skip
_PARTS = ('gt', 'det')
_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')


def mot_challenge(
    path: str,
    split: str = 'train',
    detector: str | None = None,
    check_images: bool = True,
) -> TrackSequences:
    """Reads the sequences of a folder of MOTChallenge: NAME/{seqinfo.ini, gt/gt.txt, det/det.txt, img1/}.

    Flat files are read, too: NAME/{gt.txt, det.txt}, or files by kind, gt/NAME.txt and det/NAME.txt.

    Args:
      path: the folder of the benchmark, which holds `split`, or a folder of sequences, or that of one sequence.
      split: the folder within `path`, 'train' or 'test'; may be sliced, 'train[:4]'. A folder that holds sequences
        itself is all of its split.
      detector: only sequences whose names end so: 'FRCNN' of MOT17, which has each sequence three times.
      check_images: compare the number and the size of the images with seqinfo.ini.

    Raises:
      UsageError: there are no sequences, or a file contradicts another.
    """
    root = enter_split(path, split, 'mot_challenge')
    if is_mot_sequence(root):
        sequences = [_locate_files(root)]
    else:
        sequences = _list_flat_files(root) or [_locate_files(p) for p in sorted(root.iterdir()) if _is_listed(p)]
    kind = 'folders NAME with gt/gt.txt or det/det.txt, or files gt/NAME.txt and det/NAME.txt'
    chosen = select_sequences(sequences, split, 'mot_challenge', kind, root)
    chosen = [files for files in chosen if detector is None or files.folder.name.endswith(detector)]
    if not chosen:
        raise UsageError(f'mot_challenge: no sequence of {path} ends with detector={detector!r}')
    return TrackSequences('mot_challenge', split, [lambda f=f: _read_files(f, check_images) for f in chosen])


class _SequenceFiles(NamedTuple):
    """Paths of the files of a sequence.

    Attributes:
      folder: which names the sequence, and may hold seqinfo.ini and img1/. Flat files have none of this name.
      truth: None if there is no such file.
      detections: None if there is no such file.
    """

    folder: Path
    truth: Path | None
    detections: Path | None


def read_mot_sequence(folder: str | Path, check_images: bool = True) -> TrackSequence:
    """Reads the folder of a sequence; its parts may be missing, but for the truth or the detections.

    These are gt/gt.txt and det/det.txt, or gt.txt and det.txt. Without seqinfo.ini the sequence is as long as its
    files.
    """
    return _read_files(_locate_files(text_files.expand_path(folder)), check_images)


def is_mot_sequence(folder: Path) -> bool:
    """Returns whether `read_mot_sequence` finds truth or detections in a folder."""
    files = _locate_files(folder)
    return bool(files.truth or files.detections)


def _is_listed(path: Path) -> bool:
    """Returns whether a folder is meant as a sequence: one whose gt/ or det/ is empty is refused when it is read."""
    return any((path / part).is_dir() for part in _PARTS) or is_mot_sequence(path)


def _locate_files(folder: Path) -> _SequenceFiles:
    """Finds gt/gt.txt and det/det.txt, or else gt.txt and det.txt, in the folder of a sequence."""
    candidates = {part: (folder / part / f'{part}.txt', folder / f'{part}.txt') for part in _PARTS}
    return _SequenceFiles(folder, *(next((p for p in candidates[part] if p.is_file()), None) for part in _PARTS))


def _list_flat_files(root: Path) -> list[_SequenceFiles]:
    """Lists the sequences of files gt/NAME.txt and det/NAME.txt, sorted by name."""
    files = {part: {p.stem: p for p in (root / part).glob('*.txt') if p.stem != part} for part in _PARTS}
    names = sorted({name for part in _PARTS for name in files[part]})
    return [_SequenceFiles(root / name, *(files[part].get(name) for part in _PARTS)) for name in names]


def _read_files(files: _SequenceFiles, check_images: bool) -> TrackSequence:
    folder = files.folder
    info = read_seqinfo(folder / 'seqinfo.ini') if (folder / 'seqinfo.ini').is_file() else None
    length = info.length if info else None
    truth = detections = None
    class_names: tuple[str, ...] = MOT_CLASSES
    if files.truth is not None:
        truth, class_names = read_mot_truth(files.truth, length)
    if files.detections is not None:
        detections = read_mot_detections(files.detections, length)
    if truth is None and detections is None:
        raise UsageError(
            f'{folder} has neither gt/gt.txt nor det/det.txt (nor gt.txt, det.txt); give the folder of a sequence'
        )
    if info is None:
        lengths = [int(table.frames[-1]) + 1 for table in (truth, detections) if table and len(table.frames)]
        if not lengths:
            raise UsageError(f'{folder}: its files are empty, so that seqinfo.ini must state seqLength')
        info = SequenceInfo(folder.name, max(lengths))
    # The folder names the file of results; seqinfo.ini keeps its name when a folder is copied under another.
    info = info._replace(name=folder.name, class_names=class_names)
    frames = sorted(p for p in (folder / 'img1').glob('*') if p.suffix.lower() in _SUFFIXES) or None
    if frames and check_images:
        _check_images(folder, info, frames)
    return TrackSequence(info, truth, detections, frames)


def read_seqinfo(path: str | Path) -> SequenceInfo:
    """Reads seqinfo.ini. Raises UsageError if it has no [Sequence] with seqLength, or a value is not a number."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(track_files.read_text(path))
        section = parser['Sequence']
        length = int(section['seqLength'])
        rate, height, width = (section.get(key) for key in ('frameRate', 'imHeight', 'imWidth'))
        info = SequenceInfo(
            section.get('name', Path(path).parent.name),
            length,
            float(rate) if rate else None,
            int(height) if height else None,
            int(width) if width else None,
        )
    except (configparser.Error, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f'{path}: expected [Sequence] with seqLength and numbers ({reason})') from error
    named = {'seqLength': length, 'frameRate': info.frame_rate, 'imHeight': info.height, 'imWidth': info.width}
    for key, value in named.items():
        if value is not None and not value > 0:
            raise UsageError(f'{path}: {key}={value:g} must be above 0')
    return info


def read_mot_truth(path: str | Path, length: int | None = None) -> tuple[TrackTable, tuple[str, ...]]:
    """Reads gt.txt; returns the table and the names of its classes.

    Nine columns are those of MOT16, MOT17 and MOT20, with a class; ten are those of MOT15, which ends with coordinates
    in the world and has pedestrians only. Boxes of flag 0 are `ignored`.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    rows = track_files.read_numbers(path, "MOTChallenge's truth", (9, 10))
    has_classes = rows.shape[1] == 9
    labels = None
    if has_classes:
        classes = track_files.to_integers(path, 'class', rows[:, 7])
        unknown = (classes < 1) | (classes > len(MOT_CLASSES))
        if unknown.any():
            row = int(unknown.argmax())
            raise UsageError(f'{track_files.find_line(path, row)}: the class {classes[row]} is not 1 to 13')
        labels = classes - 1
    table = _to_table(path, rows, length, labels=labels, ignored=rows[:, 6] == 0)
    return table, MOT_CLASSES if has_classes else MOT_CLASSES[:1]


def read_mot_results(path: str | Path, length: int | None = None) -> TrackTable:
    """Reads the file of a tracker's results: frame, id, left, top, width, height, score and up to three more columns.

    The score may be missing. An empty file is a result without boxes.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    rows = track_files.read_numbers(path, "MOTChallenge's result", (6, 10))
    return _to_table(path, rows, length, scores=rows[:, 6] if rows.shape[1] > 6 else None)


def read_mot_detections(path: str | Path, length: int | None = None) -> TrackTable:
    """Reads det.txt: frame, -1, left, top, width, height, score and up to three more columns, in order of frames.

    Args:
      path: of the file.
      length: frames of the sequence; None does not check them.
    """
    rows = track_files.read_numbers(path, "MOTChallenge's detections", (7, 10))
    if len(rows) and (rows[:, 1] != -1).all():
        raise UsageError(f'{path} has the id {rows[0, 1]:g} where detections have -1: it looks like truth or results')
    return _to_table(path, rows, length, scores=rows[:, 6], has_ids=False)


def read_mot_folder_of_results(path: str | Path, sequences: Iterable[TrackSequence]) -> dict[str, TrackTable]:
    """Reads NAME.txt of each sequence from a folder of results.

    Raises:
      UsageError: a file is missing, a file belongs to none of the sequences, or its frames are not those of its
        sequence.
    """
    folder = text_files.expand_path(path)
    infos = {sequence.info.name: sequence.info for sequence in sequences}
    files = {p.stem: p for p in sorted(folder.glob('*.txt'))}
    if missing := [name for name in infos if name not in files]:
        near = f'; it has {", ".join(sorted(files)[:5])}' if files else '; it has no .txt files'
        raise UsageError(f'{folder} has no results of {len(missing)} sequences, first {missing[0]}.txt{near}')
    if unknown := [name for name in files if name not in infos]:
        raise UsageError(
            f'{folder}/{unknown[0]}.txt is of none of the sequences {", ".join(list(infos)[:5])}; remove it, or give '
            'the folder of its benchmark'
        )
    return {name: read_mot_results(files[name], info.length) for name, info in infos.items()}


def write_mot_results(
    path: str | Path, table: TrackTable, kind: Literal['results', 'detections'] = 'results', decimals: int = 2
) -> None:
    """Writes NAME.txt as MOTChallenge's server reads it: frame, id, left, top, width, height, score, -1, -1, -1.

    Args:
      path: of the file; folders above it are made.
      table: of one sequence.
      kind: 'detections' writes the id -1, as det.txt has it.
      decimals: of coordinates, in pixels; scores have four more.
    """
    ids = table.ids if kind == 'results' else np.full(len(table.ids), -1)
    corners = np.concatenate([table.boxes[:, :2] + 1, table.boxes[:, 2:] - table.boxes[:, :2]], 1)
    box = ','.join([f'{{:.{decimals}f}}'] * 4)
    line = f'{{}},{{}},{box},{{:.{decimals + 4}g}},-1,-1,-1\n'
    columns = (table.frames + 1, ids, *corners.T, table.scores)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(map(line.format, *(column.tolist() for column in columns))), encoding='ascii')


def write_mot_folder_of_results(results: Mapping[str, TrackTable], folder: str | Path) -> list[Path]:
    """Writes NAME.txt of each sequence into a folder by `write_mot_results`; returns the paths."""
    paths = [Path(folder) / f'{name}.txt' for name in results]
    for path, table in zip(paths, results.values(), strict=True):
        write_mot_results(path, table)
    return paths


def _to_table(path, rows, length, scores=None, labels=None, ignored=None, has_ids=True) -> TrackTable:
    frames = track_files.to_integers(path, 'frame', rows[:, 0])
    ids = track_files.to_integers(path, 'id', rows[:, 1]) if has_ids else None
    low = rows[:, 2:4] - 1
    boxes = np.concatenate([low, low + rows[:, 4:6]], 1)
    return track_files.build_table(path, frames, ids, boxes, scores, labels, ignored, length=length)


def _check_images(folder: Path, info: SequenceInfo, frames: list[Path]) -> None:
    """Raises UsageError if seqinfo.ini contradicts the images."""
    if len(frames) != info.length:
        raise UsageError(
            f'{folder}/img1 has {len(frames)} images, and the sequence has {info.length} frames by '
            f'{"seqinfo.ini" if (folder / "seqinfo.ini").is_file() else "its boxes"}'
        )
    size = FileTree(folder / 'img1').read_image_size(frames[0].name)
    if info.height is not None and info.width is not None and size[:2] != (info.height, info.width):
        raise UsageError(
            f'{frames[0]} is {size.width}x{size.height}, and seqinfo.ini says imWidth={info.width}, '
            f'imHeight={info.height}'
        )
