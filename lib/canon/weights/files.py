"""Files of weights: `.safetensors`, torch's `.pth`, and repositories of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from canon.errors import CanonError, UsageError

_TORCH = ('.pth', '.pt', '.bin')
_SUFFIXES = ('.safetensors', *_TORCH)
_PREFIXES = ('module.', '_orig_mod.', 'model.')  # of DistributedDataParallel, torch.compile and Lightning
_FLOAT8 = {'F8_E4M3': 'float8_e4m3fn', 'F8_E5M2': 'float8_e5m2'}


def is_weights(source: str | Path) -> bool:
    """Whether `source` is a file of weights, or OWNER/NAME[:FILE] of the hub, and not a folder here."""
    path = Path(source).expanduser()
    return not path.is_dir() and (path.suffix in _SUFFIXES or (not path.exists() and _hub(str(source)) is not None))


def read(source: str | Path) -> dict[str, np.ndarray]:
    """{key: array} of a `.safetensors` file, a `.pth` (where torch is installed), or OWNER/NAME[:FILE] of the hub.

    FILE is `model.safetensors` if there is none. What ends as a file of weights, or begins with a folder that is here,
    is never looked for at the hub unless `hub:` precedes it. Raises UsageError for a file that is not there or not of
    these kinds, CanonError for one that cannot be read or fetched.
    """
    path = Path(source).expanduser()
    if path.exists() and not path.is_file():
        raise UsageError(f'{source} is a folder or a device, not a file of weights')
    if not path.exists():
        if _hub(str(source)) is None:
            raise UsageError(f'{source} does not exist; OWNER/NAME or hub:OWNER/NAME is one of the hub')
        path = _fetched(str(source))
    if path.suffix == '.safetensors':
        return _safetensors(path)
    if path.suffix in _TORCH:
        return _torch(path)
    raise UsageError(f'{source} is no file of weights; give {", ".join(_SUFFIXES)} or OWNER/NAME of the hub')


def without_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`tensors` without the prefixes that wrappers give to all keys: 'module.layer1.0.conv1.weight'.

    Scalars beside them, as the count of an averaged model, are left out with the prefix.
    """
    found = dict(tensors)
    while prefix := next((p for p in _PREFIXES if _is_prefix(p, found)), None):
        found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    return found


def _is_prefix(prefix: str, tensors: Mapping[str, np.ndarray]) -> bool:
    with_prefix = [key.startswith(prefix) for key in tensors]
    return any(with_prefix) and all(has or not np.ndim(v) for has, v in zip(with_prefix, tensors.values(), strict=True))


def write(path: str | Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None) -> None:
    """A `.safetensors` file of {key: array}; `about` goes into its header."""
    from safetensors.numpy import save_file

    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise UsageError(f'{path}: weights are written as .safetensors; name it so')
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.asarray(v, order='C') for k, v in tensors.items()}, path, dict(about or {}))


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from ml_dtypes import bfloat16  # noqa: F401  numpy then knows the type
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='flax') as file:
            return {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CanonError(f'{path} cannot be read as safetensors: {error}') from error
    except (AttributeError, KeyError, TypeError):  # numpy has no name for the type
        return _deserialised(path)


def _deserialised(path: Path) -> dict[str, np.ndarray]:
    """A `.safetensors` file with types that `safe_open` does not know, float8 among them."""
    import ml_dtypes
    from safetensors import deserialize

    known: dict[str, Any] = {
        'F64': np.float64,
        'F32': np.float32,
        'F16': np.float16,
        'BF16': ml_dtypes.bfloat16,
        'BOOL': bool,
    }
    known |= {f'{kind}{bits}': f'{"u" * (kind == "U")}int{bits}' for kind in 'IU' for bits in (8, 16, 32, 64)}
    known |= {name: getattr(ml_dtypes, ours) for name, ours in _FLOAT8.items()}
    tensors = {}
    for key, entry in deserialize(path.read_bytes()):
        if entry['dtype'] not in known:
            raise CanonError(f'{path}: {key} is {entry["dtype"]}, which is not read; convert it to a float type')
        tensors[key] = np.frombuffer(entry['data'], known[entry['dtype']]).reshape(entry['shape'])
    return tensors


def _torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # ty: ignore[import-not-found]
    except ImportError as error:
        raise UsageError(f'{path} takes torch to read: install it, or convert the file to .safetensors') from error
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise CanonError(f'{path} cannot be read by torch: {" ".join(str(error).split())[:200]}') from error
    tensors = _state_dict(tensors, path)
    if quantised := next((key for key, value in tensors.items() if getattr(value, 'is_quantized', False)), None):
        raise CanonError(f'{path}: {quantised} is quantised; give a file of floats')
    return {key: _array(value) for key, value in tensors.items()}


def _array(tensor: Any) -> np.ndarray:
    """Floats of any width as float32: numpy has no bfloat16 or float8 of torch's; integers as they are."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _state_dict(stored: Any, path: Path) -> dict[str, Any]:
    """{key: tensor} of what a `.pth` holds: that, or such a mapping within it (`{'net': ..., 'epoch': 3}`).

    Of several the one with most tensors is taken, and an average ('ema') only where there is no other.
    """
    if not isinstance(stored, Mapping):
        raise CanonError(f'{path} holds a {type(stored).__name__}, not a mapping of names to tensors')
    mappings = sorted(_mappings(stored), key=lambda found: ('ema' in found[0], -len(found[1])))
    if not mappings:
        raise CanonError(f'{path} holds no tensors; its keys are {", ".join(map(str, list(stored)[:5])) or "none"}')
    return mappings[0][1]


def _mappings(stored: Mapping, key: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, its tensors) of `stored` and of the mappings within it that are not of an optimizer."""
    tensors = {str(name): value for name, value in stored.items() if hasattr(value, 'detach')}
    if tensors:
        yield key, tensors
    for name, value in stored.items():
        if isinstance(value, Mapping) and 'optim' not in str(name):
            yield from _mappings(value, f'{key}.{name}')


def _hub(source: str) -> tuple[str, str] | None:
    """(OWNER/NAME, FILE) of `OWNER/NAME` or `OWNER/NAME:FILE`; None for what is a path here, though mistyped."""
    found = re.fullmatch(r'(hub:)?(([\w-]+)/[\w.-]+?)(?::([\w./-]+))?', source)
    if not found or (not found[1] and (found[2].endswith(_SUFFIXES) or Path(found[3]).is_dir())):
        return None
    return found[2], found[4] or 'model.safetensors'


def _fetched(source: str) -> Path:
    named = _hub(source)
    assert named is not None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(*named))
    except Exception as error:
        text = ' '.join(str(error).split())[:200]
        raise CanonError(f'{named[0]} ({named[1]}) is no file here and did not come from the hub: {text}') from error
