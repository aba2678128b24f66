"""Overrides of a config, `--config.KEY=VALUE`: read from flags, checked against signatures and applied.

A key is one that the config has, or any optional argument of the function that its section names: `tx.b1` if
`tx.name` is 'adam'. A new name drops the arguments that only the old function takes, a new chain the links that it
leaves out. A number may replace a schedule, and a schedule (`tx.learning_rate.name=cosine`) a number.
"""

from __future__ import annotations

import dataclasses
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
from experiments.sections import find_by_name, find_function

Pairs = Sequence[tuple[str, str]]
_FLAG = re.compile(r'--?(no)?config\.(.+)', re.DOTALL)
arguments_of = named.combine_arguments  # the old name, until no experiment uses it


def load(source: str | None, workdir: str | None = None) -> ConfigDict:
    """Returns the config of a file, or of the run in `workdir`, unlocked, with all keys of `run`."""
    from canon.train.settings import overridable

    if source is not None:
        config = configs.load(source)
    else:
        path = Path(workdir or '.').expanduser() / 'config.json'
        if not path.is_file():
            raise UsageError(f'{path.parent} holds no run (no config.json); give --config=FILE, or the folder of a run')
        try:
            config = ConfigDict(json.loads(path.read_text(), object_hook=_replace_nulls))
        except (ValueError, TypeError) as error:
            raise UsageError(f'{path} is damaged, so give --config=FILE as well: {error}') from error
    config.unlock()
    config.run = ConfigDict(overridable(config.get('run') or {}))
    return config


def _replace_nulls(section: dict[str, Any]) -> dict[str, Any]:
    """Makes each null of JSON a key that the command line may set."""
    return {key: placeholder(str) if value is None else value for key, value in section.items()}


# --- flags ----------------------------------------------------------------------------------------------------------


def read_flags(words: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns (key, text) of each override in `words`, the last for every key, and the other words.

    The forms are `--config.KEY=VALUE`, `--config.KEY VALUE`, `--config.KEY` for true and `--noconfig.KEY` for false.
    """
    pairs: dict[str, str] = {}
    others = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        match = _FLAG.fullmatch(word)
        if not match:
            others.append(word)
            continue
        key, equals, text = match[2].partition('=')
        if not equals:
            text = 'false' if match[1] else 'true'
            if not match[1] and remaining and _is_value(remaining[0]):
                text = remaining.pop(0)
        pairs.pop(key, None)  # the order is that of the last mention
        pairs[key] = text
    return list(pairs.items()), others


def _is_value(word: str) -> bool:
    """Returns whether a word after `--config.KEY` is its value: neither a flag nor the config file."""
    return not re.match(r'-[^\d.]|--', word) and not configs.is_config(word)


# --- application ----------------------------------------------------------------------------------------------------


def apply(config: ConfigDict, pairs: Pairs) -> dict[str, Any]:
    """Applies (key, text) pairs to `config` in place; returns {key: value} in their order.

    Raises UsageError, with the near keys, for a key that neither the config nor a signature has, and for a value of the
    wrong type.
    """
    keys = [key for key, _ in pairs]
    for key in keys:
        outer = next((other for other in keys if key.startswith(f'{other}.')), None)
        if outer is not None:
            raise UsageError(f'--config.{outer} replaces what --config.{key} changes: give one of them')
    values = {}
    for key, text in sorted(pairs, key=_priority):
        with config.unlocked():
            values[key] = _set(config, key, text)
    return {key: values[key] for key in keys}


def _priority(pair: tuple[str, str]) -> tuple[bool, int]:
    """Sorts names and chains first, since they decide which arguments exist; then outer keys before inner ones."""
    key = pair[0]
    return key.rpartition('.')[2] not in ('name', 'chain'), key.count('.')


def _set(config: ConfigDict, key: str, text: str) -> Any:
    section, name = _find_section(config, key)
    path = key.rpartition('.')[0]
    function = find_function(config, path) if path else None
    if name not in section and not _may_add(section, path, name, function):
        raise _unknown_key(config, key)
    value = named.parse_text(text, _allowed_types(section, name, function), f'--config.{key}')
    current = section.get(name)
    if isinstance(current, ConfigDict) and not isinstance(value, dict) and not _takes_number_or_section(function, name):
        raise UsageError(f'--config.{key}={text}: {key} is a section; its keys are {", ".join(current)}')
    before = section.to_dict()
    _put(section, name, value)
    if name == 'name' and before.get('name') != value:
        _drop_arguments(config, path, section, before, function)
    if name == 'chain':
        links = before.get('chain', ())
        for other in [k for k in section if k != 'chain' and (k in links or find_by_name(path) is not None)]:
            if other not in value:
                del section[other]
    return value


def _find_section(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """Returns the section that holds `key` and the last part of the key; adds sections that a signature allows."""
    *path, name = key.split('.')
    section, where = config, ''
    for part in path:
        if not isinstance(section.get(part), ConfigDict):
            function = find_function(config, where) if where else None
            if part not in section.get('chain', ()) and not _takes_number_or_section(function, part):
                raise _unknown_key(config, key)
            _put(section, part, ConfigDict())
        section, where = section[part], f'{where}.{part}'.lstrip('.')
    return section, name


def _may_add(section: ConfigDict, path: str, name: str, function: Callable | None) -> bool:
    """Returns whether a section may be given the key `name`, which it does not have."""
    if name in section.get('chain', ()) or (name in ('name', 'chain') and find_by_name(path) is not None):
        return True
    if name == 'name' and function is not None:  # the section had the first of several functions, which needs no name
        return True
    return function is not None and named.accepts(function, name) and 'chain' not in section


def _takes_number_or_section(function: Callable | None, name: str) -> bool:
    """Returns whether an argument may be a number as well as something made, such as a schedule."""
    if function is None or name not in {p.name for p in named.parameters(function)}:
        return False
    return object in named.plain_types(named.type_hints(function).get(name, Any))


def _put(section: ConfigDict, name: str, value: Any) -> None:
    try:
        section[name] = value
    except (TypeError, ValueError):  # a ConfigDict keeps the type of the first value
        del section[name]
        section[name] = value


def _drop_arguments(config: ConfigDict, path: str, section: ConfigDict, before: dict, function: Callable | None):
    """Deletes the arguments of the function, or the links of the chain, that another name has replaced."""
    if find_by_name(path) is not None and 'chain' in before:
        for key in {'chain', *before['chain']} & set(section):
            del section[key]
    replacement = find_function(config, path)
    if replacement is None or function is None:
        return
    for key in {p.name for p in named.parameters(function)} & set(section) - {'name'}:
        if not named.accepts(replacement, key):
            del section[key]


def _allowed_types(section: ConfigDict, name: str, function: Callable | None) -> list[set[type]]:
    """Returns the types that a value may have, in the order of trial: the config's, then the signature's."""
    from canon.train import lengths

    types: list[set[type]] = []
    if name in section:
        current = section.get_type(name)
        if not issubclass(current, ConfigDict):
            types.append({tuple if current is list else current})
    if function is not None and name in {p.name for p in named.parameters(function)}:
        types.append(named.plain_types(named.type_hints(function).get(name, Any)))
    if name in lengths.KEYS and types:
        types.append({str})  # '2 epochs'
    defaults: dict[str, type] = {'name': str, 'chain': tuple}
    return types or [{defaults.get(name, object)}]


# --- keys -----------------------------------------------------------------------------------------------------------


def stated_keys(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Returns {dotted key: value} of the config, sections included."""
    keys = {}
    for name in config:
        key, value = prefix + name, config[name]
        keys[key] = value
        if isinstance(value, ConfigDict):
            keys |= stated_keys(value, f'{key}.')
    return keys


def known_keys(config: ConfigDict) -> dict[str, Any]:
    """Returns {dotted key: value} of every key that may be set: those of the config and those that signatures add."""
    keys = stated_keys(config)
    for key in [k for k, v in keys.items() if isinstance(v, ConfigDict)]:
        function = find_function(config, key)
        for p in named.parameters(function) if function else ():
            if p.default is not p.empty:
                keys.setdefault(f'{key}.{p.name}', p.default)
    return keys


def _unknown_key(config: ConfigDict, key: str) -> UsageError:
    """Returns the error for a key that does not exist: with the near ones, or else those of its section."""
    keys = list(known_keys(config))
    section = key.rpartition('.')[0]
    hint = named.suggest(key, [k for k in keys if not key.startswith(f'{k}.')])
    if 'did you mean' not in hint:
        while section and section not in keys:
            section = section.rpartition('.')[0]
        hint = named.suggest('', [k for k in keys if k.rpartition('.')[0] == section])
    return UsageError(f'the config has no key {key!r}{hint}')


_DESCRIPTIONS = {  # of keys that no signature documents
    'experiment': 'the module of experiments/ that makes it',
    'seed': 'of everything random: initialisation, order, augmentation, dropout',
    'data.name': 'a data set, or my_package.module:function',
    'data.data_dir': 'where prepared data sets are',
    'data.batch_size': 'examples per step, over all devices and processes',
    'data.reading.threads': 'threads that read examples',
    'data.reading.workers': 'processes that read examples; 0 reads in threads of this one',
    'input.mean': 'subtracted from pixels in [0, 1], one value or one per channel',
    'input.std': 'divides them',
    'model.name': 'a function of canon.models (./launch.sh models), or my_package.module:function',
    'tx.name': 'a function of canon.optim, optax.NAME, or my_package.module:function',
    'tx.learning_rate': 'a number, or a schedule: tx.learning_rate.name=cosine and its arguments',
}


def describe(config: ConfigDict, source: str) -> list[str]:
    """Returns sorted lines for --help: every key that may be set, its value, and what is documented about it."""
    comments = configs.read_comments(source)
    stated = stated_keys(config)
    lines = [f'The keys of {source} (* the default of the function that the section names):', '']
    for key, value in sorted(known_keys(config).items()):
        if isinstance(value, ConfigDict):
            continue
        path, _, name = key.rpartition('.')
        function = _settings_class(path) or (find_function(config, path) if path else None)
        text = comments.get(key) or (_argument_doc(function, name) if function else '') or _DESCRIPTIONS.get(key)
        value = value if isinstance(value, bool | int | float | str | tuple | None) else '...'
        star = '' if key in stated else '*'
        lines.append(f'  --config.{key}={value}{star}' + (f'\n      {text}' if text else ''))
    return lines


def _settings_class(path: str) -> type | None:
    """Returns the class of `canon.train.settings` that documents the keys of a section of `run`."""
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
    """Returns the text after `name: ` in a docstring up to the end of its sentence, or ''."""
    text = ' '.join(inspect.cleandoc(function.__doc__ or '').split())
    match = re.search(rf'(?:^|[.;:] )(?:\w+, )*{name}(?:, \w+)*: (.+?)(?=[.;](?: |$)|$)', text)
    return match[1] if match else ''
