"""Config files by path, and overrides as the flags that state them: what main and the tools around it share."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from ml_collections import ConfigDict

from canon import named
from canon.errors import UsageError, describe_error
from canon.named import Count, Range, near

ROOT = Path(__file__).resolve().parents[1]


def split(source: str) -> tuple[Path, str]:
    """`configs/x/y.py:smoke` as its path and its argument."""
    path, _, argument = source.partition(':')
    return Path(path), argument


def is_config(word: str) -> bool:
    """Whether a word of a command line has the form of a config, `FILE.py` or `FILE.py:ARG`."""
    return re.fullmatch(r'[^-].*\.py(:\w*)?', word) is not None


def find(root: Path = ROOT) -> list[str]:
    """Every config file, as one would type it from the root."""
    return sorted(str(p.relative_to(root)) for p in root.glob('configs/**/*.py') if not p.name.startswith('_'))


def module(source: str) -> ModuleType:
    """The config file as a module."""
    path, _ = split(source)
    if not path.is_file():
        raise UsageError(f'no config at {path}{near(str(path), find())}')
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    if spec is None or spec.loader is None:
        raise UsageError(f'{path} is no Python file; a config is a .py with get_config(arg)')
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise UsageError(f'{path} cannot be read: {describe_error(error)}') from error
    if not hasattr(loaded, 'get_config'):
        raise UsageError(f'{path} has no get_config(arg); a config file defines one')
    return loaded


def load(source: str) -> ConfigDict:
    """The config of `FILE` or `FILE:ARG`; raises UsageError, naming the file and the mend."""
    path, argument = split(source)
    loaded = module(source)
    get_config = loaded.get_config
    known = getattr(loaded, 'ARGUMENTS', ('smoke',))
    if argument and argument not in known:
        raise UsageError(f'{path} takes no argument {argument!r}{near(argument, known)}')
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


SECTIONS = ('data', 'input', 'loss', 'model', 'run', 'target', 'tx')
_HINTS = {  # of keys that experiments read by themselves; arguments of named functions have theirs in signatures
    'experiment': str,
    'data.name': str,
    'data.batch_size': Count,
    'data.reading.threads': Annotated[int, Range(0, 256)],
    'data.reading.workers': Annotated[int, Range(0, 256)],
    'data.train.split': str,
    'model.name': str,
    'model.num_classes': Annotated[int, Range(1, 10_000_000)],  # each has a name in the report
    'target.metric': str,
    'target.at_least': float,
    'target.at_most': float,
}
_DTYPES = ('bfloat16', 'float16', 'float32', 'float64')


def check(config: ConfigDict) -> None:
    """Raises UsageError, naming the key, for sections and values that no experiment takes."""
    for key in SECTIONS:
        if key in config and config[key] is not None and not isinstance(config[key], ConfigDict):
            raise UsageError(f'{key}={config[key]!r} must be a section, such as {key}=dict(...)')
    for key, hint in _HINTS.items():
        value = _at(config, key)
        if value is not None:
            named.check(value, hint, key)
    _check_whole_numbers(config)
    if _at(config, 'run.mesh.data') == 0:
        raise UsageError('run.mesh.data=0 must be a number of devices, or -1 for all that are left')
    for section in ('model', 'tx'):
        _check_dtypes(config.get(section), section)


def _at(config: ConfigDict, key: str) -> Any:
    value: Any = config
    for part in key.split('.'):
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value


def _check_whole_numbers(section: Any, path: str = '') -> None:
    """No array has so many elements, and no count comes to it; what computes with one overflows somewhere."""
    for key in section:
        value, where = section.get(key), f'{path}{key}'
        if isinstance(value, ConfigDict):
            _check_whole_numbers(value, f'{where}.')
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(f'{where}={str(value)[:12]}... must be a whole number below 2^63')


def _check_dtypes(section: Any, path: str) -> None:
    for key in section or ():
        value, where = section[key], f'{path}.{key}'
        if isinstance(value, ConfigDict):
            _check_dtypes(value, where)
        elif key.endswith('dtype') and value is not None and str(value) not in _DTYPES:
            raise UsageError(f'{where}={value!r} is not a floating-point type{named.near(str(value), _DTYPES)}')


def missing_key(error: Exception, config: ConfigDict) -> str | None:
    """The dotted key of `config` that was read in vain, if that is what raised `error`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    frames = [f for f in frames if isinstance(f.f_locals.get('self'), ConfigDict)]
    if not isinstance(error, AttributeError | KeyError) or not frames:
        return None
    section = frames[-1].f_locals['self']
    name = frames[-1].f_locals.get('attribute') or frames[-1].f_locals.get('key')
    paths = [path for path, value in _sections(config, '') if value is section or value == section]
    return '.'.join(filter(None, (paths[0] if paths else '', str(name)))) if name else None


def _sections(config: ConfigDict, path: str) -> list[tuple[str, ConfigDict]]:
    below = [(f'{path}.{key}'.strip('.'), config[key]) for key in config if isinstance(config[key], ConfigDict)]
    return [(path, config), *(pair for inner, section in below for pair in _sections(section, inner))]


def comments(source: str) -> dict[str, str]:
    """{dotted key: the comment beside or above it} of the file and of the shared ones of its folder (`_*.py`)."""
    path, _ = split(source)
    texts = {}
    for file in (*sorted(path.parent.glob('_*.py')), path):
        lines = file.read_text().splitlines()
        for node in ast.walk(ast.parse('\n'.join(lines))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'ConfigDict':
                texts |= _comments_below(node, '', lines)
    return texts


def _comments_below(call: ast.Call, prefix: str, lines: list[str]) -> dict[str, str]:
    texts = {}
    for inner in call.args:
        if isinstance(inner, ast.Call):
            texts |= _comments_below(inner, prefix, lines)
    for keyword in call.keywords:
        key, line = f'{prefix}{keyword.arg}', keyword.lineno - 1
        above = lines[line - 1].strip() if line else ''
        beside = re.search(r'\s# (.+)$', lines[(keyword.value.end_lineno or keyword.lineno) - 1])
        if beside or above.startswith('# '):
            texts[key] = beside[1] if beside else above[2:]
        if isinstance(keyword.value, ast.Call):
            texts |= _comments_below(keyword.value, f'{key}.', lines)
    return texts


def run_folder(source: str | None, values: Mapping[str, Any], root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg]/<hash of the overrides>: the same words select the same folder and resume."""
    text = json.dumps(values, sort_keys=True, default=str)
    last = hashlib.sha256(text.encode()).hexdigest()[:8] if values else 'default'
    return config_folder(source or '', root) / last


def config_folder(source: str, root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg], the folder with the runs of one config."""
    path, argument = split(source)
    return root / path.absolute().parent.name / (path.stem + (f'-{argument}' if argument else ''))
