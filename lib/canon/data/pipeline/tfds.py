"""Reads TFDS data sets that are prepared on disk as array_record, without TensorFlow."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from canon import named
from canon.data.images import image_files
from canon.data.images.image_files import Encoded
from canon.data.pipeline.source import Info
from canon.errors import CanonError, UsageError, first_line

_VERSION = re.compile(r'\d+\.\d+\.\d+$')
_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}


def open_prepared(name: str, split: str, data_dir: Path, decode: bool = True) -> Prepared:
    """Opens a prepared data set.

    Args:
      name: 'mnist', 'voc/2007', 'voc/2007:4.0.0'.
      split: may be sliced or summed.
      data_dir: the folder of prepared data sets.
      decode: if False, the field 'image' holds the bytes of its file.

    Raises:
      UsageError: the set is missing or not in array_record; the message has the command that prepares it.
    """
    return Prepared(find_folder(name, data_dir), split, name, data_dir, decode)


def find_folder(name: str, data_dir: Path) -> Path:
    """Returns the folder of the newest version of a data set, or of the version that its name gives."""
    path, _, version = name.partition(':')
    versions = sorted(
        (p for p in (data_dir / path).glob('*') if _VERSION.match(p.name) and (p / 'dataset_info.json').exists()),
        key=lambda p: tuple(map(int, p.name.split('.'))),
    )
    matching = [p for p in versions if version in ('', p.name)]
    if matching:
        return matching[-1]
    if versions:
        known = ', '.join(p.name for p in versions)
        raise UsageError(f'{data_dir / path} holds no version {version}; there are {known}')
    configs = sorted({p.parent.parent.name for p in (data_dir / path).glob('*/*/dataset_info.json')})
    if configs:
        raise UsageError(f'{name} has several forms; say {" or ".join(f"{path}/{c}" for c in configs)}')
    close = _suggest(path, data_dir)
    otherwise = f'{close} If not, ' if close else '; '
    raise UsageError(
        f'data set {name!r} is not in {data_dir}{otherwise}{prepare_command(name, data_dir)} puts it there'
    )


def _suggest(name: str, data_dir: Path) -> str:
    from canon.data.pipeline.loading import DATA_SETS

    close = named.suggest(name, {*DATA_SETS.names(), *(p.name for p in data_dir.glob('*') if p.is_dir())})
    return close if 'did you mean' in close else ''


def prepare_command(name: str, data_dir: Path) -> str:
    """Returns the command that prepares a data set, and the call that does so without the checkout, for messages."""
    option, argument = '', ''
    if data_dir != resolve_dir(None):
        option, argument = f' --data_dir {data_dir}', f', data_dir={str(data_dir)!r}'
    call = f"tfds.builder({name!r}{argument}, file_format='array_record').download_and_prepare()"
    return f'`./launch.sh prepare {name}{option}` (in Python: `{call}`)'


def resolve_dir(data_dir: str | os.PathLike | None) -> Path:
    """Returns the folder of prepared data sets: `data_dir`, or TFDS's own if None."""
    return Path(data_dir or '~/tensorflow_datasets').expanduser()


class Prepared:
    """A source over one split of a prepared data set, or over `train[:90%]` or `train+test`.

    Nested features are named with a slash ('objects/bbox'), the elements of a sequence are stacked, texts are str.
    Images have the channels that the feature declares, also where the file is a CMYK JPEG. Without `decode`, the field
    'image' holds the bytes of its file, for the transforms `decode` or `decode_random_resized_crop`.
    """

    def __init__(self, folder: Path, split: str, name: str, data_dir: Path, decode: bool = True):
        self._folder, self._prepare, self._decodes = folder, prepare_command(name, data_dir), decode
        builder = self._builder()
        self.features = builder.info.features
        self._images = {k: f for k, f in self.features.items() if isinstance(f, tfds.features.Image)}
        if not decode and (feature := self._images.get('image')) and feature.shape[-1] != 3:
            raise UsageError(f'data {name!r}: decode=False is for images of 3 channels; these are {feature.shape}')
        # Images come as bytes and are decoded here: TFDS without TensorFlow decodes some of them differently
        # (`_decode`).
        decoders = {k: tfds.decode.SkipDecoding() for k in self._images}
        try:
            self._records: Any = builder.as_data_source(split=split, decoders=decoders or None)
        except NotImplementedError:
            stored = builder.info.file_format.value if builder.info.file_format else 'an unknown format'
            raise UsageError(
                f'data set {name!r} is in {data_dir} as {stored}, which has no random access;'
                f' {self._prepare} puts it there as array_record'
            ) from None
        except (ValueError, KeyError) as error:
            base, splits = re.split(r'[\[+]', split)[0], tuple(builder.info.splits)
            reason = named.suggest(base, splits) if base not in splits else f': {error}'.splitlines()[0]
            raise UsageError(f'data set {name!r} has no split {split!r}{reason}') from None
        sizes = {key: s.num_examples for key, s in builder.info.splits.items()}
        self.info = _info(name, split, self.features)._replace(total=sizes.get(split.partition('[')[0]))

    def _builder(self) -> Any:
        try:
            return tfds.builder_from_directory(self._folder)
        except Exception as error:  # TFDS and its parsers raise anything for damaged JSON
            raise self._make_error(error) from error

    def _make_error(self, error: BaseException) -> CanonError:
        return CanonError(
            f'{self._folder} is damaged ({first_line(error)}); delete it, then {self._prepare} makes it again'
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, ids) -> list[dict[str, Any]]:
        ids = [int(i) for i in ids]
        return [self._convert(i, record) for i, record in zip(ids, self._read(ids), strict=True)]

    def labels(self) -> np.ndarray:
        """Returns the labels [n], integers, without decoding images."""
        if 'label' not in self.features:
            raise UsageError(f"{self!r} has no field 'label'; its fields are {', '.join(self.features)}")
        n = len(self)
        chunks = (self._read(range(i, min(i + 4096, n))) for i in range(0, n, 4096))
        return np.array([int(record['label']) for chunk in chunks for record in chunk], np.int64)

    def _read(self, ids):
        try:
            return self._records.__getitems__(list(ids))
        except (OSError, RuntimeError, ValueError) as error:
            raise self._make_error(error) from error

    def _convert(self, index, record):
        try:
            decoded = {k: self._read_image(index, k, record[k], f) for k, f in self._images.items()}
        except (CanonError, OSError) as error:
            raise CanonError(f'{self!r}: the image of example {index} cannot be decoded: {error}') from error
        return _flatten({**record, **decoded}, self.features)

    def _read_image(self, index, field, data, feature):
        if field == 'image' and not self._decodes:
            return Encoded(data, f'{self!r}: the image of example {index}', rotate=False)
        return _decode(data, feature)

    def __repr__(self) -> str:
        return f'Prepared({self.info.name}, {self.info.split}, {len(self)} examples)'


def _info(name, split, features) -> Info:
    kinds = {k: f for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)}
    label = kinds.get('label') or (next(iter(kinds.values())) if len(kinds) == 1 else None)
    if label is None or label.num_classes is None:
        return Info(name, split)
    return Info(name, split, label.num_classes, tuple(label.names))


def _decode(data: bytes, feature) -> np.ndarray:
    """Decodes an image to [H, W, C] with the channels and dtype of `feature`, as TensorFlow would.

    (TFDS without TensorFlow leaves a CMYK JPEG with 4 channels and refuses 16 bits.) A palette that is declared to have
    one channel stays indices.
    """
    if feature.np_dtype == np.uint8 and feature.shape[-1] == 3:
        return image_files.decode_image(Encoded(data, rotate=False))
    with Image.open(io.BytesIO(data)) as image:
        if feature.np_dtype == np.float32:  # stored as the four bytes of each number
            return np.asarray(image.convert('RGBA')).view(np.float32)
        if feature.np_dtype == np.uint16:
            if feature.shape[-1] != 1:
                raise OSError('Pillow reads 16 bits of one channel only')
            return np.asarray(image).astype(np.uint16)[..., None]
        mode = _MODES[feature.shape[-1]]
        kept = image.mode == mode or (image.mode == 'P' and mode == 'L')
        array = np.asarray(image if kept else image.convert(mode))
    return array[..., None] if array.ndim == 2 else array


def _flatten(values: dict, features, prefix: str = '', sequence: bool = False) -> dict[str, Any]:
    """Joins nested dicts into one, with names joined by slashes.

    Args:
      values: a record.
      features: of each of its values.
      prefix: of the names.
      sequence: whether `values` holds sequences of `features`.
    """
    out = {}
    for name, value in values.items():
        feature, in_sequence = features[name], sequence
        if isinstance(feature, tfds.features.Sequence) and not in_sequence:
            feature, in_sequence = feature.feature, True
        if isinstance(value, dict):
            out |= _flatten(value, feature, f'{prefix}{name}/', in_sequence)
        else:
            out[prefix + name] = _stack_elements(value, feature) if in_sequence else _to_array(value, feature)
    return out


def _to_array(value, feature):
    if isinstance(feature, tfds.features.Sequence):
        return _stack_elements(value, feature.feature)
    if isinstance(value, bytes):
        return value.decode() if isinstance(feature, tfds.features.Text) else value
    return np.asarray(value)


def _stack_elements(values, feature) -> np.ndarray:
    """Stacks the elements of a sequence, [k, ...]; objects [k] where their shapes differ."""
    if isinstance(values, np.ndarray) and values.size and values.dtype != object:
        return values
    if not len(values):
        dtype = str if isinstance(feature, tfds.features.Text) else feature.np_dtype
        return np.zeros((0, *(size or 0 for size in feature.shape)), dtype)
    elements = [_to_array(value, feature) for value in values]
    if len({np.shape(element) for element in elements}) == 1:
        return np.stack(elements)
    ragged = np.empty(len(elements), object)
    ragged[:] = elements
    return ragged
