"""Files of weights: `.safetensors`, torch's `.pth`, and repositories of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from canon.errors import CanonError, UsageError

_TORCH = ('.pth', '.pt', '.bin')
_SUFFIXES = ('.safetensors', *_TORCH)
_NESTED = ('state_dict', 'model_state_dict', 'model', 'state_dict_ema')


def is_weights(source: str | Path) -> bool:
    """Is it a file of weights, or OWNER/NAME[:FILE] of the hub, and no folder here?"""
    path = Path(source).expanduser()
    return not path.is_dir() and (path.suffix in _SUFFIXES or (not path.exists() and _hub(str(source)) is not None))


def read(source: str | Path) -> dict[str, np.ndarray]:
    """{key: array} of a `.safetensors` file, a `.pth` (where torch is installed), or OWNER/NAME[:FILE] of the hub.

    FILE is `model.safetensors` without. Raises UsageError for a file that is not there or not of these kinds,
    CanonError for one that cannot be read or fetched.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if path.suffix in _SUFFIXES and _hub(str(source)) is None:
            raise UsageError(f'{source} does not exist')
        path = _fetched(str(source))
    if path.suffix == '.safetensors':
        return _safetensors(path)
    if path.suffix in _TORCH:
        return _torch(path)
    raise UsageError(f'{source} is no file of weights; give {", ".join(_SUFFIXES)} or OWNER/NAME of the hub')


def write(path: str | Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None) -> None:
    """A `.safetensors` file of {key: array}; `about` goes into its header."""
    from safetensors.numpy import save_file

    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise UsageError(f'{path}: weights are written as .safetensors; name it so')
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, dict(about or {}))


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from ml_dtypes import bfloat16  # noqa: F401  numpy then knows the type
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='flax') as file:
            return {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CanonError(f'{path} cannot be read as safetensors: {error}') from error


def _torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # ty: ignore[import-not-found]
    except ImportError as error:
        raise UsageError(f'{path} takes torch to read: install it, or convert the file to .safetensors') from error
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise CanonError(f'{path} cannot be read by torch: {" ".join(str(error).split())[:200]}') from error
    for key in _NESTED:
        if isinstance(tensors, Mapping) and isinstance(tensors.get(key), Mapping):
            tensors = tensors[key]
    return {k.removeprefix('module.'): v.float().numpy() for k, v in tensors.items() if hasattr(v, 'numpy')}


def _hub(source: str) -> tuple[str, str] | None:
    """(OWNER/NAME, FILE) of `OWNER/NAME` or `OWNER/NAME:FILE`."""
    found = re.fullmatch(r'(?:hub:)?([\w-]+/[\w.-]+?)(?::([\w./-]+))?', source)
    return (found[1], found[2] or 'model.safetensors') if found else None


def _fetched(source: str) -> Path:
    named = _hub(source)
    if named is None:
        raise UsageError(f'{source} is neither a file here nor OWNER/NAME of the hub')
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(*named))
    except Exception as error:
        text = ' '.join(str(error).split())[:200]
        raise CanonError(f'{named[0]} ({named[1]}) is no file here and did not come from the hub: {text}') from error
