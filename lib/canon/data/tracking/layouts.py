"""Writes whole sequences in the layouts of benchmarks: their truth, detections and pictures, as the readers read them.

arguments = write_sequences('mine', 'mot_challenge', sequences)
again = load_sequences('mot_challenge', 'train', **arguments)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import cv2
import numpy as np

from canon.data.tracking.kitti_tracking import KITTI_CLASSES, format_kitti_row, write_kitti_results
from canon.data.tracking.mot_challenge import MOT_CLASSES, write_mot_results
from canon.data.tracking.tables import TrackSequence, TrackTable
from canon.data.tracking.ua_detrac import DETRAC_CLASSES, DETRAC_SIZE, to_detrac_boxes
from canon.errors import UsageError

Layout = Literal['mot_challenge', 'kitti_tracking', 'ua_detrac']
_QUALITY = 92  # of JPEG
_EVERY_FRAME = -1  # of an ignored region
_DETECTOR = 'own'  # in the names of UA-DETRAC's files of detections


def write_sequences(
    folder: str | Path,
    layout: Layout,
    sequences: Iterable[TrackSequence],
    split: str = 'train',
    pictures: bool = True,
) -> dict[str, str]:
    """Writes sequences as a benchmark lays them out.

    Args:
      folder: of the benchmark; it is made if it is missing, and files of the same names are replaced.
      layout: the name of the reader: 'mot_challenge', 'kitti_tracking' or 'ua_detrac'. What each has is said by
        `write_mot_sequence`, `write_kitti_sequence` and `write_detrac_sequence`.
      sequences: with classes of the benchmark's names; each is written as it is read.
      split: the folder of the split.
      pictures: whether the frames are written, too; a sequence without pictures has none in either case.

    Returns:
      the arguments with which `load_sequences(layout, split, **arguments)` reads them.

    Raises:
      UsageError: there is no such layout, no sequence, or a sequence has what its benchmark cannot state.
    """
    root, names, parts = Path(folder), [], set()
    if layout not in _WRITERS:
        raise UsageError(f'write_sequences: there is no layout {layout!r}; there are {", ".join(_WRITERS)}')
    for sequence in sequences:
        _WRITERS[layout](root, sequence, split, pictures)
        names.append((sequence.info.name, sequence.info.length))
        parts |= {'detections'} if sequence.detections is not None else set()
        parts |= {'images'} if pictures and sequence.frames is not None else set()
    if not names:
        raise UsageError('write_sequences: there are no sequences to write')
    if layout == 'kitti_tracking':
        lines = [f'{name} empty 000000 {length:06d}\n' for name, length in sorted(names)]
        (root / f'evaluate_tracking.seqmap.{split}').write_text(''.join(lines), encoding='utf-8')
    # Detections, and UA-DETRAC's pictures, are downloads of their own, whose folders the readers are given.
    apart = {'kitti_tracking': ('detections',), 'ua_detrac': ('detections', 'images')}.get(layout, ())
    return {'path': str(root), **{part: str(root / part) for part in apart if part in parts}}


def write_mot_sequence(root: Path, sequence: TrackSequence, split: str = 'train', pictures: bool = True) -> None:
    """Writes SPLIT/NAME/{seqinfo.ini, gt/gt.txt, det/det.txt, img1/000001.jpg} as MOT16, MOT17 and MOT20 have them.

    A row of gt.txt is frame, id, left, top, width, height, flag, class and visibility. The flag of ignored truth is 0;
    the visibility, which a table does not have, is 1. Detections have no classes. Coordinates are rounded to 0.01
    pixels.

    Args:
      root: folder of the benchmark.
      sequence: of classes of `MOT_CLASSES`, and without ignored regions, which the benchmark does not have.
      split: the folder of the split.
      pictures: whether frames are written.
    """
    info, folder = sequence.info, root / split / sequence.info.name
    labels = _index_classes(sequence, MOT_CLASSES, 'MOTChallenge')
    if sequence.ignored_regions is not None and len(sequence.ignored_regions.frames):
        raise UsageError(f'{info.name}: MOTChallenge has no ignored regions; mark the truth within them as ignored')
    folder.mkdir(parents=True, exist_ok=True)
    fields = {'name': info.name, 'imDir': 'img1', 'frameRate': info.frame_rate, 'seqLength': info.length}
    fields |= {'imWidth': info.width, 'imHeight': info.height, 'imExt': '.jpg'}
    lines = [f'{key}={value:g}' if key == 'frameRate' else f'{key}={value}' for key, value in fields.items()
             if value is not None]  # fmt: skip
    (folder / 'seqinfo.ini').write_text('\n'.join(['[Sequence]', *lines, '']), encoding='utf-8')
    if sequence.truth is not None:
        (folder / 'gt').mkdir(exist_ok=True)
        rows = [
            f'{frame + 1},{number},{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{int(not ignored)},'
            f'{labels[label] + 1},1\n'
            for frame, number, (x0, y0, x1, y1), _, label, ignored in _iterate_rows(sequence.truth)
        ]
        (folder / 'gt' / 'gt.txt').write_text(''.join(rows), encoding='ascii')
    if sequence.detections is not None:
        write_mot_results(folder / 'det' / 'det.txt', sequence.detections, 'detections')
    if pictures:
        _write_pictures(folder / 'img1', sequence, '{:06d}.jpg', first=1)


def write_kitti_sequence(root: Path, sequence: TrackSequence, split: str = 'train', pictures: bool = True) -> None:
    """Writes SPLIT/label_02/NAME.txt, SPLIT/image_02/NAME/000000.png and detections/NAME.txt as KITTI has them.

    Ignored regions are rows of type DontCare. Ignored truth is truncated (1) where its box ends at an edge of the
    picture and of unknown occlusion (3) elsewhere, neither of which KITTI scores. What a box in the picture does not
    have (sizes in metres, places, angles) is -1, -1000 and -10. Coordinates are rounded to 0.01 pixels.

    Args:
      root: folder of the benchmark.
      sequence: of classes of `KITTI_CLASSES`, at 10 frames per second.
      split: the folder of the split.
      pictures: whether frames are written.
    """
    labels = _index_classes(sequence, KITTI_CLASSES, 'KITTI')
    names = tuple(KITTI_CLASSES[label] for label in labels)
    info, folder, rows = sequence.info, root / split, []
    for frame, box in _list_regions(sequence):
        rows.append((frame, format_kitti_row(frame, -1, 'DontCare', box, -1, -1)))
    for frame, number, box, _, label, ignored in _iterate_rows(sequence.truth):
        truncation, occlusion = (0, 0) if not ignored else (1, 0) if _ends_at_edge(box, info) else (0, 3)
        rows.append((frame, format_kitti_row(frame, number, names[label], box, truncation, occlusion)))
    if sequence.truth is not None:
        (folder / 'label_02').mkdir(parents=True, exist_ok=True)
        text = ''.join(f'{row}\n' for _, row in sorted(rows, key=lambda row: row[0]))  # stable: DontCare is first
        (folder / 'label_02' / f'{info.name}.txt').write_text(text, encoding='ascii')
    if sequence.detections is not None:
        write_kitti_results(root / 'detections' / f'{info.name}.txt', sequence.detections, names, 'detections')
    if pictures:
        _write_pictures(folder / 'image_02' / info.name, sequence, '{:06d}.png', first=0)


def write_detrac_sequence(root: Path, sequence: TrackSequence, split: str = 'train', pictures: bool = True) -> None:
    """Writes SPLIT/NAME.xml, detections/NAME_Det_own.txt and images/NAME/img00001.jpg as UA-DETRAC has them.

    Frames without targets are left out. Detections have no classes. Coordinates are rounded to 0.01 pixels.

    Args:
      root: folder of the benchmark.
      sequence: of classes of `DETRAC_CLASSES` and frames of 540x960 pixels, whose regions hold for all frames; there
        is no flag for ignored truth.
      split: the folder of the split.
      pictures: whether frames are written.
    """
    info, truth, regions = sequence.info, sequence.truth, sequence.ignored_regions
    labels = _index_classes(sequence, DETRAC_CLASSES, 'UA-DETRAC')
    if (info.height, info.width) not in (DETRAC_SIZE, (None, None)):
        raise UsageError(f'{info.name} has frames of {info.height}x{info.width}; those of UA-DETRAC are 540x960')
    if regions is not None and (regions.frames != _EVERY_FRAME).any():
        raise UsageError(f'{info.name}: regions of UA-DETRAC hold for all frames (-1), and one is of a single frame')
    if truth is not None and truth.ignored.any():
        raise UsageError(f'{info.name}: UA-DETRAC has no flag for ignored truth; remove it, or give ignored_regions')
    if truth is not None:
        (root / split).mkdir(parents=True, exist_ok=True)
        tree = ElementTree.Element('sequence', name=info.name)
        region_element = ElementTree.SubElement(tree, 'ignored_region')
        for box in to_detrac_boxes(regions.boxes) if regions is not None else ():
            ElementTree.SubElement(region_element, 'box', _name_sides(box))
        _add_targets(tree, truth, labels)
        ElementTree.indent(tree)
        ElementTree.ElementTree(tree).write(root / split / f'{info.name}.xml', encoding='utf-8', xml_declaration=True)
    if sequence.detections is not None:
        path = root / 'detections' / f'{info.name}_Det_{_DETECTOR}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(_format_detrac_detections(sequence.detections)), encoding='ascii')
    if pictures:
        _write_pictures(root / 'images' / info.name, sequence, 'img{:05d}.jpg', first=1)


_WRITERS: dict[str, Callable[[Path, TrackSequence, str, bool], None]] = {
    'mot_challenge': write_mot_sequence,
    'kitti_tracking': write_kitti_sequence,
    'ua_detrac': write_detrac_sequence,
}


def _index_classes(sequence: TrackSequence, known: Sequence[str], benchmark: str) -> list[int]:
    """Returns the number in `known` of each class of the sequence."""
    names = [name.lower() for name in sequence.info.class_names]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f'{sequence.info.name}: {benchmark} has no class {unknown[0]!r}; give info.class_names of its classes: '
            f'{", ".join(known)}'
        )
    return [known.index(name) for name in names]


def _iterate_rows(table: TrackTable | None) -> Iterable:
    return () if table is None else zip(*(column.tolist() for column in table), strict=True)


def _list_regions(sequence: TrackSequence) -> Iterable[tuple[int, list[float]]]:
    """Yields the frame and the box of each ignored region, one for each frame if it holds for all."""
    if sequence.ignored_regions is None:
        return
    for frame, box in zip(*(column.tolist() for column in sequence.ignored_regions), strict=True):
        frames = range(sequence.info.length) if frame == _EVERY_FRAME else (frame,)
        yield from ((frame, box) for frame in frames)


def _ends_at_edge(box: Sequence[float], info) -> bool:
    x0, y0, x1, y1 = box
    return x0 <= 0 or y0 <= 0 or (info.width is not None and (x1 >= info.width or y1 >= info.height))


def _name_sides(box: Sequence[float]) -> dict[str, str]:
    return {name: f'{side:.2f}' for name, side in zip(('left', 'top', 'width', 'height'), box, strict=True)}


def _add_targets(tree: ElementTree.Element, truth: TrackTable, labels: Sequence[int]) -> None:
    boxes = to_detrac_boxes(truth.boxes)
    for frame in np.unique(truth.frames).tolist():
        rows = range(*np.searchsorted(truth.frames, (frame, frame + 1)).tolist())
        element = ElementTree.SubElement(tree, 'frame', density=str(len(rows)), num=str(frame + 1))
        targets = ElementTree.SubElement(element, 'target_list')
        for row in rows:
            target = ElementTree.SubElement(targets, 'target', id=str(truth.ids[row]))
            ElementTree.SubElement(target, 'box', _name_sides(boxes[row]))
            ElementTree.SubElement(target, 'attribute', vehicle_type=DETRAC_CLASSES[labels[truth.labels[row]]])


def _format_detrac_detections(table: TrackTable) -> Iterable[str]:
    boxes = to_detrac_boxes(table.boxes)
    # Detections are numbered within their frame, from 1.
    numbers = np.arange(len(table.frames)) - np.searchsorted(table.frames, table.frames) + 1
    for frame, number, box, score in zip(table.frames, numbers, boxes, table.scores, strict=True):
        sides = ','.join(f'{side:.2f}' for side in box)
        yield f'{frame + 1},{number},{sides},{score:.6g}\n'


def _write_pictures(folder: Path, sequence: TrackSequence, name: str, first: int) -> None:
    if sequence.frames is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(sequence.info.length):
        path = os.fspath(folder / name.format(frame + first))
        options = (cv2.IMWRITE_JPEG_QUALITY, _QUALITY) if path.endswith('.jpg') else ()
        if not cv2.imwrite(path, sequence.read_frame(frame)[..., ::-1], options):
            raise UsageError(f'the picture {path} cannot be written; give another folder')
