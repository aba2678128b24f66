"""Reads boxes of TFDS data sets, and loads data sets with boxes by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from canon.data.detection.annotations import DefectLog, ImageRecord, Invalid, check_objects, expand_flags
from canon.data.images import image_files
from canon.data.pipeline.loading import DATA_SETS, load_source
from canon.data.pipeline.source import Example, Info, Source
from canon.errors import UsageError
from canon.named import IMPORTED

# TFDS stores the corners of VOC's boxes as in the files: 1-based, with both ends included.
_ONE_BASED = ('voc',)


def load_boxes(name: str, split: str = 'train', data_dir: str | os.PathLike | None = None, **options: Any) -> Source:
    """Loads a data set with boxes by name: as `data.load_source`, and TFDS sets through `tfds_boxes`.

    Args:
      name: 'digit_scenes', 'voc_detection', 'package.module:function', ...; any other is a TFDS set, 'voc/2007'.
      split: may be sliced, 'train[:90%]'.
      data_dir: of TFDS sets; `~/tensorflow_datasets` if None.
      options: further arguments of the function.

    Raises:
      UsageError: there is no such set, split or option.
    """
    if IMPORTED.fullmatch(name) or DATA_SETS.get(name):
        return load_source(name, split, data_dir=data_dir, **options)
    return load_source('tfds_boxes', split, data_dir=data_dir, dataset=name, **options)


def tfds_boxes(
    dataset: str,
    split: str = 'train',
    data_dir: str | None = None,
    invalid: Invalid = 'error',
    decode: bool = True,
) -> TfdsBoxes:
    """Reads a prepared TFDS set whose examples have 'image' and 'objects' with 'bbox' and 'label'.

    TFDS's boxes are [ymin, xmin, ymax, xmax] as shares of the image; they become [x0, y0, x1, y1] in pixels. Those of
    'voc' are 1-based, as in VOC's files; their first corner is moved by a pixel.

    Args:
      dataset: 'voc/2007', 'voc/2012', 'coco/2017', ...
      split: may be sliced and summed.
      data_dir: the folder of TFDS sets; `~/tensorflow_datasets` if None.
      invalid: what happens to boxes that have no area or reach outside of their image, when the example is read:
        'error' raises, 'drop' leaves them out, 'clip' clips those that reach outside.
      decode: if False, the field 'image' holds the bytes of the file, for the transform `decode`.

    Raises:
      UsageError: the set is not prepared (the message has the command), or has no boxes.
    """
    from canon.data.pipeline import tfds  # brings tensorflow_datasets: 0.6 s

    prepared = tfds.open_prepared(dataset, split, tfds.resolve_dir(data_dir), decode)
    try:
        names = prepared.features['objects'].feature['label'].names
    except (KeyError, AttributeError, TypeError):
        fields = ', '.join(prepared.features)
        raise UsageError(f"data set {dataset!r} has no 'objects' with 'label' and 'bbox'; it has {fields}") from None
    return TfdsBoxes(prepared, names, dataset.startswith(_ONE_BASED), invalid)


class TfdsBoxes:
    """The source of `tfds_boxes`; its examples are those of `AnnotatedImages`."""

    def __init__(self, prepared: Any, class_names: Sequence[str], one_based: bool, invalid: str):
        """
        Args:
          prepared: examples with the fields 'image', 'objects/bbox', 'objects/label' and perhaps 'objects/is_crowd',
            'objects/is_difficult', 'objects/area' and 'image/id'.
          class_names: of the labels.
          one_based: whether x and y of the first corner are one pixel too large.
          invalid: as of `tfds_boxes`.
        """
        self.prepared, self.one_based, self.invalid = prepared, one_based, invalid
        names = self._names = tuple(class_names)
        self.info = Info(prepared.info.name, prepared.info.split, len(names), names, prepared.info.total)
        self._numbers = {name: label for label, name in enumerate(names)}
        DefectLog('', invalid)  # raises for another value of invalid

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, index: int) -> Example:
        """Raises UsageError for a box that is refused."""
        read = self.prepared[index]
        image = read['image']
        if isinstance(image, image_files.Encoded):
            head = image_files.read_head(image)
            height, width = head.height, head.width
        else:
            height, width = image.shape[:2]
        # From [ymin, xmin, ymax, xmax] to [x0, y0, x1, y1].
        boxes = np.asarray(read['objects/bbox'], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        # VOC's first corner is one pixel too large; the last one is included, hence right as an edge.
        boxes = boxes * (width, height, width, height) - (self.one_based, self.one_based, 0, 0)
        # A log per example: TFDS has no list of boxes that could be checked without reading the images too.
        log = DefectLog(f'{self.prepared!r}', self.invalid)
        record = ImageRecord(
            '',
            f'example {index}',
            boxes,
            [self._names[label] for label in read['objects/label']],
            read.get('objects/is_difficult'),
            read.get('objects/is_crowd'),
            (height, width),
            areas=read.get('objects/area'),
        )
        record, labels = check_objects(record, self._numbers, log)
        log.report()
        area = {} if record.areas is None else {'area': np.asarray(record.areas, np.float32)}
        return {
            'image': image,
            'boxes': np.asarray(record.boxes, np.float32).reshape(-1, 4),
            'labels': labels,
            'difficult': expand_flags(record.difficult, len(labels)),
            'crowd': expand_flags(record.crowd, len(labels)),
            **area,
            'image_id': np.int64(read.get('image/id', index)),
            'original_size': np.array((height, width), np.int32),
        }

    def __repr__(self) -> str:
        return f'TfdsBoxes({self.info.name}, {self.info.split}, {len(self)} images)'
