"""Images with label maps: a class per pixel. Reads pairs of folders; other readers share the checks."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from canon import named
from canon.data.detection.annotations import Defect, DefectLog, Invalid, drop_repeated, select_split
from canon.data.detection.file_trees import FileTree
from canon.data.images import image_files
from canon.data.pipeline.source import Example, Info
from canon.errors import CanonError, UsageError, first_line

VOID = 255  # the class of pixels that neither losses nor metrics count
# Where pairs of folders are looked for: (images, label maps). CamVid has the first form, ADE20K the second.
_LAYOUTS = (
    ('{split}', '{split}annot'),
    ('images/{split}', 'annotations/{split}'),
    ('images/{split}', 'labels/{split}'),
    ('images/{split}', 'masks/{split}'),
    ('{split}/images', '{split}/labels'),
    ('{split}/images', '{split}/masks'),
)


def label_maps(
    path: str,
    split: str = 'train',
    class_names: Sequence[str] = (),
    images: str | None = None,
    maps: str | None = None,
    void: Sequence[int] = (),
    invalid: Invalid = 'error',
    max_pixels: named.Count = image_files.MAX_PIXELS,
) -> LabelMaps:
    """Reads two folders of images and of label maps with equal names, but for their endings.

    A label map has the class of each pixel: a PNG of one channel or with a palette, whose colours do not matter. All
    maps of the split are read once at the beginning and checked.

    Args:
      path: the folder that holds both, or an uncompressed tar of it.
      split: put for '{split}' in `images` and `maps`; may be sliced and summed, 'train+val'.
      class_names: of the values 0, 1, ... of the label maps.
      images: the folder of images below `path`, such as 'images/{split}'. If None, the layouts of CamVid ('train' and
        'trainannot'), ADE20K ('images/train' and 'annotations/train') and three similar ones are tried.
      maps: the folder of label maps below `path`.
      void: values that mean no class, in addition to 255; they become 255.
      invalid: 'error' refuses a set with label maps that are missing, broken, of another size than their image or with
        values above the classes. 'drop' leaves such images out, and makes values above the classes void.
      max_pixels: an image with more is not read.

    Raises:
      UsageError: the folders or the class names are missing, or a label map is refused.
    """
    if not class_names:
        raise UsageError('label_maps needs class_names, the names of the values 0, 1, ... of the label maps')
    files = FileTree(path)
    log = DefectLog(str(files.root), invalid)
    pairs, total = select_split(split, lambda base: _list_pairs(files, base, images, maps, log))
    info = Info(str(files.root), split, len(class_names), tuple(class_names), total)
    return check_label_maps(files, pairs, void, info, log, max_pixels)


class LabelMaps:
    """A source of images with a class per pixel, of any sizes.

    Its examples have `image` uint8 [H, W, 3], `segmentation` uint8 [H, W] with 255 for void pixels, `image_id` int64
    (the number in the source) and `original_size` int32 [2], (height, width).

    Attributes:
      names: of the image files, by number.
      defects: what was wrong and was dropped.
    """

    def __init__(
        self,
        files: FileTree,
        pairs: Sequence[tuple[str, str]],
        sizes: np.ndarray,
        table: np.ndarray,
        info: Info,
        defects: Sequence[Defect] = (),
        max_pixels: int = image_files.MAX_PIXELS,
    ):
        """
        Args:
          files: the folder or tar that holds the images and the label maps.
          pairs: the names of the image and of its label map.
          sizes: int32 [n, 2], (height, width) of each.
          table: uint8 [256], the class of each value in the files.
          info: of the source.
          defects: what the check found.
          max_pixels: an image with more is not read.
        """
        self.files, self.info, self.defects, self._max_pixels = files, info, tuple(defects), max_pixels
        self.names, self._maps = tuple(image for image, _ in pairs), tuple(label_map for _, label_map in pairs)
        self._sizes, self._table = np.asarray(sizes, np.int32).reshape(-1, 2), table

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError, which names the file, for an image or a label map that is broken."""
        encoded = self.files.read_encoded(self.names[index], self._max_pixels)
        image = image_files.decode_image(encoded)
        if image.shape[:2] != tuple(self._sizes[index]):  # EXIF rotates the image, but not its label map
            image = image_files.decode_image(image_files.drop_rotation(encoded))
        return {
            'image': image,
            # Void values become 255 by a table, in one pass over the pixels.
            'segmentation': self._table[read_label_map(self.files, self._maps[index])],
            'image_id': np.int64(index),
            'original_size': self._sizes[index].copy(),
        }

    def image_sizes(self) -> np.ndarray:
        """Returns the sizes of all images, int32 [n, 2] of (height, width), without reading them."""
        return self._sizes

    def count_pixels(self) -> np.ndarray:
        """Returns the number of pixels of each class, int64 [C], and reads all label maps for it."""
        counts = np.zeros(256, np.int64)
        for label_map in self._maps:
            counts += np.bincount(self._table[read_label_map(self.files, label_map)].ravel(), minlength=256)
        return counts[: self.info.num_classes]

    def __repr__(self) -> str:
        return f'LabelMaps({self.info.name}, {self.info.split}, {len(self)} images)'


def read_label_map(files: FileTree, name: str) -> np.ndarray:
    """Reads the values of a label map, uint8 [H, W]: a PNG, of a palette its indices; or SBD's .mat.

    Raises CanonError, which names the file, if it is broken, has several channels or values above 255.
    """
    try:
        values, mode = (_read_matlab if name.endswith('.mat') else _read_png)(files.read_bytes(name))
    except image_files.UNREADABLE as error:
        raise CanonError(f'{files.show(name)} cannot be read ({first_line(error)})') from error
    if values.ndim != 2 or not (values.dtype == bool or np.issubdtype(values.dtype, np.integer)):
        raise CanonError(f'{files.show(name)} has pixels of mode {mode}, not one number each')
    if values.dtype != np.uint8 and (values.min(initial=0) < 0 or values.max(initial=0) > 255):
        raise CanonError(f'{files.show(name)} has values above 255')
    return values.astype(np.uint8)


def _read_png(content: bytes) -> tuple[np.ndarray, str]:
    """Returns the values of an image, indices where it has a palette, and its mode."""
    with Image.open(io.BytesIO(content)) as image:
        # Of a palette these are the indices: its colours are for the eye and must not be converted.
        return np.asarray(image), image.mode


def _read_matlab(content: bytes) -> tuple[np.ndarray, str]:
    """Returns the values of `GTcls.Segmentation`, as SBD stores them."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(io.BytesIO(content), squeeze_me=True)['GTcls']['Segmentation'].item(), 'GTcls.Segmentation'
    except (MatReadError, zlib.error, LookupError, NameError, NotImplementedError) as error:  # of damaged files
        raise ValueError(f'it has no GTcls.Segmentation: {first_line(error)}') from error


def check_label_maps(
    files: FileTree,
    pairs: Sequence[tuple[str, str]],
    void: Sequence[int],
    info: Info,
    log: DefectLog,
    max_pixels: int = image_files.MAX_PIXELS,
) -> LabelMaps:
    """Makes the source of pairs of images and label maps, after reading each label map once.

    Args:
      files: the folder or tar that holds them.
      pairs: the names of each image and of its label map.
      void: values that become 255.
      info: with the class names.
      log: receives the defects, and decides whether they are refused.
      max_pixels: an image with more is not read.

    Raises:
      UsageError: there is a defect and `log` raises, or nothing is left.
    """
    if log.invalid == 'clip':
        raise UsageError(f"{log.name}: label maps cannot be clipped; set invalid='error' or 'drop'")
    classes = info.num_classes or 0
    if classes > VOID:
        raise UsageError(f'{log.name}: {classes} classes; a label map of 8 bits has 255 and one value for void')
    # `table` maps the values in the files to classes; `expected` marks those that are not defects.
    table = np.arange(256, dtype=np.uint8)
    table[classes:] = VOID
    table[list(void)] = VOID
    expected = np.arange(256) < classes
    expected[[VOID, *void]] = True
    checked = image_files.check_in_threads(lambda pair: _check_pair(files, *pair, expected), pairs, 'label maps')
    for _, defects in checked:
        for defect in defects:
            log.add(*defect)
    kept = [(pair, size) for pair, (size, _) in zip(pairs, checked, strict=True) if size is not None]
    defects = log.report()
    if not kept:
        raise UsageError(f'{log.name}: no images are left')
    sizes = np.array([size for _, size in kept], np.int32)
    return LabelMaps(files, [pair for pair, _ in kept], sizes, table, info, defects, max_pixels)


def _check_pair(files, image, label_map, expected) -> tuple[tuple[int, int] | None, list[Defect]]:
    """Returns the size of an image, None if it cannot be used with its label map, and the defects of both."""
    for name, kind in ((image, 'images that are listed and missing'), (label_map, 'label maps that are missing')):
        if not files.has_file(name):
            return None, [Defect(kind, files.show(name))]
    try:
        size = files.read_image_size(image)
    except CanonError as error:
        return None, [Defect('images that cannot be read', str(error))]
    try:
        values = read_label_map(files, label_map)
    except CanonError as error:
        return None, [Defect('label maps that cannot be read', str(error))]
    # Tools draw label maps over the image as it is shown or as it is stored.
    if values.shape not in (size.rotated, size[:2]):
        shown = '{1}x{0}, the image {3}x{2}'.format(*values.shape, *size.rotated)
        return None, [Defect('label maps of another size than their image', files.show(label_map), shown)]
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    above = present[~expected[present]]
    if len(above):
        detail = f'value {", ".join(map(str, above[:5]))}'
        # The image has a size, so that with 'drop' it stays: only these pixels become void.
        return values.shape, [Defect('label maps with values above the classes', files.show(label_map), detail)]
    return values.shape, []


def _list_pairs(files, split, images, maps, log) -> list[tuple[str, str]]:
    """Returns the names of the image and the label map of each pair of a split, in the order of the names."""
    layouts = [(images, maps)] if images is not None or maps is not None else _LAYOUTS
    if None in layouts[0]:
        raise UsageError(f'label_maps: images={images!r} and maps={maps!r} are given both or not at all')
    folders = [tuple(folder.format(split=split) for folder in layout) for layout in layouts]
    for image_folder, map_folder in folders:
        if files.has_folder(image_folder) and files.has_folder(map_folder):
            break
    else:
        tried = ' or '.join(f'{image} and {label_map}' for image, label_map in folders)
        raise UsageError(f'{files.root} has no folders {tried}; name them by images= and maps=')
    # By name without ending: photographs are .jpg, label maps .png.
    by_stem = [_list_stems(files, folder, log) for folder in (image_folder, map_folder)]
    for stem in sorted(by_stem[0].keys() - by_stem[1].keys()):
        log.add('label maps that are missing', files.show(f'{map_folder}/{stem}'))
    for stem in sorted(by_stem[1].keys() - by_stem[0].keys()):
        log.add('images that are missing for a label map', files.show(by_stem[1][stem]))
    return [(by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0].keys() & by_stem[1].keys())]


def _list_stems(files, folder, log) -> dict[str, str]:
    """Returns {name without ending: file} of the images in a folder."""
    names = [name for name in files.list_names(folder) if image_files.is_image_name(name)]
    stems = [PurePosixPath(name).stem for name in names]
    drop_repeated(stems, log, files.show(folder))
    return {stem: f'{folder}/{name}' for stem, name in zip(stems, names, strict=True)}
