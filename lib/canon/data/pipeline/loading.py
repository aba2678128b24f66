"""Loads data sets by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline.source import Example, Info, Source
from canon.errors import UsageError

_VALUES = (str, bytes, tuple, list, dict, np.ndarray)  # have a length and items as well, but are not data sets


def _reads_examples(function: Callable) -> bool:
    """Whether a function reads a split of a data set: it takes `split` and returns a class of examples by number."""
    kind = named.get_return_type(function)
    by_number = inspect.isclass(kind) and hasattr(kind, '__len__') and hasattr(kind, '__getitem__')
    return by_number and not issubclass(kind, _VALUES) and named.accepts(function, 'split')


DATA_SETS = named.Catalogue(
    'data set',
    (
        *('canon.data.images', 'canon.data.text', 'canon.data.detection'),
        *('canon.data.tracking.sequence_frames', 'canon.data.pipeline.arrays', 'canon.data.pipeline.synthetic'),
    ),
    _reads_examples,
)


class WithInfo:
    """A source made of anything that has `len` and `[i]`, and of its `info`."""

    def __init__(self, examples: Any, info: Info):
        self.examples, self.info = examples, info

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def is_own(name: str) -> bool:
    """Returns whether Canon reads the data set `name` itself; TFDS sets must be prepared first."""
    return not named.IMPORTED.fullmatch(name) and DATA_SETS.get(name) is not None


def load_source(name: str, split: str = 'train', data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Source:
    """Loads one split of the data set `name`.

    A name is that of a public function of `canon.data.images`, `canon.data.text`, `canon.data.detection`,
    `tracking.sequence_frames`, `pipeline.arrays` or `pipeline.synthetic` that takes `split` and returns a source:

    - embedded: 'digits' (prepared on first use), 'digit_lines' and 'rendered_words' (with texts), 'rendered_characters'
      (a class each), 'digit_scenes' (with boxes or label maps), 'digit_frames' (of `digit_sequences`, with boxes),
      'fake' (random images);
    - of files, path=: 'folder' (a folder per class), 'npz', 'words' (with texts), 'voc_detection', 'coco_detection',
      'yolo_boxes', 'csv_boxes', 'voc_segmentation', 'sbd_segmentation', 'label_maps';
    - of files with texts, path=: 'iiit5k', 'svt', 'icdar2003', 'icdar2013', 'icdar2015', 'svt_perspective', 'cute80',
      'word_folder', 'lmdb_words', 'iam_words', 'iam_lines', 'rimes_words', 'rimes_lines', 'casia_characters',
      and 'casia_classes' of the same files for classification;
    - 'tfds_boxes' (dataset=), a TFDS set with boxes.

    'package.module:function' is such a function of any other module; it returns anything with `len` and `[i]`, perhaps
    with an `info`. All other names are those of TFDS sets, prepared in array_record: 'mnist', 'voc/2007',
    'voc/2007:4.0.0'.

    Args:
      name: the data set.
      split: may be sliced, 'train[:90%]'.
      data_dir: of TFDS sets and digits; `~/tensorflow_datasets` if None.
      kwargs: further arguments of the function. TFDS sets take `decode=False`, which leaves the field 'image' as in its
        file (`tfds.Prepared`).

    Raises:
      UsageError: there is no such set, split or argument. For a missing TFDS set it prints the command that prepares
        it; TensorFlow is never imported.
    """
    if function := DATA_SETS.get(name):
        shared = {'data_dir': data_dir} if data_dir is not None and named.accepts(function, 'data_dir') else {}
        source = named.call(function, {'split': split, **shared, **kwargs}, f'data {name!r}')
        return source if hasattr(source, 'info') else WithInfo(source, Info(name, split))
    decode = kwargs.pop('decode', True)
    if kwargs:
        raise UsageError(f'data {name!r} takes no {next(iter(kwargs))!r}, only split, data_dir and decode')
    from canon.data.pipeline import tfds  # brings tensorflow_datasets: 0.6 s

    return tfds.open_prepared(name, split, tfds.resolve_dir(data_dir), decode)
