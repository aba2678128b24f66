"""Reads nested configs by dotted keys."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.named import to_plain


def get_value(config: ConfigDict, key: str) -> Any:
    """Returns the value of a dotted key; None if there is none."""
    value: Any = config
    for part in key.split('.'):
        value = value.get(part) if isinstance(value, ConfigDict) else None
    return value


def list_leaves(section: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of all values that are not sections."""
    for key in section:
        value = section.get(key)
        if isinstance(value, ConfigDict):
            yield from list_leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def find_missing_key(error: Exception, config: ConfigDict) -> str | None:
    """Returns the dotted key of `config` whose absence raised `error`; None if something else did."""
    # ConfigDict raises with the name of the key alone; its frame knows the section.
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    frames = [f for f in frames if isinstance(f.f_locals.get('self'), ConfigDict)]
    if not isinstance(error, AttributeError | KeyError) or not frames:
        return None
    section = frames[-1].f_locals['self']
    name = frames[-1].f_locals.get('attribute') or frames[-1].f_locals.get('key')
    # Equality as well as identity: the experiment may have been given a copy of the section.
    paths = [path for path, value in _list_sections(config, '') if value is section or value == section]
    return '.'.join(filter(None, (paths[0] if paths else '', str(name)))) if name else None


def _list_sections(config: ConfigDict, path: str) -> Iterator[tuple[str, ConfigDict]]:
    yield path, config
    for key in config:
        if isinstance(config[key], ConfigDict):
            yield from _list_sections(config[key], f'{path}.{key}'.strip('.'))


def join_arguments(bound: Mapping[str, Any], section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Joins arguments that follow from the rest of the config with those of a section, which may not repeat them.

    where: the section. Raises UsageError for an argument that is in both.
    """
    section = to_plain(section)
    if repeated := sorted(bound.keys() & section.keys()):
        raise UsageError(f'{where}.{repeated[0]} follows from other keys of the config; remove it')
    return {**bound, **section}


def drop_placeholders(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a section as a dict without the keys that are None: the default of the function that is called stands."""
    return {key: value for key, value in to_plain(section).items() if value is not None}


def apply_form(config: ConfigDict) -> ConfigDict:
    """Returns the config with the sections of the form that `config.form` names, as a whole, in place of its own.

    `config.forms` is {name: {section: its keys}}, so that one value in a sweep compares systems. The result has no
    forms, and that of a config without forms is the config itself.

    Raises UsageError for a form that is not among them.
    """
    forms = to_plain(config.get('forms', {}))
    if not forms:
        return config
    if config.form not in forms:
        raise UsageError(f'form={config.form!r} is not one of {", ".join(map(repr, forms))}')
    plain = {key: value for key, value in to_plain(config).items() if key not in ('forms', 'form')}
    return ConfigDict({**plain, **forms[config.form]})


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `under` with the keys of `over` laid over it, at every depth."""
    merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in under.items()}
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(value, Mapping)
        merged[key] = merge(below if isinstance(below, Mapping) else {}, value) if nested else value
    return merged
