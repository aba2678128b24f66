"""Reads and writes files of weights: `.safetensors`, torch's `.pth`, and repositories of the Hugging Face hub."""

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
    """Returns whether `source` is a file of weights or OWNER/NAME[:FILE] of the hub, and not a local folder."""
    path = Path(source).expanduser()
    return not path.is_dir() and (
        path.suffix in _SUFFIXES or (not path.exists() and _parse_hub(str(source)) is not None)
    )


def read(source: str | Path) -> dict[str, np.ndarray]:
    """Reads {key: array} from a file of weights, or from OWNER/NAME[:FILE] of the hub.

    Files are `.safetensors`, or torch's `.pth`, `.pt` and `.bin`, for which torch need not be installed. FILE is
    `model.safetensors` by default. A source with the suffix of a weights file, or that begins with a local folder, is
    never looked up at the hub unless it starts with `hub:`.

    Raises UsageError for a missing file or one of another kind, CanonError for one that cannot be read or fetched.
    """
    path = Path(source).expanduser()
    if path.exists() and not path.is_file():
        raise UsageError(f'{source} is a folder or a device, not a file of weights')
    if not path.exists():
        if _parse_hub(str(source)) is None:
            raise UsageError(f'{source} does not exist; OWNER/NAME or hub:OWNER/NAME is one of the hub')
        path = _fetch(str(source))
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.suffix in _TORCH:
        return _read_torch(path)
    raise UsageError(f'{source} is not a file of weights; give {", ".join(_SUFFIXES)} or OWNER/NAME of the hub')


def strip_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Strips the prefixes that wrappers add to all keys, 'module.layer1.0.conv1.weight'.

    Scalars without the prefix, such as the count of an averaged model, are dropped.
    """
    stripped = dict(tensors)
    # Wrappers nest, so prefixes are stripped until none is left.
    while prefix := next((p for p in _PREFIXES if _is_prefix(p, stripped)), None):
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items() if key.startswith(prefix)}
    return stripped


def _is_prefix(prefix: str, tensors: Mapping[str, np.ndarray]) -> bool:
    with_prefix = [key.startswith(prefix) for key in tensors]
    return any(with_prefix) and all(has or not np.ndim(v) for has, v in zip(with_prefix, tensors.values(), strict=True))


def write(path: str | Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None) -> None:
    """Writes {key: array} to a `.safetensors` file, with `about` as its metadata."""
    from safetensors.numpy import save_file  # imported late: few runs write weights

    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise UsageError(f'{path}: weights are written as .safetensors; give it that suffix')
    path.parent.mkdir(parents=True, exist_ok=True)
    # In C order, as the format stores arrays: kernels are transposed views.
    save_file({k: np.asarray(v, order='C') for k, v in tensors.items()}, path, dict(about or {}))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from ml_dtypes import bfloat16  # noqa: F401  numpy then knows the type
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='flax') as file:
            return {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CanonError(f'{path} cannot be read as safetensors: {error}') from error
    except (AttributeError, KeyError, TypeError):  # numpy has no name for the type
        return _deserialise(path)


def _deserialise(path: Path) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file with types that `safe_open` does not know, such as float8."""
    import ml_dtypes
    from safetensors import deserialize

    dtypes: dict[str, Any] = {
        'F64': np.float64,
        'F32': np.float32,
        'F16': np.float16,
        'BF16': ml_dtypes.bfloat16,
        'BOOL': bool,
    }
    dtypes |= {f'{kind}{bits}': f'{"u" * (kind == "U")}int{bits}' for kind in 'IU' for bits in (8, 16, 32, 64)}
    dtypes |= {name: getattr(ml_dtypes, ours) for name, ours in _FLOAT8.items()}
    tensors = {}
    for key, entry in deserialize(path.read_bytes()):
        if entry['dtype'] not in dtypes:
            raise CanonError(f'{path}: {key} is {entry["dtype"]}, which is not supported; convert it to a float type')
        tensors[key] = np.frombuffer(entry['data'], dtypes[entry['dtype']]).reshape(entry['shape'])
    return tensors


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        tensors = _load_torch(path)
    except Exception as error:
        raise CanonError(f'{path} cannot be read as a file of torch: {" ".join(str(error).split())[:200]}') from error
    tensors = _find_state_dict(tensors, path)
    if quantised := next((key for key, value in tensors.items() if getattr(value, 'is_quantized', False)), None):
        raise CanonError(f'{path}: {quantised} is quantised; give a file of floats')
    return {key: _array(value) for key, value in tensors.items()}


def _load_torch(path: Path) -> Any:
    try:
        import torch  # ty: ignore[import-not-found]
    except ImportError:
        from canon.weights.torch_files import load_torch_file

        return load_torch_file(path)
    return torch.load(path, map_location='cpu', weights_only=True)  # a pickle could run any code


def _array(tensor: Any) -> np.ndarray:
    """Converts floats of any width to float32, since numpy lacks torch's bfloat16 and float8; keeps integers."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _find_state_dict(stored: Any, path: Path) -> dict[str, Any]:
    """Finds {key: tensor} in the content of a `.pth`, which may nest it (`{'net': ..., 'epoch': 3}`).

    Of several mappings it returns the one with most tensors, and an average ('ema') only if there is no other.
    """
    if not isinstance(stored, Mapping):
        raise CanonError(f'{path} holds a {type(stored).__name__}, not a mapping of names to tensors')
    # `False` sorts first: an average comes after all others, whatever its size.
    mappings = sorted(_find_mappings(stored), key=lambda item: ('ema' in item[0], -len(item[1])))
    if not mappings:
        raise CanonError(f'{path} holds no tensors; its keys are {", ".join(map(str, list(stored)[:5])) or "none"}')
    return mappings[0][1]


def _find_mappings(stored: Mapping, key: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, its tensors) of `stored` and of the mappings within it, except an optimizer's."""
    tensors = {str(name): value for name, value in stored.items() if hasattr(value, 'detach')}
    if tensors:
        yield key, tensors
    for name, value in stored.items():
        if isinstance(value, Mapping) and 'optim' not in str(name):
            yield from _find_mappings(value, f'{key}.{name}')


def _parse_hub(source: str) -> tuple[str, str] | None:
    """Parses `OWNER/NAME[:FILE]` to (OWNER/NAME, FILE); None for what looks like a local path, though mistyped."""
    # A mistyped path must not become a request to the hub: a known suffix or an existing folder means a local file.
    match = re.fullmatch(r'(hub:)?(([\w-]+)/[\w.-]+?)(?::([\w./-]+))?', source)
    if not match or (not match[1] and (match[2].endswith(_SUFFIXES) or Path(match[3]).is_dir())):
        return None
    return match[2], match[4] or 'model.safetensors'


def _fetch(source: str) -> Path:
    repository = _parse_hub(source)
    assert repository is not None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(*repository))
    except Exception as error:
        text = ' '.join(str(error).split())[:200]
        raise CanonError(
            f'{repository[0]} ({repository[1]}) is not a local file and did not come from the hub: {text}'
        ) from error
