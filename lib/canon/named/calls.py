"""Calls functions with the arguments that a config gives, after checking them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from canon.errors import UsageError
from canon.named.catalogue import suggest
from canon.named.hints import check, get_type_hints

F = TypeVar('F', bound=Callable)


def call(function: Callable, arguments: Mapping[str, Any], where: str) -> Any:
    """Returns `function(**arguments)` after checking names, types and ranges against the signature.

    Args:
      function: any callable.
      arguments: keyword arguments, as a config has them.
      where: the key of the config that holds them, for errors.

    Raises:
      UsageError: an argument is unknown, missing, of another type or outside its range.
    """
    # Unknown keys first: a misspelt one is usually the reason why another is missing.
    names = [p.name for p in list_parameters(function)]
    for key in arguments:
        if not accepts(function, key):
            raise UsageError(f'{where}.{key}: {_title(function)} takes no such key{suggest(key, names)}')
    arguments, hints = to_plain(arguments), get_type_hints(function)
    aliases = getattr(function, '__aliases__', {})  # other names of arguments (`canon.optim`)
    given = {aliases.get(key, key) for key in arguments}
    for p in list_parameters(function):
        if p.default is p.empty and p.name not in given:
            raise UsageError(f'{where}: {_title(function)} needs {p.name!r}')
        # A default is valid even if its hint disagrees: `size: int = None`.
        if p.name in hints and p.name in arguments and arguments[p.name] is not p.default:
            check(arguments[p.name], hints[p.name], f'{where}.{p.name}')
    return function(**arguments)


def list_parameters(function: Callable) -> list[inspect.Parameter]:
    """Returns the arguments that `function` takes by name."""
    all_parameters = inspect.signature(function).parameters.values()
    return [p for p in all_parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def accepts(function: Callable, key: str) -> bool:
    """Returns whether `function` has an argument `key`, or takes any keyword."""
    all_parameters = inspect.signature(function).parameters.values()
    return any(p.name == key or p.kind is p.VAR_KEYWORD for p in all_parameters if p.kind is not p.VAR_POSITIONAL)


def combine_arguments(*functions: Callable, without: Iterable[str] = ()) -> Callable:
    """Returns a function that only has a signature: the arguments of all `functions` except those of `without`.

    It documents a section of a config whose keys go to several functions, or to one that gets some arguments from
    elsewhere.
    """
    hints = {name: hint for function in functions for name, hint in get_type_hints(function).items()}
    combined = {p.name: p for function in functions for p in list_parameters(function) if p.name not in without}

    def settings(**_: Any) -> None:
        """Stands for the functions; its docstring and signature are replaced below."""

    # `describe_keys` reads the docstrings; a class that is not a dataclass documents its arguments in `__init__`.
    documented = [f.__init__ if inspect.isclass(f) and not dataclasses.is_dataclass(f) else f for f in functions]
    settings.__doc__ = '\n\n'.join(inspect.cleandoc(f.__doc__ or '') for f in documented)
    settings.__annotations__ = {name: hints.get(name, Any) for name in combined}
    keyword_only = [p.replace(kind=p.KEYWORD_ONLY) for p in combined.values()]
    settings.__signature__ = inspect.Signature(keyword_only)  # ty: ignore[missing-attribute]
    return settings


def takes_arguments_of(source: Callable, without: Iterable[str] = ()) -> Callable[[F], F]:
    """Decorates a function that passes its `**arguments` on to `source`, and states them in its signature.

    `call` checks them, and the command line lists them, as if they were written out.

    Args:
      source: the function, or class, that gets the arguments.
      without: names of its arguments that the decorated function does not take. Those that it has itself are its own.

        >>> def draw(width: int, height: int, colour: str = 'red'): ...
        >>> @takes_arguments_of(draw, without=['height'])
        ... def draw_square(width: int, **arguments: Any):
        ...     return draw(width, width, **arguments)
        >>> [p.name for p in list_parameters(draw_square)]
        ['width', 'colour']
    """

    def decorate(function: F) -> F:
        signature, hints = inspect.signature(function), get_type_hints(source)
        own = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        added = [p for p in list_parameters(source) if p.name not in {*own, *without}]
        kinds = [p.replace(kind=p.KEYWORD_ONLY) for p in added]
        function.__signature__ = signature.replace(parameters=[*own.values(), *kinds])  # ty: ignore[missing-attribute]
        function.__arguments_of__ = source  # ty: ignore[missing-attribute]  whose docstring documents them
        written = {name: hint for name, hint in function.__annotations__.items() if name in {*own, 'return'}}
        # As types and not as text, which would be evaluated in the module of the decorated function.
        function.__annotations__ = {p.name: hints[p.name] for p in added if p.name in hints} | written
        return function

    return decorate


def make_chain(spec: Mapping[str, Any], make: Callable[[str, dict, str], Any], where: str) -> list[Any]:
    """Returns `make(name, arguments, where)` for each link of `spec`, in the order of `spec['chain']`.

    If there is no `chain`, the spec is itself the only link, and its `name` selects it. The `name` of a link defaults
    to its key.
    """
    spec = to_plain(spec)
    if 'chain' not in spec:
        if 'name' not in spec:
            raise UsageError(f'{where} needs a name, or a chain of names; it has {sorted(spec)}')
        return [make(spec.pop('name'), spec, where)]
    order = tuple(spec.pop('chain'))
    for key in spec:
        if key not in order:
            raise UsageError(f'{where}.{key} is not in {where}.chain{suggest(key, order)}')
    links = []
    for key in order:
        arguments = dict(spec.get(key, {}))
        links.append(make(arguments.pop('name', key), arguments, f'{where}.{key}'))
    return links


def to_plain(config: Any) -> Any:
    """Returns `config` as dicts with text as keys, tuples and values: a ConfigDict is not a Mapping, lists change."""
    if hasattr(config, 'to_dict'):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if type(config) in (list, tuple):  # a NamedTuple, such as a gradient transformation, is a value
        return tuple(to_plain(v) for v in config)
    return config


def _title(function: Callable) -> str:
    return getattr(function, '__name__', str(function))
