"""TFDS data sets that are prepared on disk, as array_record, read without TensorFlow."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from canon import named
from canon.data.source import Info
from canon.errors import CanonError, UsageError

_VERSION = re.compile(r'\d+\.\d+\.\d+$')
_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}


def read(name: str, split: str, data_dir: Path) -> Prepared:
    """The prepared set `name` ('mnist', 'voc/2007', 'voc/2007:4.0.0') of `data_dir`.

    Raises UsageError, with the command that mends it, when the set is missing or not in array_record.
    """
    return Prepared(find(name, data_dir), split, name, data_dir)


def find(name: str, data_dir: Path) -> Path:
    """The folder of the newest (or the named) version of `name`."""
    path, _, version = name.partition(':')
    versions = sorted(
        (p for p in (data_dir / path).glob('*') if _VERSION.match(p.name) and (p / 'dataset_info.json').exists()),
        key=lambda p: tuple(map(int, p.name.split('.'))),
    )
    matching = [p for p in versions if version in ('', p.name)]
    if matching:
        return matching[-1]
    if versions:
        told = ', '.join(p.name for p in versions)
        raise UsageError(f'{data_dir / path} holds no version {version}; there are {told}')
    configs = sorted({p.parent.parent.name for p in (data_dir / path).glob('*/*/dataset_info.json')})
    if configs:
        raise UsageError(f'{name} has several forms; say {" or ".join(f"{path}/{c}" for c in configs)}')
    raise UsageError(
        f'data set {name!r} is not in {data_dir}; {mend(name, data_dir)} puts it there{_near(path, data_dir)}'
    )


def _near(name: str, data_dir: Path) -> str:
    known = {'digits', 'folder', 'npz', *(p.name for p in data_dir.glob('*') if p.is_dir())}
    close = named.near(name, known)
    return close if 'did you mean' in close else ''


def mend(name: str, data_dir: Path) -> str:
    """The command that prepares `name`."""
    elsewhere = '' if data_dir == default_dir() else f' --data_dir {data_dir}'
    return f'`./launch.sh prepare {name}{elsewhere}`'


def default_dir() -> Path:
    """Where TFDS keeps its data sets."""
    return Path('~/tensorflow_datasets').expanduser()


class Prepared:
    """A source over one split of the data set in `folder`; slices such as `train[:90%]` and `train+test` work.

    Nested features are named with a slash ('objects/bbox'), the elements of a sequence are stacked, text is str.
    Images have the channels that the feature promises, CMYK JPEGs included.
    """

    def __init__(self, folder: Path, split: str, name: str, data_dir: Path):
        builder = tfds.builder_from_directory(folder)
        self.features = builder.info.features
        self._images = {k: f for k, f in self.features.items() if _is_byte_image(f)}
        decoders = {k: tfds.decode.SkipDecoding() for k in self._images}
        try:
            self._records: Any = builder.as_data_source(split=split, decoders=decoders or None)  # ty: ignore
        except NotImplementedError:
            form = builder.info.file_format.value if builder.info.file_format else 'an unknown form'
            raise UsageError(
                f'data set {name!r} is in {data_dir} as {form}, which has no random access;'
                f' {mend(name, data_dir)} puts it there as array_record'
            ) from None
        except (ValueError, KeyError) as error:
            base, splits = re.split(r'[\[+]', split)[0], tuple(builder.info.splits)
            why = named.near(base, splits) if base not in splits else f': {error}'.splitlines()[0]
            raise UsageError(f'data set {name!r} has no split {split!r}{why}') from None
        self.info = _info(name, split, self.features)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, ids) -> list[dict[str, Any]]:
        ids = [int(i) for i in ids]
        return [self._tidy(i, record) for i, record in zip(ids, self._records.__getitems__(ids), strict=True)]

    def labels(self) -> np.ndarray:
        """[n] integers; images are not decoded for it."""
        if 'label' not in self.features:
            raise UsageError(f"{self!r} has no field 'label'; its fields are {', '.join(self.features)}")
        n = len(self)
        chunks = (self._records.__getitems__(list(range(i, min(i + 4096, n)))) for i in range(0, n, 4096))
        return np.array([int(record['label']) for chunk in chunks for record in chunk], np.int64)

    def _tidy(self, index, record):
        try:
            decoded = {k: _decode(record[k], f) for k, f in self._images.items()}
        except OSError as error:
            raise CanonError(f'{self!r}: the image of example {index} cannot be decoded: {error}') from error
        return _flatten({**record, **decoded}, self.features)

    def __repr__(self) -> str:
        return f'Prepared({self.info.name}, {self.info.split}, {len(self)} examples)'


def _info(name, split, features) -> Info:
    kinds = {k: f for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)}
    label = kinds.get('label') or (next(iter(kinds.values())) if len(kinds) == 1 else None)
    if label is None or label.num_classes is None:
        return Info(name, split)
    return Info(name, split, label.num_classes, tuple(label.names))


def _is_byte_image(feature) -> bool:
    return isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8 and feature.shape[-1] in _MODES


def _decode(data: bytes, feature) -> np.ndarray:
    """uint8 [H, W, C]. TFDS leaves a CMYK JPEG with 4 channels, hence this; 1-channel palettes stay indices."""
    mode = _MODES[feature.shape[-1]]
    with Image.open(io.BytesIO(data)) as image:
        kept = image.mode == mode or (image.mode == 'P' and mode == 'L')
        array = np.asarray(image if kept else image.convert(mode))
    return array[..., None] if array.ndim == 2 else array


def _flatten(values: dict, features, prefix: str = '') -> dict[str, Any]:
    out = {}
    for name, value in values.items():
        feature = features[name]
        if isinstance(value, dict):
            out |= _flatten(value, feature, f'{prefix}{name}/')
        else:
            out[prefix + name] = _array(value, feature)
    return out


def _array(value, feature):
    if isinstance(value, bytes):
        return value.decode() if isinstance(feature, tfds.features.Text) else value
    if not isinstance(value, list):
        return np.asarray(value)
    elements = [_array(v, getattr(feature, 'feature', feature)) for v in value]
    if len({np.shape(e) for e in elements}) == 1:
        return np.stack(elements)
    if not elements:
        return np.zeros((0, *(d or 0 for d in feature.shape[1:])), feature.np_dtype)
    ragged = np.empty(len(elements), object)
    ragged[:] = elements
    return ragged
