"""Images with boxes as a source, and the checks of their annotations that all readers share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np

from canon import named
from canon.data.detection.file_trees import FileTree
from canon.data.images import image_files
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.errors import CanonError, UsageError
from canon.progress import show_progress

Invalid = Literal['error', 'drop', 'clip']
Empty = Literal['keep', 'drop', 'error']
Unreadable = Literal['refuse', 'skip']
Item = TypeVar('Item')

# What may be wrong in a data set, and how a user can fix it.
_FIXES = {
    'boxes without area': 'correct or remove them',
    'boxes that reach outside of the image': 'correct them',
    'boxes that lie outside of the image': 'correct or remove them',
    'boxes that are not four finite numbers': 'correct them',
    'objects of classes that are not listed': 'correct the names, or add the classes to class_names',
    'images that are listed and missing': 'restore them, or remove their annotations or their lines in the list',
    'images that cannot be read': 'restore them',
    'images listed twice': 'list each once',
    'images without annotations': 'annotate them, or remove them from the list',
    'annotations that cannot be read': 'correct them',
    'annotations of another size than their image': 'correct the size that they state',
    'masks that cannot be read': "correct them, or set target='detection'",
    'doubled ids': 'number each once',
    'annotations of images that are not listed': 'correct their image_id',
    'label maps that are missing': 'add one per image, of the same name',
    'images that are missing for a label map': 'add one per label map, of the same name',
    'label maps of another size than their image': 'make them equal',
    'label maps with values above the classes': 'list more classes in class_names, or list the values in void',
    'label maps that cannot be read': 'save them as PNG with one channel or a palette',
}
# The one kind that clipping can repair, and that of boxes of which it leaves nothing.
_CLIPPED, _OUTSIDE = 'boxes that reach outside of the image', 'boxes that lie outside of the image'


class Defect(NamedTuple):
    """Something wrong with an annotation: what, in which file, and the details."""

    kind: str
    file: str
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.file} ({self.detail})' if self.detail else self.file


class DefectLog:
    """Collects the defects of a data set, so that one line reports all of them before anything is trained."""

    def __init__(self, name: str, invalid: str):
        """
        Args:
          name: of the data set, for messages.
          invalid: 'error' makes `report` raise, 'drop' and 'clip' make it log.
        """
        if invalid not in get_args(Invalid):
            raise UsageError(f"invalid={invalid!r} must be 'error', 'drop' or 'clip'")
        self.name, self.invalid, self.defects = name, invalid, []

    def add(self, kind: str, file: str, detail: str = '') -> None:
        """Adds a defect of a kind that `_FIXES` lists."""
        self.defects.append(Defect(kind, file, detail))

    def report(self) -> tuple[Defect, ...]:
        """Returns the defects after logging them in one line per kind.

        Raises UsageError instead, with all kinds in one line, if `invalid` is 'error'.
        """
        lines = self._count()
        if lines and self.invalid == 'error':
            other = "invalid='clip' or 'drop'" if _CLIPPED in lines else "invalid='drop'"
            raise UsageError(f'{self.name}: {self.explain()}; or set {other}')
        for kind, line in lines.items():
            done = 'clipped' if kind == _CLIPPED and self.invalid == 'clip' else 'dropped'
            logging.getLogger('canon').warning('%s: %s; %s', self.name, line, done)
        return tuple(self.defects)

    def explain(self) -> str:
        """Returns the number, the first file and the fix of each kind of defect; '' if there is none."""
        return '; '.join(f'{line}; {_FIXES[kind]}' for kind, line in self._count().items())

    def _count(self) -> dict[str, str]:
        kinds: dict[str, list[Defect]] = {}
        for defect in self.defects:
            kinds.setdefault(defect.kind, []).append(defect)
        return {kind: f'{kind}: {len(those)}, the first in {those[0]}' for kind, those in kinds.items()}


class ImageRecord(NamedTuple):
    """The annotations of one image, as its file states them.

    Attributes:
      image: the name of its file.
      source: where it is stated, for messages.
      boxes: [K, 4] of [x0, y0, x1, y1] in pixels at pixel edges.
      classes: K names.
      difficult: K flags; none is if None.
      crowd: K flags; none is if None.
      size: (height, width) that the annotation is made for; that of the file if None.
      id: of the image; its number in the source if None.
      areas: K areas in pixels^2 by which COCO sorts objects into small, medium and large.
      masks: K encoded masks, in the form that the reader decodes.
    """

    image: str
    source: str
    boxes: Sequence[Sequence[float]] | np.ndarray
    classes: Sequence[str]
    difficult: Sequence[bool] | None = None
    crowd: Sequence[bool] | None = None
    size: tuple[int, int] | None = None
    id: int | None = None
    areas: Sequence[float] | None = None
    masks: Sequence[bytes] | None = None

    def choose(self, objects: Sequence[int] | np.ndarray) -> ImageRecord:
        """Returns the record with only these objects, by their numbers."""
        fields = ('boxes', 'classes', 'difficult', 'crowd', 'areas', 'masks')
        chosen: dict[str, Any] = {}
        for field in fields:
            values = getattr(self, field)
            chosen[field] = None if values is None else [values[k] for k in objects]
        return self._replace(**chosen)


class AnnotatedImages:
    """A source of images with boxes, of any sizes.

    Its examples have `image` uint8 [H, W, 3] (or the bytes of the file), `boxes` float32 [K, 4] of [x0, y0, x1, y1] in
    pixels at pixel edges, `labels` int32 [K] without a background, `difficult` and `crowd` bool [K], `image_id` int64
    and `original_size` int32 [2], (height, width); where the annotations state areas, also `area` float32 [K].

    Attributes:
      names: of the image files, by number.
      ids: int64 [n], of the images.
      defects: what was wrong and was dropped or clipped.
    """

    def __init__(
        self,
        files: FileTree,
        records: Sequence[ImageRecord],
        labels: Sequence[np.ndarray],
        info: Info,
        defects: Sequence[Defect] = (),
        decode: bool = True,
        max_pixels: int = image_files.MAX_PIXELS,
    ):
        """
        Args:
          files: the folder or tar that holds the images.
          records: checked, with a size each.
          labels: of each record, int [K].
          info: of the source.
          defects: what the check found.
          decode: if False, `image` holds the bytes of the file, for the transform `decode`.
          max_pixels: an image with more is not read.
        """
        # Flat arrays instead of a list of objects: a hundredth of the time to pickle for a worker.
        self.files, self.info, self.defects = files, info, tuple(defects)
        self.names = tuple(record.image for record in records)
        self._sources = tuple(record.source for record in records)
        self._sizes = np.array([record.size for record in records], np.int32).reshape(-1, 2)
        # The objects of image i are the rows starts[i] to starts[i + 1] of the arrays below.
        self._starts = np.cumsum([0, *map(len, labels)])
        self.ids = np.array([i if record.id is None else record.id for i, record in enumerate(records)], np.int64)
        self._boxes = _join([np.asarray(r.boxes, np.float32).reshape(-1, 4) for r in records], (0, 4), np.float32)
        self._labels = _join(labels, (0,), np.int32)
        self._difficult, self._crowd = (
            _join([expand_flags(getattr(record, field), len(record.classes)) for record in records], (0,), bool)
            for field in ('difficult', 'crowd')
        )
        # All or none: every row of a batch has the same fields. Without them metrics take the areas of the boxes.
        areas = [record.areas for record in records if record.areas is not None]
        self._areas = _join(areas, (0,), np.float32) if len(areas) == len(records) else None
        self._decode, self._max_pixels = decode, max_pixels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError, which names the file, for an image that is broken or not of the annotated size."""
        objects = self.slice_objects(index)
        area = {} if self._areas is None else {'area': self._areas[objects].copy()}
        return {
            # Copies, since slices are views: what writes into an example would change the data set.
            'image': self._read_image(index),
            'boxes': self._boxes[objects].copy(),
            'labels': self._labels[objects].copy(),
            'difficult': self._difficult[objects].copy(),
            'crowd': self._crowd[objects].copy(),
            **area,
            'image_id': self.ids[index],
            'original_size': self._sizes[index].copy(),
        }

    def slice_objects(self, index: int) -> slice:
        """Returns which of all objects are those of an image."""
        return slice(self._starts[index], self._starts[index + 1])

    def image_sizes(self) -> np.ndarray:
        """Returns the sizes of all images, int32 [n, 2] of (height, width), without reading them."""
        return self._sizes

    def count_objects(self) -> np.ndarray:
        """Returns the number of objects of each class, int [C]."""
        return np.bincount(self._labels, minlength=self.info.num_classes or 0)

    def count_per_image(self) -> np.ndarray:
        """Returns the number of objects of each image, int [n]."""
        return np.diff(self._starts)

    def _read_image(self, index: int) -> np.ndarray | image_files.Encoded:
        encoded = self.files.read_encoded(self.names[index], self._max_pixels)
        expected = tuple(self._sizes[index].tolist())
        if not self._decode:
            head = image_files.read_head(encoded)
            # The size after the rotation of EXIF; annotations of another size are made for the stored pixels.
            return encoded if (head.height, head.width) == expected else image_files.drop_rotation(encoded)
        image = image_files.decode_image(encoded)
        if image.shape[:2] == expected:
            return image
        # Some tools annotate the pixels as they are stored, others after the rotation that EXIF asks for.
        stored = image_files.decode_image(image_files.drop_rotation(encoded))
        if stored.shape[:2] == expected:
            return stored
        shown = '{1}x{0}'.format(*image.shape[:2]), '{1}x{0}'.format(*expected)
        raise CanonError(
            f'{encoded.name} is {shown[0]} pixels, but {self._sources[index]} states {shown[1]}; correct the annotation'
        )

    def __repr__(self) -> str:
        return f'AnnotatedImages({self.info.name}, {self.info.split}, {len(self)} images)'


def check_records(
    files: FileTree,
    records: Iterable[ImageRecord],
    class_names: Sequence[str],
    log: DefectLog,
    empty: str = 'keep',
    normalised: bool = False,
) -> tuple[list[ImageRecord], list[np.ndarray]]:
    """Checks annotations, drops what is wrong, and reports it.

    Args:
      files: the folder or tar that holds the images.
      records: of all images.
      class_names: the classes, in the order of their labels.
      log: receives the defects; its `invalid` decides what happens to boxes outside of an image.
      empty: what happens to images without objects: 'keep', 'drop' or 'error'.
      normalised: whether boxes are in 0..1 of the image; they are then scaled to pixels.

    Returns:
      the records that are kept, with a size each; and the labels int [K] of each.

    Raises:
      UsageError: there is a defect and `log` raises, or nothing is left.
    """
    if empty not in get_args(Empty):
        raise UsageError(f"empty={empty!r} must be 'keep', 'drop' or 'error'")
    numbers = {name: label for label, name in enumerate(class_names)}
    if len(numbers) != len(class_names):
        raise UsageError(f'{log.name}: class_names={tuple(class_names)} names a class twice')
    kept, labels, without = [], [], []
    for record in show_progress(records, 'checking annotations', 'image'):
        checked, defects = _find_size(files, record, log), len(log.defects)
        if checked is None:
            continue
        checked, own_labels = check_objects(checked, numbers, log, normalised)
        # An annotation of another size explains its boxes; images are not opened without need.
        outside = any(defect.kind in (_CLIPPED, _OUTSIDE) for defect in log.defects[defects:])
        if outside and record.size is not None and (other := _find_other_size(files, record)):
            del log.defects[defects:]
            log.add('annotations of another size than their image', record.source, other)
            continue
        # They stay by default: COCO has such images, and what is detected in them counts as false.
        if not len(own_labels):
            without.append(record.source)
            if empty != 'keep':
                continue
        kept.append(checked)
        labels.append(own_labels)
    if without and empty == 'error':
        raise UsageError(
            f'{log.name}: images without objects: {len(without)}, the first in {without[0]}; annotate or remove them, '
            "or set empty='keep' or 'drop'"
        )
    log.report()
    if without:
        done = "kept as background; empty='drop' leaves them out" if empty == 'keep' else 'left out'
        text = '%s: images without objects: %d, the first in %s; %s'
        logging.getLogger('canon').info(text, log.name, len(without), without[0], done)
    if not kept:
        why = log.explain() or ('the split has no images' if not without else 'none has an object; annotate them')
        raise UsageError(f'{log.name}: no images are left: {why}')
    return kept, labels


def leave_out_unreadable(
    files: FileTree, records: list[ImageRecord], unreadable: str, max_pixels: int = image_files.MAX_PIXELS
) -> list[ImageRecord]:
    """Returns the records of the images that can be decoded, and of those that are missing.

    Args:
      files: the folder or tar that holds the images.
      records: before they are checked, which may read the heads of their images.
      unreadable: 'skip' decodes every image once now, and leaves out, with a warning, what cannot be read; 'refuse'
        returns all records.
      max_pixels: an image with more counts as unreadable.

    Raises:
      CanonError: no image can be read.
    """
    if unreadable not in get_args(Unreadable):
        raise UsageError(f"unreadable={unreadable!r} is neither 'refuse' nor 'skip'")
    if unreadable == 'refuse':
        return records

    def explain(record: ImageRecord) -> str:
        if not files.has_file(record.image):  # `check_records` reports it
            return ''
        read = functools.partial(files.read_encoded, record.image, max_pixels)
        return image_files.explain_failure(read, files.show(record.image))

    reasons = image_files.check_in_threads(explain, records, 'decoding images')
    by_file = {files.root / record.image: reason for record, reason in zip(records, reasons, strict=True)}
    image_files.report_unreadable(by_file, files.root, skip=True)
    return [record for record, reason in zip(records, reasons, strict=True) if not reason]


def check_classes(source: Any, where: str = 'data') -> None:
    """Warns of classes without any object in a training split; raises UsageError if it has no object at all."""
    if not hasattr(source, 'count_objects'):
        return
    counts, names = source.count_objects(), source.info.class_names
    if not counts.any():
        raise UsageError(
            f'{where}: {source!r} has no object of any class; compare class_names with the names in the annotations'
        )
    if missing := [name for name, count in zip(names, counts, strict=True) if not count]:
        shown = ', '.join(f'{name}: {count}' for name, count in zip(names[:20], counts[:20], strict=True))
        logging.getLogger('canon').warning(
            '%r has no object of %s; compare class_names with the names in the annotations (objects: %s%s)',
            *(source, ', '.join(map(repr, missing[:5])) + (', ...' if len(missing) > 5 else '')),
            *(shown, ', ...' if len(names) > 20 else ''),
        )


def check_most(source: Any, most: int, where: str = 'data.most') -> None:
    """Raises UsageError, naming `where` and the file, if an image of a source has more than `most` objects.

    Sources that do not know the number of objects of their images are checked by `pad_boxes` as they are read.
    """
    if not hasattr(source, 'count_per_image'):
        return
    counts = source.count_per_image()
    if counts.max(initial=0) > most:
        image = int(counts.argmax())
        raise UsageError(
            f'{where}={most}, but {source.names[image]} of {source!r} has {counts[image]} objects; increase it, or '
            'truncate'
        )


def select_split(split: str, list_items: Callable[[str], Sequence[Item]]) -> tuple[list[Item], int | None]:
    """Returns the items of a split, which may be sliced and summed, and how many the whole split has; None for a sum.

    Args:
      split: 'train', 'train[:90%]', 'train+val'.
      list_items: returns all items of the split of one name.
    """
    selected: list[Item] = []
    total = None
    for part in split.split('+'):
        base, first, last = splits.parse_split(part)
        items = list(list_items(base))
        # Not of a sum: bounds of slices, which are compared to find shared examples, refer to one split.
        total = len(items) if part == split else None
        selected += items[splits.to_slice(first, last, len(items))]
    return selected, total


def drop_repeated(names: Sequence[str], log: DefectLog, where: str) -> list[str]:
    """Returns the names without repetitions, each of which is a defect."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            log.add('images listed twice', where, name)
        seen.add(name)
    # Keeps the order of the first occurrences, on which slices of the split depend.
    return list(dict.fromkeys(names))


def _find_size(files: FileTree, record: ImageRecord, log: DefectLog) -> ImageRecord | None:
    """Returns the record with the size of its image, None if the image is missing or broken."""
    if not files.has_file(record.image):
        log.add('images that are listed and missing', files.show(record.image), f'listed by {record.source}')
        return None
    if record.size is not None:
        return record
    try:
        return record._replace(size=files.read_image_size(record.image).rotated)
    except CanonError as error:
        log.add('images that cannot be read', str(error))
        return None


def _find_other_size(files: FileTree, record: ImageRecord) -> str:
    """Returns how the size of an image differs from the one that its annotation states, or '' if it does not."""
    try:
        size = files.read_image_size(record.image)
    except CanonError:  # reported when it is read
        return ''
    # Some tools annotate the pixels as they are stored, others after the rotation that EXIF asks for.
    if record.size in (size.rotated, (size.height, size.width)):
        return ''
    assert record.size is not None
    return '{1}x{0} in it, {3}x{2} in the image'.format(*record.size, *size.rotated)


def check_objects(
    record: ImageRecord, numbers: Mapping[str, int], log: DefectLog, normalised: bool = False
) -> tuple[ImageRecord, np.ndarray]:
    """Checks the objects of one image and drops those that are wrong.

    Args:
      record: with a size.
      numbers: {class name: label}.
      log: receives the defects; its `invalid` decides what happens to boxes outside of the image.
      normalised: whether the boxes are in 0..1.

    Returns:
      the record of the objects that are kept, with boxes in pixels within the image; and their labels, int32 [K].
    """
    assert record.size is not None
    height, width = record.size
    try:
        boxes = np.asarray(record.boxes, np.float64).reshape(len(record.classes), 4)
    except (ValueError, TypeError) as error:
        log.add('boxes that are not four finite numbers', record.source, str(error))
        return record.choose([]), np.zeros(0, np.int32)
    boxes = boxes * (width, height, width, height) if normalised else boxes

    # Comparisons, not products: an area would be positive if both sides were negative, and NaN compares false.
    def has_area(corners):
        return (corners[..., 2:] > corners[..., :2]).all(-1)

    # Boxes in float32, and those that were divided by the size of their image, are rounded.
    slack = 1e-4 * max(height, width)
    clipped = np.clip(boxes, 0, (width, height, width, height))
    labels = np.array([numbers.get(name, -1) for name in record.classes], np.int32)
    finite = np.isfinite(boxes).all(1)
    inside = np.abs(boxes - clipped).max(1, initial=0) <= slack
    # The order decides which defect is reported of an object that has several.
    wrong: dict[str, Any] = {
        'objects of classes that are not listed': labels < 0,
        'boxes that are not four finite numbers': ~finite,
        'boxes without area': finite & ~(has_area(boxes) & (has_area(clipped) | ~inside)),
        _OUTSIDE: finite & ~inside & ~has_area(clipped),
        _CLIPPED: finite & ~inside,
    }
    suspects = np.flatnonzero(np.any(list(wrong.values()), 0))
    record = record._replace(boxes=clipped)
    if not len(suspects):  # as nearly always, in sets of a million objects
        return record, labels
    keep = np.ones(len(labels), bool)
    for k in suspects:
        kind = next(kind for kind, objects in wrong.items() if objects[k])
        shown = f'object {k + 1}: [{", ".join(f"{x:g}" for x in boxes[k])}] in {width}x{height}'
        log.add(kind, record.source, _describe_class(k, record.classes[k], numbers) if labels[k] < 0 else shown)
        keep[k] = kind == _CLIPPED and log.invalid == 'clip'
    return record.choose(np.flatnonzero(keep)), labels[keep]


def _describe_class(k: int, name: str, numbers: Mapping[str, int]) -> str:
    """Describes an object of a class that is not listed, with the class that its name may be a misspelling of."""
    # Another case is the commonest mistake, and not near by the number of equal letters.
    same = next((other for other in numbers if other.casefold() == name.casefold()), None)
    near = named.suggest(name, numbers) if same is None else f'; did you mean {same!r}?'
    return f'object {k + 1}: {name!r}{near if "did you mean" in near else ""}'


def _join(arrays: Sequence, empty: tuple[int, ...], dtype) -> np.ndarray:
    return np.concatenate([np.zeros(empty, dtype), *(np.asarray(array, dtype) for array in arrays)])


def expand_flags(flags: Sequence[bool] | None, count: int) -> np.ndarray:
    """Returns flags as bool [count], all false if None."""
    return np.zeros(count, bool) if flags is None else np.asarray(flags, bool)
