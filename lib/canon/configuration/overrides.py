"""Overrides of a config, `--config.KEY=VALUE`: read from flags, checked against signatures and applied.

A key is one that the config has, or any optional argument of the function that its section names: `tx.b1` if
`tx.name` is 'adam'. A new name drops the arguments that only the old function takes, a new chain the links that it
leaves out. A number may replace a schedule, and a schedule (`tx.learning_rate.name=cosine`) a number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.files import is_config
from canon.configuration.nested import get_value
from canon.configuration.sections import find_by_name, find_function, is_bound
from canon.errors import UsageError

Pairs = Sequence[tuple[str, str]]
_Find = Callable[[str], Callable | None]  # path of a section -> the function whose arguments it holds
_FLAG = re.compile(r'--?(no)?config\.(.+)', re.DOTALL)


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
            text = 'false' if match[1] else 'true'  # absl's form of booleans
            if not match[1] and remaining and _is_value(remaining[0]):
                text = remaining.pop(0)
        pairs.pop(key, None)  # the order is that of the last mention
        pairs[key] = text
    return list(pairs.items()), others


def _is_value(word: str) -> bool:
    """Returns whether a word after `--config.KEY` is its value: neither a flag nor the config file."""
    return not re.match(r'-[^\d.]|--', word) and not is_config(word)


# --- application ----------------------------------------------------------------------------------------------------


def apply_overrides(config: ConfigDict, pairs: Pairs, sections: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Changes a config in place.

    Args:
      config: may be locked.
      pairs: (dotted key, text) of each override, as `read_flags` returns them.
      sections: the sections of the experiment's own (`find_function`).

    Returns:
      {key: value} in the order of the pairs.

    Raises:
      UsageError: neither the config nor a signature has a key (with the near ones), or a value has the wrong type.
    """
    keys = [key for key, _ in pairs]
    for key in keys:
        outer = next((other for other in keys if key.startswith(f'{other}.')), None)
        if outer is not None:
            raise UsageError(f'--config.{outer} replaces what --config.{key} changes: give one of them')
    find = functools.partial(find_function, config, sections=sections)
    values = {}
    for key, text in sorted(pairs, key=_priority):
        with config.unlocked():
            values[key] = _set(config, key, text, find)
    return {key: values[key] for key in keys}


def _priority(pair: tuple[str, str]) -> tuple[bool, int]:
    """Sorts names and chains first, since they decide which arguments exist; then outer keys before inner ones."""
    key = pair[0]
    return key.rpartition('.')[2] not in ('name', 'chain'), key.count('.')


def _set(config: ConfigDict, key: str, text: str, find: _Find) -> Any:
    section, name = _find_section(config, key, find)
    path = key.rpartition('.')[0]
    function = find(path) if path else None
    if name not in section and not _may_add(section, path, name, function):
        raise _unknown_key(config, key, find)
    value = named.parse_text(text, _allowed_types(section, name, function), f'--config.{key}')
    current = section.get(name)
    if isinstance(current, ConfigDict) and not isinstance(value, dict) and not _takes_number_or_section(function, name):
        raise UsageError(f'--config.{key}={text}: {key} is a section; its keys are {", ".join(current)}')
    before = section.to_dict()
    _put(section, name, value)
    if name == 'name' and before.get('name') != value:
        _drop_arguments(path, section, before, function, find)
    if name == 'chain':
        links = before.get('chain', ())
        for other in [k for k in section if k != 'chain' and (k in links or find_by_name(path) is not None)]:
            if other not in value:
                del section[other]
    return value


def _find_section(config: ConfigDict, key: str, find: _Find) -> tuple[ConfigDict, str]:
    """Returns the section that holds `key` and the last part of the key; adds sections that a signature allows."""
    *path, name = key.split('.')
    section, where = config, ''
    for part in path:
        if not isinstance(section.get(part), ConfigDict):  # a number may give way to a schedule
            function = find(where) if where else None
            if part not in section.get('chain', ()) and not _takes_number_or_section(function, part):
                raise _unknown_key(config, key, find)
            _put(section, part, ConfigDict())
        section, where = section[part], f'{where}.{part}'.lstrip('.')
    return section, name


def _may_add(section: ConfigDict, path: str, name: str, function: Callable | None) -> bool:
    """Returns whether a section may be given the key `name`, which it does not have."""
    if name in section.get('chain', ()) or (name in ('name', 'chain') and find_by_name(path) is not None):
        return True
    if name == 'name' and function is not None:  # the section had the first of several functions, which needs no name
        return True
    takes = function is not None and named.accepts(function, name) and not is_bound(path, name)
    return takes and 'chain' not in section


def _takes_number_or_section(function: Callable | None, name: str) -> bool:
    """Returns whether an argument may be a number as well as something made, such as a schedule."""
    if function is None or name not in {p.name for p in named.list_parameters(function)}:
        return False
    return object in named.list_types(named.get_type_hints(function).get(name, Any))


def _put(section: ConfigDict, name: str, value: Any) -> None:
    try:
        section[name] = value
    except (TypeError, ValueError):  # a ConfigDict keeps the type of the first value
        del section[name]
        section[name] = value


def _drop_arguments(path: str, section: ConfigDict, before: dict, function: Callable | None, find: _Find) -> None:
    """Deletes the arguments of the function, or the links of the chain, that another name has replaced."""
    if find_by_name(path) is not None and 'chain' in before:
        for key in {'chain', *before['chain']} & set(section):
            del section[key]
    replacement = find(path)
    if replacement is None or function is None:
        return
    for key in {p.name for p in named.list_parameters(function)} & set(section) - {'name'}:
        if not named.accepts(replacement, key):
            del section[key]


def _allowed_types(section: ConfigDict, name: str, function: Callable | None) -> list[set[type]]:
    """Returns the types that a value may have, in the order of trial: the config's, then the signature's."""
    from canon.train import lengths

    types: list[set[type]] = []
    if name in section:
        current = section.get_type(name)
        if not issubclass(current, ConfigDict):
            none = {type(None)} if section.get(name) is None else set()  # a placeholder may stay empty
            types.append({tuple if current is list else current, *none})
    if function is not None and name in {p.name for p in named.list_parameters(function)}:
        types.append(named.list_types(named.get_type_hints(function).get(name, Any)))
    if name in lengths.KEYS and types:
        types.append({str})  # '2 epochs'
    defaults: dict[str, type] = {'name': str, 'chain': tuple}
    return types or [{defaults.get(name, object)}]


def takes_tuple(config: ConfigDict, key: str, sections: Mapping[str, Any] = {}) -> bool:
    """Returns whether a key holds a tuple: its value in the config does, else its default, else its type allows one.

    False if the config has no such key.
    """
    value = known_keys(config, sections).get(key)
    if isinstance(value, bool | int | float | str | tuple | list | ConfigDict):
        return isinstance(value, tuple | list)
    path, _, name = key.rpartition('.')
    function = find_function(config, path, sections) if path else None
    section = get_value(config, path) if path else config
    types = _allowed_types(section if isinstance(section, ConfigDict) else ConfigDict(), name, function)
    return any(tuple in kinds for kinds in types)


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


def known_keys(config: ConfigDict, sections: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Returns {dotted key: value} of every key that may be set: those of the config and those that signatures add."""
    return _list_known(config, functools.partial(find_function, config, sections=sections))


def _list_known(config: ConfigDict, find: _Find) -> dict[str, Any]:
    keys = stated_keys(config)
    for key in [k for k, v in keys.items() if isinstance(v, ConfigDict)]:
        function = find(key)
        for p in named.list_parameters(function) if function else ():
            if p.default is not p.empty and not is_bound(key, p.name):
                keys.setdefault(f'{key}.{p.name}', p.default)
    return keys


def _unknown_key(config: ConfigDict, key: str, find: _Find) -> UsageError:
    """Returns the error for a key that does not exist: with the near ones, or else those of its section."""
    keys = list(_list_known(config, find))
    section = key.rpartition('.')[0]
    hint = named.suggest(key, [k for k in keys if not key.startswith(f'{k}.')])
    if 'did you mean' not in hint:  # nothing is near: list the nearest section that exists
        while section and section not in keys:
            section = section.rpartition('.')[0]
        hint = named.suggest('', [k for k in keys if k.rpartition('.')[0] == section])
    return UsageError(f'the config has no key {key!r}{hint}')
