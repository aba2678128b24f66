"""Reads config files by path and checks what all experiments share; names the folders of runs."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from ml_collections import ConfigDict

from canon import named
from canon.errors import UsageError, describe_error
from canon.named import Count, Range, suggest

ROOT = Path(__file__).resolve().parents[1]

# --- files ----------------------------------------------------------------------------------------------------------


def split(source: str) -> tuple[Path, str]:
    """Splits `configs/x/y.py:smoke` into its path and its argument."""
    path, _, argument = source.partition(':')
    return Path(path), argument


def is_config(word: str) -> bool:
    """Returns whether a word of a command line has the form of a config, `FILE.py` or `FILE.py:ARG`."""
    return re.fullmatch(r'[^-].*\.py(:\w*)?', word) is not None


def find(root: Path = ROOT) -> list[str]:
    """Returns the paths of all config files, relative to the root."""
    return sorted(str(p.relative_to(root)) for p in root.glob('configs/**/*.py') if not p.name.startswith('_'))


def load_module(source: str) -> ModuleType:
    """Imports a config file; raises UsageError if it does not exist, cannot be imported or has no `get_config`."""
    path, _ = split(source)
    if not path.is_file():
        raise UsageError(f'no config at {path}{suggest(str(path), find())}')
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    if spec is None or spec.loader is None:
        raise UsageError(f'{path} is not a Python file; a config is a .py with get_config(arg)')
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f'{path} cannot be read: {describe_error(error)}') from error
    if not hasattr(module, 'get_config'):
        raise UsageError(f'{path} has no get_config(arg); a config file defines one')
    return module


def load(source: str) -> ConfigDict:
    """Returns the config of `FILE` or `FILE:ARG`; raises UsageError that names the file and the fix."""
    path, argument = split(source)
    module = load_module(source)
    get_config = module.get_config
    known = getattr(module, 'ARGUMENTS', ('smoke',))
    if argument and argument not in known:
        raise UsageError(f'{path} takes no argument {argument!r}{suggest(argument, known)}')
    if argument and not inspect.signature(get_config).parameters:
        raise UsageError(f'{path} takes no argument, so not {argument!r}: its get_config() has no parameter')
    try:
        config = get_config(argument) if argument else get_config()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f'{source}: get_config: {describe_error(error)}') from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f'{source}: get_config returns a ConfigDict, not {config!r:.60}')
    return config


def read_comments(source: str) -> dict[str, str]:
    """Returns {dotted key: the comment on its line or above it} of a config file and its shared ones (`_*.py`)."""
    path, _ = split(source)
    comments = {}
    for file in (*sorted(path.parent.glob('_*.py')), path):
        lines = file.read_text().splitlines()
        for node in ast.walk(ast.parse('\n'.join(lines))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'ConfigDict':
                comments |= dict(_comments_in(node, '', lines))
    return comments


def _comments_in(call: ast.Call, prefix: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    for argument in call.args:
        if isinstance(argument, ast.Call):
            yield from _comments_in(argument, prefix, lines)
    for keyword in call.keywords:
        key, line = f'{prefix}{keyword.arg}', keyword.lineno - 1
        above = lines[line - 1].strip() if line else ''
        trailing = re.search(r'\s# (.+)$', lines[(keyword.value.end_lineno or keyword.lineno) - 1])
        if trailing or above.startswith('# '):
            yield key, trailing[1] if trailing else above[2:]
        if isinstance(keyword.value, ast.Call):
            yield from _comments_in(keyword.value, f'{key}.', lines)


# --- checks ---------------------------------------------------------------------------------------------------------

_SECTIONS = ('data', 'input', 'loss', 'model', 'run', 'target', 'tx')
_HINTS = {  # of keys that experiments read themselves; signatures have those of named functions
    'experiment': str,
    'data.name': str,
    'data.batch_size': Count,
    'data.reading.threads': Annotated[int, Range(0, 256)],
    'data.reading.workers': Annotated[int, Range(0, 256)],
    'data.train.split': str,
    'model.name': str,
    'model.num_classes': Annotated[int, Range(1, 10_000_000)],  # the report lists the name of each class
    'target.metric': str,
    'target.at_least': float,
    'target.at_most': float,
}
_DTYPES = ('bfloat16', 'float16', 'float32', 'float64')


def check(config: ConfigDict) -> None:
    """Raises UsageError, naming the key, for sections and values that no experiment takes."""
    for key in _SECTIONS:
        if key in config and config[key] is not None and not isinstance(config[key], ConfigDict):
            raise UsageError(f'{key}={config[key]!r} must be a section, such as {key}=dict(...)')
    for key, hint in _HINTS.items():
        value = _get(config, key)
        if value is not None:
            named.check(value, hint, key)
    for key, value in _list_leaves(config):
        # No array has as many elements, and arithmetic on such a number overflows where no error names the key.
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(f'{key}={str(value)[:12]}... must be a whole number below 2^63')
        if key.startswith(('model.', 'tx.')) and key.endswith('dtype') and not _is_dtype(value):
            raise UsageError(f'{key}={value!r} is not a floating-point type{suggest(str(value), _DTYPES)}')
    if _get(config, 'run.mesh.data') == 0:
        raise UsageError('run.mesh.data=0 must be a number of devices, or -1 for all that are left')


def _is_dtype(value: Any) -> bool:
    return value is None or str(value) in _DTYPES


def _get(config: ConfigDict, key: str) -> Any:
    """Returns the value of a dotted key; None if there is none."""
    value: Any = config
    for part in key.split('.'):
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value


def _list_leaves(section: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key in section:
        value = section.get(key)
        if isinstance(value, ConfigDict):
            yield from _list_leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def find_missing_key(error: Exception, config: ConfigDict) -> str | None:
    """Returns the dotted key of `config` whose absence raised `error`; None if something else did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    frames = [f for f in frames if isinstance(f.f_locals.get('self'), ConfigDict)]
    if not isinstance(error, AttributeError | KeyError) or not frames:
        return None
    section = frames[-1].f_locals['self']
    name = frames[-1].f_locals.get('attribute') or frames[-1].f_locals.get('key')
    paths = [path for path, value in _list_sections(config, '') if value is section or value == section]
    return '.'.join(filter(None, (paths[0] if paths else '', str(name)))) if name else None


def _list_sections(config: ConfigDict, path: str) -> Iterator[tuple[str, ConfigDict]]:
    yield path, config
    for key in config:
        if isinstance(config[key], ConfigDict):
            yield from _list_sections(config[key], f'{path}.{key}'.strip('.'))


# --- folders of runs ------------------------------------------------------------------------------------------------


def run_folder(source: str | None, values: Mapping[str, Any], root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg]/<hash of the overrides>: the same words select the same folder and resume."""
    text = json.dumps(values, sort_keys=True, default=str)
    last = hashlib.sha256(text.encode()).hexdigest()[:8] if values else 'default'
    return config_folder(source or '', root) / last


def config_folder(source: str, root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg], the folder with the runs of one config."""
    path, argument = split(source)
    return root / path.absolute().parent.name / (path.stem + (f'-{argument}' if argument else ''))
