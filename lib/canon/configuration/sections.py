"""Finds the function whose arguments a section of a config holds: its signature says which keys may be set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.errors import UsageError

# {path of a section: {name: function}}; `*` in a path is any key. For data.source, whose function data.name selects, a
# mapping adds to the data sets that all experiments share, and a catalogue replaces them.
Sections = Mapping[str, Mapping[str, Callable] | named.Catalogue]


def find_function(config: ConfigDict, path: str, sections: Mapping[str, Any] = {}) -> Callable | None:
    """Returns the function that a section selects by its `name`; None if there is none.

    Args:
      config: the whole config.
      path: of the section, dotted.
      sections: the sections of the experiment's own, whose first function is the default. They come before those that
        all experiments share: `model`, `tx`, `transforms` and `data.source`.
    """
    own = next((functions for pattern, functions in sections.items() if _matches(path, pattern)), None)
    if path == 'data.source' and isinstance(config.data.get('source'), ConfigDict):
        from canon.data.pipeline import loading

        name = str(config.data.get('name'))
        if isinstance(own, Mapping) and name in own:
            return own[name]
        data_sets = own if isinstance(own, named.Catalogue) else loading.DATA_SETS
        return _try(data_sets.get, name)
    find = find_by_name(path)
    section = config
    for part in path.split('.'):
        section = section.get(part)
        if not isinstance(section, ConfigDict):
            return None
    if own is not None:
        return own.get(section.get('name') or next(iter(own)))
    if find is None or section.get('chain') is not None:
        return None
    return _try(find, section.get('name') or path.rpartition('.')[2])


def find_by_name(path: str) -> Callable[[str], Callable | None] | None:
    """Returns the function that looks up names in a section of `model`, `tx` or `transforms`; None for others."""
    parts = path.split('.')
    if path == 'model':
        return named.Catalogue('model', ('canon.models',)).get
    if parts[0] == 'tx' or (parts[0] == 'optimizers' and len(parts) > 1):
        from canon.optim import factory

        return factory.find_optimizer
    if 'transforms' in parts:
        from canon.data import transforms

        return transforms.find
    return None


def _matches(path: str, pattern: str) -> bool:
    """Returns whether a path matches a pattern such as 'data.evals.*', in which `*` is any key."""
    parts, expected = path.split('.'), pattern.split('.')
    return len(parts) == len(expected) and all(e in ('*', p) for p, e in zip(parts, expected, strict=True))


def _try(find: Callable[[str], Callable | None], name: str) -> Callable | None:
    try:
        return find(name)
    except UsageError:  # the experiment will report the same when it is made
        return None
