"""From names in a config to functions of a module: the one place that looks up, checks and suggests.

A config selects by name (`model.name='lenet.lenet5'`) and passes the rest as keyword arguments. A chain of
several things carries its order apart, since a ConfigDict sorts its keys:
`dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(learning_rate=1e-3))`.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from canon.errors import UsageError


def near(name: str, names) -> str:
    """`'; did you mean 'x'?'` with the nearest names, or the list of all when none is near."""
    names = sorted(map(str, names))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return '; did you mean ' + ' or '.join(repr(c) for c in close) + '?'
    return f'; there are {", ".join(names)}' if names else ''


def lookup(package: str, path: str, what: str) -> Callable:
    """The function `path='module.function'` of `package`; raises UsageError with the near names."""
    module_name, _, attribute = path.rpartition('.')
    names = public_functions(package)
    if path in names:
        return getattr(importlib.import_module(f'{package}.{module_name}'), attribute)
    raise UsageError(f'no {what} is called {path!r}{near(path, names)}')


def public_functions(package: str) -> list[str]:
    """`module.function` for every lower-case function that the package's modules define (imports them)."""
    found = []
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f'{package}.{entry.name}')
        found += [
            f'{entry.name}.{name}'
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith('_')
        ]
    return found


def call(function: Callable, arguments: Mapping[str, Any], where: str) -> Any:
    """`function(**arguments)` after checking the names; `where` is the config key that errors speak of."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in arguments:
            if key not in names:
                raise UsageError(f'{where}.{key}: {_title(function)} takes no such key{near(key, names)}')
    for p in parameters:
        if p.default is p.empty and p.name in names and p.name not in arguments:
            raise UsageError(f'{where}: {_title(function)} needs {p.name!r}')
    return function(**plain(arguments))


def chain(spec: Mapping[str, Any], make: Callable[[str, dict, str], Any], where: str) -> list[Any]:
    """What `make(name, arguments, where)` gives for each link of `spec`, in the order of `spec['chain']`.

    Without `chain`, the spec is itself one link, whose `name` says what it is. A link's `name` defaults to its key.
    """
    spec = plain(spec)
    if 'chain' not in spec:
        if 'name' not in spec:
            raise UsageError(f'{where} needs a name, or a chain of names; it has {sorted(spec)}')
        return [make(spec.pop('name'), spec, where)]
    order = tuple(spec.pop('chain'))
    for key in spec:
        if key not in order:
            raise UsageError(f'{where}.{key} is not in {where}.chain{near(key, order)}')
    links = []
    for key in order:
        arguments = dict(spec.get(key, {}))
        links.append(make(arguments.pop('name', key), arguments, f'{where}.{key}'))
    return links


def plain(config: Any) -> Any:
    """`config` as plain dicts, tuples and values, keys as text: a ConfigDict is no Mapping, and a list may change."""
    if hasattr(config, 'to_dict'):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(k): plain(v) for k, v in config.items()}
    if type(config) in (list, tuple):  # a NamedTuple, such as a gradient transformation, is a value
        return tuple(plain(v) for v in config)
    return config


def _title(function: Callable) -> str:
    return getattr(function, '__name__', str(function))
