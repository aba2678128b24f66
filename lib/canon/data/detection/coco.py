"""Reads boxes and masks from annotation files in COCO's JSON format."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

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
from canon.data.detection.label_maps import VOID
from canon.data.images import image_files
from canon.data.pipeline.source import Example, Info
from canon.errors import CanonError, UsageError, first_line

# COCO itself has the first form, exports of annotation tools have the others.
_ANNOTATIONS = (
    'annotations/instances_{split}.json',
    'annotations/{split}.json',
    '{split}/_annotations.coco.json',
    '{split}.json',
)
_IMAGES = ('{split}', 'images/{split}', 'images')


def coco_detection(
    path: str,
    split: str = 'train2017',
    target: Literal['detection', 'segmentation', 'instances'] = 'detection',
    annotations: str | None = None,
    images: str | None = None,
    class_names: Sequence[str] = (),
    invalid: Invalid = 'error',
    empty: Empty = 'keep',
    decode: bool = True,
    max_pixels: named.Count = image_files.MAX_PIXELS,
    unreadable: Unreadable = 'refuse',
) -> CocoImages:
    """Reads a data set in COCO's format (Lin et al. 2014): boxes, crowds, and masks as polygons or run lengths.

    COCO's box [x, y, width, height] becomes [x, y, x + width, y + height]; its category ids, which have gaps, become
    labels 0, 1, ... in the order of the ids. The field `area` has COCO's areas, by which its metrics sort objects.

    Args:
      path: the folder, or an uncompressed tar of it.
      split: put for '{split}' in `annotations` and `images`; may be sliced, 'val2017[:1000]', in the order of the file.
      target: 'detection' gives boxes. 'instances' gives `masks` bool [K, H, W] as well. 'segmentation' gives instead a
        label map: 0 for the background, label + 1 for an object, 255 where objects overlap and for crowds, as
        torchvision's models that are trained on COCO with the classes of VOC.
      annotations: the JSON file below `path`; if None, 'annotations/instances_{split}.json' and similar are tried.
      images: the folder of images below `path`; if None, '{split}', 'images/{split}' and 'images'.
      class_names: the categories to read, in the order of their labels; objects of other categories of the file are
        left out. All if empty.
      invalid: 'error' refuses a set with boxes that have no area or reach outside of their image, doubled ids,
        annotations of unknown images or categories, and missing images; all are counted and the first is named. 'drop'
        leaves them out; 'clip' as well, except that it clips boxes which reach outside.
      empty: 'keep' keeps images without objects, 'drop' leaves them out, 'error' refuses them.
      decode: if False, the field 'image' holds the bytes of the file, for the transform `decode`.
      max_pixels: an image with more is not read.
      unreadable: 'skip' decodes every image once now, and leaves out, with a warning, what cannot be read; 'refuse'
        raises CanonError, which names the file, for such an image when it is read.

    Raises:
      UsageError: a file or a class is missing, or the annotations are refused.
      CanonError: the file is not in COCO's format.
    """
    files = FileTree(path)
    contents: list[tuple[dict, str]] = []
    log = DefectLog(str(files.root), invalid)

    def list_records(base: str) -> list[ImageRecord]:
        file = _find_file(files, _ANNOTATIONS if annotations is None else (annotations,), base)
        folder = _find_folder(files, _IMAGES if images is None else (images,), base)
        content = _read_json(files, file)
        # The categories are merged only when all parts of a sum are read: they may be numbered differently.
        contents.append((content, files.show(file)))
        return _make_records(content, files.show(file), folder, target != 'detection', log, max_pixels)

    records, total = select_split(split, list_records)
    names = _choose_classes(contents, class_names)
    chosen = leave_out_unreadable(files, _leave_out(records, contents, names), unreadable, max_pixels)
    kept, labels = check_records(files, chosen, names, log, empty)
    # Label maps need a class for the ground; boxes do not, and a detector such as SSD adds its own.
    shown = ('background', *names) if target == 'segmentation' else names
    info = Info(str(files.root), split, len(shown), shown, total)
    source = CocoImages(files, kept, labels, info, log.defects, decode, max_pixels)
    source.target = target
    ids = {c['name']: c['id'] for content, _ in contents for c in content['categories']}
    source.category_ids = tuple(ids[name] for name in names)
    return source


class CocoImages(AnnotatedImages):
    """The source of `coco_detection`: `AnnotatedImages`, with masks or label maps according to its `target`."""

    target = 'detection'
    category_ids: tuple[int, ...] = ()  # of the classes, as results in COCO's format state them

    def __init__(self, files: FileTree, records: Sequence[ImageRecord], *args, **kwargs):
        """Arguments as of `AnnotatedImages`; the masks of the records are compressed run lengths of COCO."""
        super().__init__(files, records, *args, **kwargs)
        self._masks = tuple(mask for record in records for mask in record.masks or ())

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        if self.target == 'detection':
            return example
        counts = self._masks[self.slice_objects(index)]
        masks = decode_masks(counts, tuple(self._sizes[index].tolist()))
        if self.target == 'instances':
            return {**example, 'masks': masks}
        # Class 0 is the background, hence + 1.
        label_map = paint_label_map(masks, example['labels'] + 1, example['crowd'])
        kept = {field: example[field] for field in ('image', 'image_id', 'original_size')}
        return {**kept, 'segmentation': label_map}


def encode_mask(segmentation: Any, size: tuple[int, int]) -> bytes:
    """Encodes a mask as compressed run lengths.

    Args:
      segmentation: in one of COCO's forms: polygons [[x0, y0, x1, y1, ...], ...], or {'size', 'counts'} with run
        lengths as a list or compressed.
      size: (height, width) of the image.

    Raises:
      ValueError: it has none of these forms, or another size.
    """
    codec = _import_codec()

    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError('a polygon needs three points at least')
        points = np.concatenate([np.asarray(polygon, np.float64) for polygon in segmentation])
        if not (np.abs(points) <= 2 * max(size)).all():  # all of it would be rasterised; also refuses NaN
            raise ValueError('a polygon leads far out of the image')
        # An object that is partly hidden has several polygons.
        return codec.merge(codec.frPyObjects(segmentation, *size))['counts']
    counts = segmentation['counts']
    if tuple(segmentation['size']) != size:
        raise ValueError(f'it is for {list(segmentation["size"])}, the image has {list(size)}')
    if isinstance(counts, list):
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f'its run lengths cover {sum(counts)} pixels, the image has {size[0] * size[1]}')
        return codec.frPyObjects(segmentation, *size)['counts']
    counts = counts.encode() if isinstance(counts, str) else counts
    codec.decode([{'size': list(size), 'counts': counts}])  # raises for run lengths that do not fill the image
    return counts


def decode_masks(counts: Sequence[bytes], size: tuple[int, int]) -> np.ndarray:
    """Decodes K compressed run lengths of images of `size` (height, width), bool [K, H, W]."""
    codec = _import_codec()

    if not counts:
        return np.zeros((0, *size), bool)
    decoded = codec.decode([{'size': list(size), 'counts': each} for each in counts])
    # The codec gives [H, W, K] in column-major order, as MATLAB has it.
    return np.ascontiguousarray(decoded.transpose(2, 0, 1)).astype(bool)


def paint_label_map(masks: np.ndarray, classes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the label map, uint8 [H, W], of masks [K, H, W] with their classes [K].

    0 is the background; pixels of several objects, or of a crowd, are void (255).
    """
    label_map = np.zeros(masks.shape[1:], np.uint8)
    for mask, label in zip(masks, classes, strict=True):
        label_map[mask] = label
    # COCO does not state which of two objects is in front.
    label_map[masks.sum(0) > 1] = VOID
    label_map[masks[crowd].any(0)] = VOID
    return label_map


def _import_codec() -> Any:
    from faster_coco_eval.core import mask  # takes 0.4 s, and boxes do not need it

    return mask


def _find_file(files: FileTree, candidates: Sequence[str], split: str) -> str:
    names = [candidate.format(split=split) for candidate in candidates]
    for name in names:
        if files.has_file(name):
            return name
    raise UsageError(f'{files.root} has no annotations {" or ".join(names)}; name the file by annotations=')


def _find_folder(files: FileTree, candidates: Sequence[str], split: str) -> str:
    names = [candidate.format(split=split) for candidate in candidates]
    for name in names:
        if files.has_folder(name):
            return f'{name}/' if name else ''
    raise UsageError(f'{files.root} has no folder of images {" or ".join(names)}; name it by images=')


def _read_json(files: FileTree, file: str) -> dict[str, list]:
    shown = files.show(file)
    try:
        content = json.loads(files.read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise CanonError(f'{shown} is not JSON ({first_line(error)}); fetch it again') from error
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise CanonError(f"{shown} is not in COCO's format: it needs a list {key!r} of objects")
    if not all(isinstance(image.get('id'), int) for image in content['images']):
        raise CanonError(f"{shown} is not in COCO's format: each image needs a number 'id'")
    # On the device an id is an int32: a larger one would become another image's.
    if large := [image['id'] for image in content['images'] if not 0 <= image['id'] < 2**31]:
        raise CanonError(f'{shown}: the image id {large[0]} is not in 0..{2**31 - 1}; number the images from 0')
    if not all(isinstance(c.get('id'), int) and isinstance(c.get('name'), str) for c in content['categories']):
        raise CanonError(f"{shown} is not in COCO's format: each category needs a number 'id' and a text 'name'")
    return content


def _make_records(
    content: dict, shown: str, folder: str, with_masks: bool, log: DefectLog, max_pixels: int
) -> list[ImageRecord]:
    """Returns the records of all images of a file, in its order, with the names of categories as classes."""
    try:
        images, annotations = (_index_by_id(content[key], key, shown, log) for key in ('images', 'annotations'))
        categories = _index_by_id(content['categories'], 'categories', shown, log)
        of_image: dict[Any, list] = {id_: [] for id_ in images}
        for annotation in annotations.values():
            own = of_image.get(annotation['image_id'])
            if own is None:
                detail = f'annotation {annotation["id"]} of image {annotation["image_id"]}'
                log.add('annotations of images that are not listed', shown, detail)
            else:
                own.append(annotation)
        records = []
        for image_id, image in images.items():
            size = (int(image['height']), int(image['width']))
            source = f'{shown}, image {image_id} ({image["file_name"]})'
            if min(size) < 1 or size[0] * size[1] > max_pixels:  # a mask of an absurd size would take all memory
                log.add('annotations that cannot be read', source, f'its size is {size[1]}x{size[0]}')
                continue
            objects = of_image[image_id]
            masks = [_try_to_encode(a, size, source, log) for a in objects] if with_masks else None
            if masks is not None:
                objects = [a for a, mask in zip(objects, masks, strict=True) if mask is not None]
                masks = [mask for mask in masks if mask is not None]
            # An unknown category becomes a class that is not listed, which `check_records` reports.
            classes = [
                categories.get(a['category_id'], {'name': f'category {a["category_id"]}'})['name'] for a in objects
            ]
            # COCO measures from pixel edges, with fractions: no pixel is added, as VOC's inclusive corners need.
            boxes = [(x, y, x + w, y + h) for x, y, w, h in (a['bbox'] for a in objects)]
            # The area of the mask, by which COCO sorts objects into small, medium and large; that of the box is larger.
            areas = [float(a['area'] if 'area' in a else a['bbox'][2] * a['bbox'][3]) for a in objects]
            crowd = [bool(a.get('iscrowd', 0)) for a in objects]
            name = folder + image['file_name']
            records.append(ImageRecord(name, source, boxes, classes, None, crowd, size, image_id, areas, masks))
    except (KeyError, TypeError, ValueError) as error:
        reason = f'an entry has no {error}' if isinstance(error, KeyError) else first_line(error)
        raise CanonError(f"{shown} is not in COCO's format: {reason}") from error
    return records


def _index_by_id(entries: Sequence[Mapping], kind: str, shown: str, log: DefectLog) -> dict[Any, Any]:
    """Returns {id: entry}, the first of each id."""
    by_id: dict[Any, Any] = {}
    for entry in entries:
        if entry['id'] in by_id:
            log.add('doubled ids', shown, f'{kind} {entry["id"]}')
        else:
            by_id[entry['id']] = entry
    return by_id


def _try_to_encode(annotation, size, source, log) -> bytes | None:
    try:
        return encode_mask(annotation['segmentation'], size)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        log.add('masks that cannot be read', source, f'annotation {annotation["id"]}: {first_line(error)}')
        return None


def _choose_classes(contents: Sequence[tuple[dict, str]], class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the classes: those given, or all of the files in the order of their ids."""
    ordered: dict[str, None] = {}
    for content, _ in contents:
        # A dict is a set that keeps its order. Labels are consecutive; the ids of COCO's 80 classes reach 90.
        ordered |= {c['name']: None for c in sorted(content['categories'], key=lambda c: c['id'])}
    for name in class_names:
        if name not in ordered:
            raise UsageError(f'{contents[0][1]} has no category {name!r}{named.suggest(name, ordered)}')
    return tuple(class_names or ordered)


def _leave_out(records, contents, names) -> list[ImageRecord]:
    """Returns the records without the objects of categories that the files have and that are not chosen."""
    others = {category['name'] for content, _ in contents for category in content['categories']} - set(names)
    if not others:
        return records
    left_out: Counter[str] = Counter()
    out = []
    for record in records:
        chosen = [k for k, name in enumerate(record.classes) if name not in others]
        left_out.update(name for name in record.classes if name in others)
        out.append(record.choose(chosen))
    logging.getLogger('canon').info(
        '%d objects of %d categories that class_names does not have are left out', left_out.total(), len(left_out)
    )
    return out
