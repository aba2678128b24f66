"""Reads torch's `.pth` files without torch: tensors and the containers that hold them, nothing else.

Two formats: since torch 1.6 a zip with the pickle `data.pkl` and a file per storage; before, and in many published
files, several pickles with the storages behind them. A pickle can call any function, so names other than those of
tensors, storages and ordered dicts are refused.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
# Classes of storages, by which a pickle states the dtype of its tensors.
_STORAGES = {
    'DoubleStorage': 'float64',
    'FloatStorage': 'float32',
    'HalfStorage': 'float16',
    'BFloat16Storage': 'bfloat16',
    'LongStorage': 'int64',
    'IntStorage': 'int32',
    'ShortStorage': 'int16',
    'CharStorage': 'int8',
    'ByteStorage': 'uint8',
    'BoolStorage': 'bool',
}


class StoredTensor:
    """A tensor of a file: an array with as much of torch.Tensor as reading takes."""

    is_quantized = False

    def __init__(self, array: np.ndarray):
        self.array = array

    def detach(self) -> StoredTensor:
        return self

    def is_floating_point(self) -> bool:
        # By name: numpy takes ml_dtypes' bfloat16 for a kind of its own.
        return self.array.dtype.name.startswith(('float', 'bfloat'))

    def float(self) -> StoredTensor:
        return StoredTensor(self.array.astype(np.float32))

    def numpy(self) -> np.ndarray:
        return self.array


def load_torch_file(path: Path) -> Any:
    """Returns the content of a `.pth`, with a `StoredTensor` for each tensor.

    Raises ValueError for a file of another kind, pickle.UnpicklingError for one that holds other objects.
    """
    with path.open('rb') as file:
        return _load_zip(path) if zipfile.is_zipfile(file) else _load_pickles(path)


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        content = next((name for name in names if name.endswith('/data.pkl')), None)
        if content is None:
            raise ValueError('the zip has no data.pkl')
        root, storages = content.removesuffix('data.pkl'), {}
        if f'{root}byteorder' in names and archive.read(f'{root}byteorder') != b'little':
            raise ValueError('its numbers are big-endian')

        def find_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            # Tensors may share a storage (views, tied weights): it is read once.
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(f'{root}data/{key}'), dtype, count)
            return storages[key]

        with archive.open(content) as file:
            return _Unpickler(file, find_storage).load()


def _load_pickles(path: Path) -> Any:
    storages: dict[str, np.ndarray] = {}

    def find_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        # Their bytes follow the pickles: tensors are views of arrays that are filled in the end.
        return storages.setdefault(key, np.zeros(count, dtype))

    with path.open('rb') as file:
        # Five pickles: magic number, protocol, about the machine, content, and the keys of the storages in their order.
        magic, protocol, _ = (_Unpickler(file, find_storage).load() for _ in range(3))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise ValueError('it is not a file of torch')
        content, keys = (_Unpickler(file, find_storage).load() for _ in range(2))
        for key in keys:
            (count,) = struct.unpack('<q', file.read(8))
            storage = storages[key]
            if count != len(storage):
                raise ValueError(f'storage {key} has {count} numbers, expected {len(storage)}')
            storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return content


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, find_storage: Callable[[str, np.dtype, int], np.ndarray]):
        super().__init__(file, encoding='utf-8')
        self._find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ('collections', 'OrderedDict'): OrderedDict,
            ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
            ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == 'torch' and name in _STORAGES:
            return _find_dtype(_STORAGES[name])
        raise pickle.UnpicklingError(f'it holds {module}.{name}, which is neither a tensor nor a container of tensors')

    def persistent_load(self, pid: Sequence[Any]) -> np.ndarray:
        # (kind, dtype, key, device, count); the older format has a sixth, a view of another storage.
        kind, dtype, key, _, count = pid[:5]
        if kind != 'storage' or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError(f'it refers to a {kind} that is not a whole storage')
        return self._find_storage(key, dtype, count)


def _find_dtype(name: str) -> np.dtype:
    if name == 'bfloat16':
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder('<')


def _rebuild_tensor(storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_) -> StoredTensor:
    # as_strided checks nothing: a tensor with a wrong offset or stride would read memory beyond its storage.
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min(offset, *stride, 0) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError('a tensor reaches beyond its storage')
    strides = [s * storage.itemsize for s in stride]
    return StoredTensor(np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False))


def _rebuild_parameter(tensor: StoredTensor, *_) -> StoredTensor:
    return tensor
