"""Overrides of a config, `--config.KEY=VALUE`: read from flags, checked against signatures and applied.

A key is one that the config has, or any optional argument of the function that its section names: `tx.b1` where
`tx.name` is 'adam'. Another name drops the arguments of the function that it replaces, another chain the links that
it leaves out; a number may replace a schedule, and a schedule (`tx.learning_rate.name=cosine`) a number.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from canon import named
from canon.errors import UsageError
from experiments import configs

Pairs = Sequence[tuple[str, str]]
_FLAG = re.compile(r'--?(no)?config\.(.+)', re.DOTALL)
_TRUTH = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}


def load(source: str | None, workdir: str | None = None) -> ConfigDict:
    """The config of a file, or the one that a run was made from, unlocked, with all the keys of `run`."""
    from canon.train.settings import overridable

    if source is not None:
        config = configs.load(source)
    else:
        path = Path(workdir or '.').expanduser() / 'config.json'
        if not path.is_file():
            raise UsageError(f'{path.parent} holds no run (no config.json); give --config=FILE, or the folder of a run')
        try:
            config = ConfigDict(json.loads(path.read_text(), object_hook=_with_placeholders))
        except (ValueError, TypeError) as error:
            raise UsageError(f'{path} is damaged, so give --config=FILE as well: {error}') from error
    config.unlock()
    config.run = ConfigDict(overridable(config.get('run') or {}))
    return config


def _with_placeholders(part: dict[str, Any]) -> dict[str, Any]:
    """JSON's null as a key that the command line may set."""
    return {key: placeholder(str) if value is None else value for key, value in part.items()}


def read_flags(words: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(key, text) of each override in `words`, the last of every key, and the other words.

    `--config.KEY=VALUE`, `--config.KEY VALUE`; `--config.KEY` is true and `--noconfig.KEY` false.
    """
    pairs: dict[str, str] = {}
    rest = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        match = _FLAG.fullmatch(word)
        if not match:
            rest.append(word)
            continue
        key, equals, text = match[2].partition('=')
        if not equals:
            text = 'false' if match[1] else 'true'
            if not match[1] and waiting and _is_value(waiting[0]):
                text = waiting.pop(0)
        pairs.pop(key, None)
        pairs[key] = text
    return list(pairs.items()), rest


def _is_value(word: str) -> bool:
    """Whether a word after `--config.KEY` is its value: neither a flag nor the config file."""
    return not re.match(r'-[^\d.]|--', word) and not configs.is_config(word)


def apply(config: ConfigDict, pairs: Pairs) -> dict[str, Any]:
    """Changes `config` in place; returns {key: value} in the order given.

    Names and chains come first, since they decide which arguments there are; then outer keys before inner ones.
    """
    keys = [key for key, _ in pairs]
    for key in keys:
        outer = next((other for other in keys if key.startswith(f'{other}.')), None)
        if outer is not None:
            raise UsageError(f'--config.{outer} replaces what --config.{key} changes: give one of them')
    values = {}
    for key, text in sorted(pairs, key=_order):
        with config.unlocked():
            values[key] = _set(config, key, text)
    return {key: values[key] for key in keys}


def _order(pair: tuple[str, str]) -> tuple[bool, int]:
    key = pair[0]
    return key.rpartition('.')[2] not in ('name', 'chain'), key.count('.')


def stated_keys(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Every dotted key of the config with its value, sections too."""
    keys = {}
    for name in config:
        key, value = prefix + name, config[name]
        keys[key] = value
        if isinstance(value, ConfigDict):
            keys |= stated_keys(value, f'{key}.')
    return keys


def known_keys(config: ConfigDict) -> dict[str, Any]:
    """Every key that may be set, with its value: those of the config and those that signatures add."""
    keys = stated_keys(config)
    for key in [k for k, v in keys.items() if isinstance(v, ConfigDict)]:
        function = function_at(config, key)
        for p in named.parameters(function) if function else ():
            if p.default is not p.empty:
                keys.setdefault(f'{key}.{p.name}', p.default)
    return keys


_SHARED = {
    'experiment': 'the module of experiments/ that makes it',
    'seed': 'of everything random: initialisation, order, augmentation, dropout',
    'data.name': 'a data set, or my_package.module:function',
    'data.data_dir': 'where prepared data sets are',
    'data.batch_size': 'examples of one step, over all devices and processes',
    'data.reading.threads': 'threads that read examples',
    'data.reading.workers': 'processes that read examples; 0 reads in threads of this one',
    'input.mean': 'subtracted from pixels in [0, 1], one value or one per channel',
    'input.std': 'divides them',
    'model.name': 'a function of canon.models (./launch.sh models), or my_package.module:function',
    'tx.name': 'a function of canon.optim, optax.NAME, or my_package.module:function',
    'tx.learning_rate': 'a number, or a schedule: tx.learning_rate.name=cosine and its arguments',
}


def describe(config: ConfigDict, source: str) -> list[str]:
    """A line for every key that may be set, sorted: its value, and what it is, as far as that is written anywhere."""
    comments = configs.read_comments(source)
    stated = stated_keys(config)
    lines = [f'The keys of {source} (* left to the default of the function that the section names):', '']
    for key, value in sorted(known_keys(config).items()):
        if isinstance(value, ConfigDict):
            continue
        path, _, name = key.rpartition('.')
        function = _settings_at(path) or (function_at(config, path) if path else None)
        text = comments.get(key) or (_argument_doc(function, name) if function else '') or _SHARED.get(key)
        value = value if isinstance(value, bool | int | float | str | tuple | None) else '...'
        star = '' if key in stated else '*'
        lines.append(f'  --config.{key}={value}{star}' + (f'\n      {text}' if text else ''))
    return lines


def _settings_at(path: str) -> type | None:
    """The class of `canon.train.settings` that documents the keys of a section of `run`."""
    from canon.train import settings

    if path == 'run':
        return settings.Settings
    if path.startswith('run.evals.'):
        return settings.Eval
    if not path.startswith('run.'):
        return None
    hint = named.type_hints(settings.Settings).get(path.removeprefix('run.'))
    return next((kind for kind in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(kind)), None)


def _argument_doc(function: Callable, name: str) -> str:
    """Returns what the docstring has after `name: `, or nothing."""
    text = ' '.join(inspect.cleandoc(function.__doc__ or '').split())
    match = re.search(rf'(?:^|[.;:] )(?:\w+, )*{name}(?:, \w+)*: (.+?)(?=[.;](?: |$)|$)', text)
    return match[1] if match else ''


def _unknown(config: ConfigDict, key: str) -> UsageError:
    """The error about a key that does not exist: the near ones, or else those of its section."""
    keys = list(known_keys(config))
    section = key.rpartition('.')[0]
    hint = named.suggest(key, [k for k in keys if not key.startswith(f'{k}.')])
    if 'did you mean' not in hint:
        while section and section not in keys:
            section = section.rpartition('.')[0]
        hint = named.suggest('', [k for k in keys if k.rpartition('.')[0] == section])
    return UsageError(f'the config has no key {key!r}{hint}')


def _set(config: ConfigDict, key: str, text: str) -> Any:
    parent, name = _section(config, key)
    path = key.rpartition('.')[0]
    function = function_at(config, path) if path else None
    present = name in parent
    if not present and not _is_new(parent, path, name, function):
        raise _unknown(config, key)
    value = _parse(text, _kinds(parent, name, function), key)
    if isinstance(parent.get(name), ConfigDict) and not isinstance(value, dict) and not _replaceable(function, name):
        raise UsageError(f'--config.{key}={text}: {key} is a section; its keys are {", ".join(parent[name])}')
    before = (parent.to_dict(), function)
    _put(parent, name, value)
    if name == 'name' and before[0].get('name') != value:
        _drop_arguments(config, path, parent, *before)
    if name == 'chain':
        links = before[0].get('chain', ())
        for other in [k for k in parent if k != 'chain' and (k in links or _family(path) is not None)]:
            if other not in value:
                del parent[other]
    return value


def _drop_arguments(config: ConfigDict, path: str, section: ConfigDict, before: dict, function: Callable | None):
    """Deletes what belonged to the function, or to the chain, that another name has replaced."""
    if _family(path) is not None and 'chain' in before:
        for key in {'chain', *before['chain']} & set(section):
            del section[key]
    replacement = function_at(config, path)
    if replacement is None or function is None:
        return
    for key in {p.name for p in named.parameters(function)} & set(section) - {'name'}:
        if not named.accepts(replacement, key):
            del section[key]


def _section(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The section that holds `key`, made where a signature or a chain allows one, and the last part of the key."""
    *path, name = key.split('.')
    section, where = config, ''
    for part in path:
        inner = section.get(part)
        if not isinstance(inner, ConfigDict):
            function = function_at(config, where) if where else None
            if part not in section.get('chain', ()) and not _replaceable(function, part):
                raise _unknown(config, key)
            inner = ConfigDict()
            _put(section, part, inner)
        section, where = section[part], f'{where}.{part}'.lstrip('.')
    return section, name


def _is_new(parent: ConfigDict, path: str, name: str, function: Callable | None) -> bool:
    """Whether a section may be given the key `name`, which it does not have."""
    if name in parent.get('chain', ()) or (name in ('name', 'chain') and _family(path) is not None):
        return True
    if name == 'name' and function is not None:  # of the first of several functions, which needs no name
        return True
    return function is not None and named.accepts(function, name) and 'chain' not in parent


def _replaceable(function: Callable | None, name: str) -> bool:
    """Whether the argument may be a number as well as something made, such as a schedule."""
    if function is None or name not in {p.name for p in named.parameters(function)}:
        return False
    return object in named.plain_types(named.type_hints(function).get(name, Any))


def _put(section: ConfigDict, name: str, value: Any) -> None:
    try:
        section[name] = value
    except (TypeError, ValueError):  # a ConfigDict holds on to the type of the first value
        del section[name]
        section[name] = value


def _kinds(parent: ConfigDict, name: str, function: Callable | None) -> list[set[type]]:
    """Sets of types that the value may have, the first that takes it decides: the config's, then the signature's."""
    from canon.train import lengths

    kinds: list[set[type]] = []
    if name in parent:
        kind = parent.get_type(name)
        if not issubclass(kind, ConfigDict):
            kinds.append({tuple if kind is list else kind})
    if function is not None and name in {p.name for p in named.parameters(function)}:
        kinds.append(named.plain_types(named.type_hints(function).get(name, Any)))
    if name in lengths.KEYS and kinds:
        kinds.append({str})
    unstated: dict[str, type] = {'name': str, 'chain': tuple}
    return kinds or [{unstated.get(name, object)}]


def _parse(text: str, kinds: list[set[type]], key: str) -> Any:
    for allowed in kinds:
        for read in (_read_none, _read_bool, _read_int, _read_float, _read_tuple, _read_literal, _read_text):
            try:
                return read(text, allowed)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    words = dict.fromkeys(named.describe(kind) for allowed in kinds for kind in sorted(allowed, key=str))
    raise UsageError(f'--config.{key}={text}: must be {" or ".join(words)}')


def _allow(kind: type, allowed: set[type]) -> None:
    if kind not in allowed:
        raise ValueError


def _read_none(text: str, allowed: set[type]) -> None:
    _allow(type(None), allowed)
    if text.lower() != 'none':
        raise ValueError


def _read_bool(text: str, allowed: set[type]) -> bool:
    _allow(bool, allowed)
    if text.lower() not in _TRUTH:
        raise ValueError
    return _TRUTH[text.lower()]


def _read_int(text: str, allowed: set[type]) -> int:
    _allow(int, allowed)
    return int(text)


def _read_float(text: str, allowed: set[type]) -> float:
    _allow(float, allowed)
    return float(text)


def _read_tuple(text: str, allowed: set[type]) -> tuple:
    """`(1, 2)`, `[1, 2]`, `1` alone; and words without quotes, `resize,random_flip`."""
    _allow(tuple, allowed)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if not re.fullmatch(r'\(?[^()\[\]{}]*\)?', text.strip()):
            raise  # nested, and not Python
        value = tuple(_literal(word.strip()) for word in text.strip('()[] ').split(',') if word.strip())
    return named.to_plain(value) if isinstance(value, tuple | list) else (value,)


def _read_literal(text: str, allowed: set[type]) -> Any:
    if not allowed & {object, dict}:
        raise ValueError
    value = _literal(text)
    if object not in allowed and not isinstance(value, dict):
        raise ValueError
    return named.to_plain(value)


def _read_text(text: str, allowed: set[type]) -> str:
    _allow(str, allowed)
    return text


def _literal(text: str) -> Any:
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# --- which function a section names ------------------------------------------------------------------------------


def function_at(config: ConfigDict, path: str) -> Callable | None:
    """The function whose arguments the section at `path` holds; None where it names none, or none that exists."""
    find = _own_section(config, path) or _family(path)
    if path == 'data.source' and isinstance(config.data.get('source'), ConfigDict):
        from canon.data.pipeline import loading

        return _found(lambda: loading.DATA_SETS.get(str(config.data.get('name'))))
    if find is None:
        return None
    section = config
    for part in path.split('.'):
        section = section.get(part)
        if not isinstance(section, ConfigDict):
            return None
    if isinstance(find, dict):  # functions by name, the first where the section has none
        return find.get(section.get('name') or next(iter(find)))
    if section.get('chain') is not None:
        return None
    return find(section.get('name') or path.rpartition('.')[2])


def _family(path: str) -> Callable[[str], Callable | None] | None:
    """Returns the function that looks up names in the section `path`, of the kinds that all experiments share."""
    root = path.partition('.')[0]
    if path == 'model':
        return _find_model
    if root in ('tx', 'rivals') and path != 'rivals':
        return _find_optimizer
    if 'transforms' in path.split('.'):
        return _find_transform
    return None


def _own_section(config: ConfigDict, path: str) -> dict[str, Callable] | None:
    """The functions by name of one of the experiment's own sections, from its `SECTIONS`, {path: functions}.

    A part of the path may be `*`: 'data.evals.*'.
    """
    try:
        module = importlib.import_module(f'experiments.{config.get("experiment")}')
    except ImportError:
        return None
    sections = getattr(module, 'SECTIONS', {}).items()
    return next((f for pattern, f in sections if _matches(path, pattern)), None)


def arguments_of(*functions: Callable, without: Iterable[str] = ()) -> Callable:
    """Returns a stand-in for `SECTIONS` that has the arguments of all `functions` except `without`.

    It is for a section whose keys go to several functions, or to one that is also given arguments by the experiment.
    """
    hints = {name: hint for function in functions for name, hint in named.type_hints(function).items()}
    parameters = {p.name: p for function in functions for p in named.parameters(function) if p.name not in without}

    def settings(**_: Any) -> None:
        """Replaced below."""

    documented = [f.__init__ if inspect.isclass(f) and not dataclasses.is_dataclass(f) else f for f in functions]
    settings.__doc__ = '\n\n'.join(inspect.cleandoc(f.__doc__ or '') for f in documented)
    settings.__annotations__ = {name: hints.get(name, Any) for name in parameters}
    keyword_only = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters.values()]
    settings.__signature__ = inspect.Signature(keyword_only)  # ty: ignore[unresolved-attribute]
    return settings


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split('.'), pattern.split('.')
    return len(parts) == len(wanted) and all(w in ('*', p) for p, w in zip(parts, wanted, strict=True))


def _find_model(name: str) -> Callable | None:
    return _found(lambda: named.lookup('canon.models', name, 'model'))


def _find_optimizer(name: str) -> Callable | None:
    from canon.optim import factory

    return _found(lambda: factory.find(name))


def _find_transform(name: str) -> Callable | None:
    from canon.data import transforms

    return _found(lambda: transforms.find(name))


def _found(find: Callable[[], Callable | None]) -> Callable | None:
    try:
        return find()
    except UsageError:
        return None
