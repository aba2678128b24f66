"""Reads data sets in the layout of Pascal VOC: boxes of detection, label maps of segmentation; and SBD's label maps."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Annotated
from xml.etree import ElementTree

from canon import named
from canon.data.detection.annotations import (
    AnnotatedImages,
    DefectLog,
    Empty,
    ImageRecord,
    Invalid,
    Unreadable,
    check_records,
    drop_repeated,
    leave_out_unreadable,
    select_split,
)
from canon.data.detection.file_trees import FileTree
from canon.data.detection.label_maps import LabelMaps, check_label_maps
from canon.data.images import image_files
from canon.data.pipeline.source import Info
from canon.errors import CanonError, UsageError, first_line
from canon.progress import show_progress

VOC_CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
# A split such as 2007-trainval.
_YEAR = re.compile(r'(?:(?P<year>\d{4})-)?(?P<image_set>.+)')
# VOC itself has .jpg; data sets in its layout have others.
_SUFFIXES = ('.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG', '.bmp', '.tif', '.tiff')
_IMAGES, _ANNOTATIONS, _XML = 'JPEGImages/', 'Annotations/', '.xml'
_PARTS = ('JPEGImages', 'Annotations', 'ImageSets')
_LAYOUTS = (
    'put images into JPEGImages/ and their .xml, of the same names, into Annotations/, or each .xml next to its image, '
    'and give the folder of these by data.source.path'
)
_FLAGS = {'0': False, '1': True}

Years = tuple[Annotated[int, named.Range(1000, 9999)], ...]


def voc_detection(
    path: str,
    split: str = 'trainval',
    years: Years = (),
    class_names: Sequence[str] = VOC_CLASSES,
    invalid: Invalid = 'error',
    empty: Empty = 'keep',
    decode: bool = True,
    max_pixels: named.Count = image_files.MAX_PIXELS,
    unreadable: Unreadable = 'refuse',
) -> AnnotatedImages:
    """Reads the boxes of a data set in the layout of Pascal VOC (Everingham et al. 2010).

    The folder has `JPEGImages/*.jpg`, `Annotations/*.xml` and the image sets `ImageSets/Main/<split>.txt`, which hold
    the names of images without suffix, one per line; or it has folders `VOC2007`, `VOC2012`, ... of this form. A folder
    of `x.jpg` and `x.xml` next to each other, as LabelImg writes them, is read as well. Without image sets, all
    annotations, sorted by name, are the split 'train', which may be sliced: 'train[:80%]' and 'train[80%:]'.

    Boxes of VOC are 1-based and include both ends: [xmin, ymin, xmax, ymax] becomes [xmin - 1, ymin - 1, xmax, ymax],
    at pixel edges.

    Args:
      path: the folder, or an uncompressed tar of it.
      split: an image set, sliced or summed: 'trainval', 'train[:90%]', 'train+val'. A year may precede it; SSD's
        07++12 is '2007-trainval+2007-test+2012-trainval'.
      years: the years of a split without one, such as (2007, 2012); may be empty if the folder has one year.
      class_names: in the order of their labels; the 20 of VOC by default.
      invalid: 'error' refuses a set with boxes that have no area or reach outside of their image, objects of other
        classes, or images or annotations that are missing or broken; all are counted and the first of each kind is
        named. 'drop' leaves these boxes and images out, and 'clip' as well, except that it clips boxes which reach
        outside.
      empty: 'keep' keeps images without objects, 'drop' leaves them out, 'error' refuses them.
      decode: if False, the field 'image' holds the bytes of the file, for the transform `decode`.
      max_pixels: an image with more is not read.
      unreadable: 'skip' decodes every image once now, and leaves out, with a warning, what cannot be read; 'refuse'
        raises CanonError, which names the file, for such an image when it is read.

    Raises:
      UsageError: the folder, the year or the image set is missing, or the annotations are refused.
    """
    files = FileTree(path)
    log = DefectLog(str(files.root), invalid)
    flat = _is_flat(files)
    list_names = _list_flat if flat else _list_annotated
    names, total = select_split(split, lambda base: list_names(files, base, years))
    images, annotations = ('', '') if flat else (_IMAGES, _ANNOTATIONS)
    records = []
    for name in show_progress(drop_repeated(names, log, f'{split} of {files.root}'), 'annotations', 'image'):
        image, annotation = _find_image(files, name, images), f'{_folder(name)}{annotations}{_stem(name)}.xml'
        if not files.has_file(annotation):
            log.add('images without annotations', files.show(annotation))
            continue
        try:
            records.append(_parse_annotation(files, image, annotation))
        except CanonError as error:
            log.add('annotations that cannot be read', str(error))
    records = leave_out_unreadable(files, records, unreadable, max_pixels)
    kept, labels = check_records(files, records, class_names, log, empty)
    info = Info(str(files.root), split, len(class_names), tuple(class_names), total)
    return AnnotatedImages(files, kept, labels, info, log.defects, decode, max_pixels)


def voc_segmentation(
    path: str,
    split: str = 'train',
    years: Years = (),
    class_names: Sequence[str] = ('background', *VOC_CLASSES),
    void: Sequence[int] = (),
    invalid: Invalid = 'error',
    max_pixels: named.Count = image_files.MAX_PIXELS,
) -> LabelMaps:
    """Reads the label maps `SegmentationClass/*.png` of Pascal VOC, with 255 for void pixels.

    The image sets are `ImageSets/Segmentation/<split>.txt`. The other arguments and the errors are those of
    `voc_detection` and `label_maps`.
    """
    files = FileTree(path)
    log = DefectLog(str(files.root), invalid)
    names, total = select_split(split, lambda base: _list_images(files, base, years, 'Segmentation'))
    names = drop_repeated(names, log, f'{split} of {files.root}')
    pairs = [(_find_image(files, name), f'{_folder(name)}SegmentationClass/{_stem(name)}.png') for name in names]
    info = Info(str(files.root), split, len(class_names), tuple(class_names), total)
    return check_label_maps(files, pairs, void, info, log, max_pixels)


def sbd_segmentation(
    path: str,
    split: str = 'train',
    void: Sequence[int] = (),
    invalid: Invalid = 'error',
    max_pixels: named.Count = image_files.MAX_PIXELS,
) -> LabelMaps:
    """Reads the Semantic Boundaries Dataset (Hariharan et al. 2011): label maps of the classes of VOC in MATLAB files.

    The folder `dataset` of its archive, or the one that holds it, has `img/*.jpg`, `cls/*.mat` and the lists
    `train.txt` and `val.txt`; further lists may be put next to them, such as the training images that are not in VOC's
    validation set.

    Args:
      path: the folder, or an uncompressed tar of it.
      split: the name of a list; may be sliced and summed, 'train+val'.
      void: values that become 255; SBD has none.
      invalid: as of `label_maps`.
      max_pixels: an image with more is not read.

    Raises:
      UsageError: the list is missing, or a label map is refused.
    """
    files = FileTree(path)
    prefix = '' if files.has_folder('cls') else 'dataset/'
    log = DefectLog(str(files.root), invalid)

    def list_pairs(base: str) -> list[tuple[str, str]]:
        listing = f'{prefix}{base}.txt'
        if not files.has_file(listing):
            known = [n.removesuffix('.txt') for n in files.list_names(prefix.rstrip('/')) if n.endswith('.txt')]
            raise UsageError(f'there is no list {files.show(listing)}{named.suggest(base, known)}')
        names = [line.strip() for line in files.read_lines(listing) if line.strip()]
        names = drop_repeated(names, log, files.show(listing))
        return [(f'{prefix}img/{name}.jpg', f'{prefix}cls/{name}.mat') for name in names]

    pairs, total = select_split(split, list_pairs)
    classes = ('background', *VOC_CLASSES)
    info = Info(str(files.root), split, len(classes), classes, total)
    return check_label_maps(files, pairs, void, info, log, max_pixels)


def _is_flat(files: FileTree) -> bool:
    """Returns whether a folder has images and their annotations next to each other, as LabelImg writes them."""
    names = files.list_names()
    divided = any(name in ('JPEGImages', 'VOCdevkit') or re.fullmatch(r'VOC\d{4}', name) for name in names)
    return not divided and any(name.endswith(_XML) for name in names) and any(map(image_files.is_image_name, names))


def _list_flat(files: FileTree, split: str, years: Years) -> list[str]:
    """Returns the names, without suffix, of all annotations of a folder that has no image sets."""
    if years:
        raise UsageError(
            f'{files.root} is a folder of images and annotations without years; remove years={tuple(years)}'
        )
    names = files.list_names()
    annotated = [name.removesuffix(_XML) for name in names if name.endswith(_XML)]
    known = set(annotated)
    rest = [name for name in names if image_files.is_image_name(name) and name.rpartition('.')[0] not in known]
    if rest:
        text = '%s: images without annotations: %d, the first is %s; they are left out'
        logging.getLogger('canon').warning(text, files.root, len(rest), rest[0])
    return _take_all(files, split, annotated, '')


def _list_annotated(files: FileTree, split: str, years: Years) -> list[str]:
    """Returns the names of an image set, as of `_list_images`; without image sets, of all annotations."""
    roots, image_set = _parse_split(files, split, years)
    names = []
    for root in roots:
        annotations = [n for n in files.list_names(f'{root}Annotations') if n.endswith(_XML)]
        if not annotations:
            raise UsageError(
                f'{files.show(root + "Annotations")} has no .xml; put the annotation of each image there, NAME.xml for '
                f'JPEGImages/NAME.jpg'
            )
        if files.list_names(f'{root}ImageSets/Main'):
            names += _read_image_set(files, root, image_set, 'Main')
        else:
            stems = [name.removesuffix(_XML) for name in annotations]
            names += [f'{root}{name}' for name in _take_all(files, image_set, stems, root)]
    return names


def _take_all(files: FileTree, split: str, names: list[str], root: str) -> list[str]:
    """Returns the names of all annotations, which are the split 'train'; raises UsageError for another one."""
    if split == 'train':
        return names
    raise UsageError(
        f"{files.root} has no image sets, so all of its annotations are the split 'train', and there is no {split!r}: "
        "slice it, data.train.split='train[:80%]' and data.evals.NAME.split='train[80%:]'"
        + (_advise_list(files, f'{root}ImageSets/Main/{split}.txt') if files.has_folder(f'{root}JPEGImages') else '')
    )


def _advise_list(files: FileTree, listing: str) -> str:
    return f'; or write {files.show(listing)}: the names of images without suffix, one per line'


def _list_images(files: FileTree, split: str, years: Years, task: str) -> list[str]:
    """Returns 'VOC2007/000001' of each image of an image set, or '000001' if the folder has no years."""
    roots, image_set = _parse_split(files, split, years)
    return [name for root in roots for name in _read_image_set(files, root, image_set, task)]


def _parse_split(files: FileTree, split: str, years: Years) -> tuple[list[str], str]:
    """Returns the folders that a split such as '2007-trainval' is read from, and the name of its list."""
    match = _YEAR.fullmatch(split)
    assert match is not None  # every split has this form
    return _find_roots(files, (int(match['year']),) if match['year'] else years), match['image_set']


def _read_image_set(files: FileTree, root: str, image_set: str, task: str) -> list[str]:
    """Returns the names of one list, after `root`."""
    folder = f'{root}ImageSets/{task}'
    listing = f'{folder}/{image_set}.txt'
    if not files.has_file(listing):
        # Lists per class, such as aeroplane_train, have an underscore and are not suggested.
        known = [name.removesuffix('.txt') for name in files.list_names(folder) if '_' not in name]
        near, advice = named.suggest(image_set, known), _advise_list(files, listing)
        raise UsageError(f'there is no image set {files.show(listing)}{near}{advice}')
    # Lists per class have a second column, whether the image shows the class.
    return [f'{root}{line.split()[0]}' for line in files.read_lines(listing) if line.strip()]


def _find_roots(files: FileTree, years: Sequence[int]) -> list[str]:
    """Returns the folders of the years: [''] if `path` is such a folder itself."""
    if files.has_folder('JPEGImages'):
        if len(years) > 1:
            raise UsageError(f'{files.root} is one year of VOC; give the folder above it for years={tuple(years)}')
        return ['']
    prefix = 'VOCdevkit/' if files.has_folder('VOCdevkit') else ''
    known = [name for name in files.list_names(prefix.rstrip('/')) if re.fullmatch(r'VOC\d{4}', name)]
    chosen = [f'VOC{year}' for year in years] if years else known
    missing = [name for name in chosen if name not in known]
    if missing or not chosen:
        if known or missing:
            there = f'; there are {", ".join(known)}' if known else ''
            raise UsageError(f'{files.root} has no folder {", ".join(missing)}{there}')
        above = f'give the folder above it, {files.root.parent}' if files.root.name in _PARTS else _LAYOUTS
        raise UsageError(f'{files.root} has no folder JPEGImages or VOC2007, nor images with an .xml each; {above}')
    if not years and len(known) > 1:
        raise UsageError(f"{files.root} has {', '.join(known)}; give years=, or a split such as '{known[0][3:]}-train'")
    return [f'{prefix}{name}/' for name in chosen]


def _folder(name: str) -> str:
    return name[: name.rfind('/') + 1]


def _stem(name: str) -> str:
    return name[name.rfind('/') + 1 :]


def _find_image(files: FileTree, name: str, folder: str = _IMAGES) -> str:
    """Returns the name of an image's file in a folder, that of a .jpg if there is none."""
    candidates = [f'{_folder(name)}{folder}{_stem(name)}{suffix}' for suffix in _SUFFIXES]
    return next((candidate for candidate in candidates if files.has_file(candidate)), candidates[0])


def _parse_annotation(files: FileTree, image: str, annotation: str) -> ImageRecord:
    """Parses the XML of an image. Raises CanonError, which names the file and the element."""
    source = files.show(annotation)
    try:
        root = ElementTree.fromstring(files.read_bytes(annotation))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CanonError(f'{source} is not XML ({first_line(error)})') from error
    boxes, classes, difficult = [], [], []
    for number, element in enumerate(root.findall('object'), 1):  # `part` elements within have boxes of their own
        where = f'{source}, object {number}'
        classes.append((element.findtext('name') or '').strip())
        box = element.find('bndbox')
        if box is None:
            raise CanonError(f'{where} has no bndbox')
        # By name, since the order of the elements is not fixed.
        x0, y0, x1, y1 = (_parse_number(box, tag, where) for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
        # From 1-based pixels, both ends included, to edges. Some corners of VOC's files have fractions, hence floats.
        boxes.append((x0 - 1, y0 - 1, x1, y1))
        # Data sets in the layout of VOC often leave the element out.
        flag = (element.findtext('difficult') or '0').strip()
        if flag not in _FLAGS:
            raise CanonError(f'{where}: difficult is {flag!r}, not 0 or 1')
        difficult.append(_FLAGS[flag])
    size = root.find('size')
    height, width = (0 if size is None else int(_parse_number(size, tag, source)) for tag in ('height', 'width'))
    shape = (height, width) if height > 0 and width > 0 else None  # some tools write 0 for a size they do not know
    return ImageRecord(image, source, boxes, classes, difficult, size=shape)


def _parse_number(element, tag: str, where: str) -> float:
    text = (element.findtext(tag) or '').strip()
    try:
        return float(text)
    except ValueError:
        raise CanonError(f'{where}: {tag} is {text!r}, not a number') from None
