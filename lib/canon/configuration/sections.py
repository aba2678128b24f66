"""Finds the function whose arguments a section of a config holds: its signature says which keys may be set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.nested import get_value, merge
from canon.errors import UsageError
from canon.named import to_plain

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
    if (inner := _split_layer(path))[0]:
        section = _lay_over(config, inner[0])
        # A stage may be another experiment, whose sections `stages.NAME.SECTION` are.
        own = {
            key.removeprefix(f'{inner[0]}.'): value for key, value in sections.items() if key.startswith(f'{inner[0]}.')
        }
        return None if section is None else find_function(section, inner[1], {**sections, **own})
    own = find_own_functions(path, sections)
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
        names = own.names() if isinstance(own, named.Catalogue) else list(own)
        if len(names) == 1:  # `name` does not select it: an evaluator's is of its data set
            return own.get(names[0])
        return own.get(section.get('name') or names[0])
    if find is None or section.get('chain') is not None:
        return None
    return _try(find, section.get('name') or path.rpartition('.')[2])


def is_bound(path: str, name: str) -> bool:
    """Returns whether the experiment, and no key, gives an argument: the split that data.source is read from."""
    return name == 'split' and _split_layer(path)[1] == 'data.source'


def find_own_functions(path: str, sections: Mapping[str, Any]) -> Mapping[str, Callable] | named.Catalogue | None:
    """Returns the functions that a section of the experiment's own selects from; None if it is not one."""
    paths = (path, _split_layer(path)[1])
    return next((value for p in paths for pattern, value in sections.items() if _matches(p, pattern)), None)


def find_by_name(path: str) -> Callable[[str], Callable | None] | None:
    """Returns the function that looks up names of `model`, `tx`, `transforms` and `data.source.stages`; else None."""
    path = _split_layer(path)[1]
    parts = path.split('.')
    if re.fullmatch(r'model(\.backbone)*', path):  # a detector has a backbone, which may have one
        return named.Catalogue('model', ('canon.models',)).get
    if parts[0] == 'tx' or (parts[0] == 'optimizers' and len(parts) > 1):
        from canon.optim import factory

        return factory.find_optimizer
    if 'transforms' in parts:
        from canon.data import transforms

        return transforms.find
    if path.startswith('data.source.stages'):  # of words and characters that are rendered
        from canon.data.text.engine.stages import STAGES

        return STAGES.get
    return None


def _split_layer(path: str) -> tuple[str, str]:
    """Splits `stages.deep.model` into the layer `stages.deep` and its section `model`; ('', path) for other paths."""
    layer = re.match(r'((?:stages|forms)\.[^.]+)\.(.+)', path)
    return (layer[1], layer[2]) if layer else ('', path)


def _lay_over(config: ConfigDict, layer: str) -> ConfigDict | None:
    """Returns the config with the keys of a stage laid over it, or with the sections of a form in place of its own."""
    keys = get_value(config, layer)
    if not isinstance(keys, ConfigDict):
        return None
    kind, plain = layer.partition('.')[0], to_plain(config)
    base = {key: value for key, value in plain.items() if key != kind}
    return ConfigDict(merge(base, to_plain(keys)) if kind == 'stages' else {**base, **to_plain(keys)})


def _matches(path: str, pattern: str) -> bool:
    """Returns whether a path matches a pattern such as 'data.evals.*', in which `*` is any key."""
    parts, expected = path.split('.'), pattern.split('.')
    return len(parts) == len(expected) and all(e in ('*', p) for p, e in zip(parts, expected, strict=True))


def _try(find: Callable[[str], Callable | None], name: str) -> Callable | None:
    try:
        return find(name)
    except UsageError:  # the experiment will report the same when it is made
        return None
