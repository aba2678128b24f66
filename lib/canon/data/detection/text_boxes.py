"""Reads boxes from text files: YOLO's layout, a text file per image; and one CSV per split."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import yaml

from canon import named
from canon.data.detection.annotations import (
    AnnotatedImages,
    DefectLog,
    Empty,
    ImageRecord,
    Invalid,
    Unreadable,
    check_records,
    leave_out_unreadable,
    select_split,
)
from canon.data.detection.file_trees import FileTree
from canon.data.images import image_files
from canon.data.pipeline.source import Info
from canon.errors import CanonError, UsageError, first_line

# Where pairs of folders are looked for: (images, texts). The last has both in one folder, as darknet has them.
_LAYOUTS = (
    ('images/{split}', 'labels/{split}'),
    ('{split}/images', '{split}/labels'),
    ('{split}', '{split}'),
)
# Class names: Ultralytics and Roboflow write YAML, darknet and annotation tools plain lists.
_YAML = ('data.yaml', 'dataset.yaml', 'data.yml')
_NAME_LISTS = ('classes.txt', 'obj.names', 'classes.names')
_CSV_HEADER = ['file', 'x0', 'y0', 'x1', 'y1', 'class']


def yolo_boxes(
    path: str,
    split: str = 'train',
    class_names: Sequence[str] = (),
    images: str | None = None,
    labels: str | None = None,
    invalid: Invalid = 'error',
    empty: Empty = 'keep',
    decode: bool = True,
    max_pixels: named.Count = image_files.MAX_PIXELS,
    unreadable: Unreadable = 'refuse',
) -> AnnotatedImages:
    """Reads YOLO's text layout: for each image a .txt of the same name with a line `class x y width height` per object.

    The class is a number from 0; x and y are the centre of the box, and all four are shares of the image's size. An
    image without such a file has no objects.

    Args:
      path: the folder, or an uncompressed tar of it.
      split: put for '{split}' in `images` and `labels`; may be sliced and summed, in the order of the file names.
      class_names: in the order of their numbers; those of 'data.yaml' or 'classes.txt' below `path` if empty.
      images: the folder of images below `path`; if None, 'images/{split}', '{split}/images' and '{split}' are tried.
      labels: the folder of texts below `path`.
      invalid: 'error' refuses a set with boxes that have no area or reach outside of their image, classes without a
        name and texts that are malformed. 'drop' leaves these out, and 'clip' as well, except that it clips boxes.
      empty: 'keep' keeps images without objects, 'drop' leaves them out, 'error' refuses them.
      decode: if False, the field 'image' holds the bytes of the file, for the transform `decode`.
      max_pixels: an image with more is not read.
      unreadable: 'skip' decodes every image once now, and leaves out, with a warning, what cannot be read; 'refuse'
        raises CanonError, which names the file, for such an image when it is read.

    Raises:
      UsageError: the folders or the class names are missing, or the annotations are refused.
    """
    files = FileTree(path)
    log = DefectLog(str(files.root), invalid)
    names = tuple(class_names) or _read_class_names(files)
    if not names:
        raise UsageError(f'{files.root} has neither data.yaml nor classes.txt; give class_names')
    pairs, total = select_split(split, lambda base: _list_pairs(files, base, images, labels))
    records = []
    for image, text in pairs:
        try:
            records.append(_parse_text(files, image, text, names))
        except CanonError as error:
            log.add('annotations that cannot be read', str(error))
    records = leave_out_unreadable(files, records, unreadable, max_pixels)
    kept, own = check_records(files, records, names, log, empty, normalised=True)
    info = Info(str(files.root), split, len(names), names, total)
    return AnnotatedImages(files, kept, own, info, log.defects, decode, max_pixels)


def csv_boxes(
    path: str,
    split: str = 'train',
    class_names: Sequence[str] = (),
    invalid: Invalid = 'error',
    empty: Empty = 'keep',
    decode: bool = True,
    max_pixels: named.Count = image_files.MAX_PIXELS,
    unreadable: Unreadable = 'refuse',
) -> AnnotatedImages:
    """Reads the boxes of `path/<split>.csv`: rows `file,x0,y0,x1,y1,class`, perhaps after a header of these names.

    The file of an image is relative to `path`. Coordinates are pixels at pixel edges: the box of a whole image is
    [0, 0, width, height]. A row `file,,,,,` states an image without objects.

    Args:
      path: the folder, or an uncompressed tar of it.
      split: may be sliced and summed, in the order in which files first occur.
      class_names: in the order of their labels. If empty, the sorted classes of all .csv files of the folder, so that
        a class which a split lacks does not shift the labels.
      invalid: as of `yolo_boxes`.
      empty: as of `yolo_boxes`.
      decode: as of `yolo_boxes`.
      max_pixels: as of `yolo_boxes`.
      unreadable: as of `yolo_boxes`.

    Raises:
      UsageError: the file is missing, or the annotations are refused.
    """
    files = FileTree(path)
    log = DefectLog(str(files.root), invalid)
    records, total = select_split(split, lambda base: _read_csv(files, f'{base}.csv', log))
    names = tuple(class_names)
    if not names:
        listings = [name for name in files.list_names() if name.endswith('.csv')]
        # Without a log, since the rows of the split itself would be reported twice.
        records_of_all = (record for listing in listings for record in _read_csv(files, listing, None))
        names = tuple(sorted({name for record in records_of_all for name in record.classes}))
    records = leave_out_unreadable(files, records, unreadable, max_pixels)
    kept, own = check_records(files, records, names, log, empty)
    info = Info(str(files.root), split, len(names), names, total)
    return AnnotatedImages(files, kept, own, info, log.defects, decode, max_pixels)


def _read_class_names(files: FileTree) -> tuple[str, ...]:
    for name in _YAML:
        if files.has_file(name):
            try:
                names = (yaml.safe_load(files.read_bytes(name)) or {}).get('names')
            except (yaml.YAMLError, AttributeError, ValueError) as error:
                raise CanonError(f'{files.show(name)} is not YAML ({first_line(error)}); correct it') from error
            if isinstance(names, Mapping):  # {0: 'cat', 1: 'dog'}
                if sorted(names) != list(range(len(names))):
                    raise UsageError(f'{files.show(name)}: the numbers of names must be 0 to {len(names) - 1}')
                names = [names[number] for number in sorted(names)]
            return tuple(map(str, names or ()))
    for name in _NAME_LISTS:
        if files.has_file(name):
            return tuple(line.strip() for line in files.read_lines(name) if line.strip())
    return ()


def _list_pairs(files: FileTree, split: str, images: str | None, labels: str | None) -> list[tuple[str, str]]:
    """Returns the names of the images of a split and of their texts, which may be missing."""
    if (images is None) != (labels is None):
        raise UsageError(f'yolo_boxes: images={images!r} and labels={labels!r} are given both or not at all')
    layouts = _LAYOUTS if images is None or labels is None else ((images, labels),)
    folders = [tuple(folder.format(split=split) for folder in layout) for layout in layouts]
    for image_folder, text_folder in folders:
        if files.has_folder(image_folder) and files.has_folder(text_folder):
            names = [name for name in files.list_names(image_folder) if image_files.is_image_name(name)]
            stems = [PurePosixPath(name).stem for name in names]
            # A text may be missing: darknet and its successors write none for an image without objects.
            return [(f'{image_folder}/{n}', f'{text_folder}/{s}.txt') for n, s in zip(names, stems, strict=True)]
    tried = ' or '.join(f'{image} and {text}' for image, text in folders)
    raise UsageError(f'{files.root} has no folders {tried}; name them by images= and labels=')


def _parse_text(files: FileTree, image: str, text: str, names: Sequence[str]) -> ImageRecord:
    """Parses the text of an image; boxes are in 0..1. Raises CanonError, which names file and line."""
    boxes, classes = [], []
    for number, line in enumerate(files.read_lines(text) if files.has_file(text) else (), 1):
        columns = line.split()
        if not columns:
            continue
        where = f'{files.show(text)}, line {number}'
        try:
            label, (x, y, width, height) = int(columns[0]), map(float, columns[1:])
        except ValueError:
            raise CanonError(f'{where} is {line!r}, not a class and four numbers x, y, width, height') from None
        # Still in 0..1: the size of the image is not in the text; `check_records` reads it and scales.
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        # A number without a name becomes a class that is not listed, which `check_records` reports.
        classes.append(names[label] if 0 <= label < len(names) else f'number {label}')
    return ImageRecord(image, files.show(text), boxes, classes)


def _read_csv(files: FileTree, name: str, log: DefectLog | None) -> list[ImageRecord]:
    """Returns the records of a CSV by image; rows that are malformed are defects."""
    if not files.has_file(name):
        known = [other.removesuffix('.csv') for other in files.list_names() if other.endswith('.csv')]
        near = named.suggest(name.removesuffix('.csv'), known)
        advice = '; or write it: a row file,x0,y0,x1,y1,class per object, in pixels, the files relative to its folder'
        raise UsageError(f'there is no file {files.show(name)}{near}{advice}')
    of_file: dict[str, tuple[int, list, list]] = {}
    rows = csv.reader(files.read_lines(name))
    for row in rows:
        columns = [column.strip() for column in row]
        if not any(columns) or (rows.line_num == 1 and [c.lower() for c in columns] == _CSV_HEADER):
            continue
        # A row of another length has no file, which the check below refuses.
        file, *corners, label = columns if len(columns) == len(_CSV_HEADER) else ['', '']
        try:
            box = tuple(map(float, corners)) if any(corners) else None
            if not file or (box is None and label) or (box is not None and (len(box) != 4 or not label)):
                raise ValueError
        except ValueError:
            if log is not None:
                where = f'{files.show(name)}, line {rows.line_num}'
                log.add('annotations that cannot be read', where, f'{",".join(row)!r} is not file,x0,y0,x1,y1,class')
            continue
        # Rows of one image need not follow each other; the first one gives its place in the order.
        _, boxes, classes = of_file.setdefault(file, (rows.line_num, [], []))
        if box is not None:
            boxes.append(box)
            classes.append(label)
    return [
        ImageRecord(file, f'{files.show(name)}, line {line} ({file})', boxes, classes)
        for file, (line, boxes, classes) in of_file.items()
    ]
