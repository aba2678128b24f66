"""Selects functions by the names that a config gives, checks their arguments and suggests near names.

A config selects by name (`model.name='lenet.lenet5'` is `canon.models.lenet.lenet5`) and passes the rest on as keyword
arguments. Several links in order are a chain; `chain` states the order because a ConfigDict sorts its keys:
`dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(learning_rate=1e-3))`.

The types in a signature are the types that a config may give, and `Annotated` with a `Range` restricts their values:
`dropout: DropRate = 0.0`. `call` checks both, so the function need not.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import math
import numbers
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from canon.errors import UsageError, describe_error


class Range(NamedTuple):
    """The numbers from `low` to `high`, bounds included unless open. A tuple is in it if each element is."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, tuple | list):
            return all(v in self for v in value)
        above = self.low < value if self.open_low else self.low <= value
        return bool(above and (value < self.high if self.open_high else value <= self.high))  # False for NaN

    def __str__(self) -> str:
        low = '' if self.low == -math.inf else f'{"above" if self.open_low else "at least"} {self.low:g}'
        high = f'{"below" if self.open_high else "at most"} {self.high:g}'
        if self.high == math.inf:
            high = 'finite' if self.open_high else ''
        return ' and '.join(filter(None, (low, high)))


Probability = Annotated[float, Range(0, 1)]
DropRate = Annotated[float, Range(0, 1, open_high=True)]  # what is kept is divided by 1 - rate
Positive = Annotated[float, Range(0, open_low=True, open_high=True)]
NonNegative = Annotated[float, Range(0, open_high=True)]
Count = Annotated[int, Range(1)]


_LISTED = 30  # names in a message that is still one line to read


def suggest(name: str, names: Iterable[Any]) -> str:
    """Returns `; did you mean 'x'?` with the names nearest to `name`, or a list of all names if none is near."""
    names = sorted(map(str, names))
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return '; did you mean ' + ' or '.join(repr(c) for c in close) + '?'
    more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
    return f'; there are {", ".join(names[:_LISTED])}{more}' if names else ''


# --- look-up ------------------------------------------------------------------------------------------------------

IMPORTED = re.compile(r'[\w.]+:[a-zA-Z_]\w*')  # `package.module:function`, a function of any module


class Catalogue(NamedTuple):
    """Functions of one kind that configs select by name: models, optimizers, data sets. Adding one is adding a file.

    A name is `module.function`, or `function` alone if one module has it, or `my_package.module:function` of any module
    that can be imported. Modules are searched as text, and only the one that defines the name is imported: importing
    all of them would take seconds.

    Attributes:
      kind: what error messages call the functions: 'model', 'volume'.
      modules: names of modules, and of packages, whose modules then all belong to it.
      accepts: tells the functions from the others of the modules, often by what they return.
    """

    kind: str
    modules: tuple[str, ...]
    accepts: Callable[[Callable], bool] = lambda function: True

    def get(self, name: str, where: str = '') -> Callable | None:
        """Returns the function that a name selects, or None; raises UsageError if several modules have it."""
        check(name, str, f'the name of a {self.kind}')
        if ':' in name:
            return import_function(name, where or self.kind)
        module_name, _, function_name = name.rpartition('.')
        matches = [
            module
            for module in self._all_modules()
            if module_name in ('', module.rpartition('.')[2])
            and function_name in _defined_names(module)
            and function_name in self._functions(module)
        ]
        if len(matches) > 1:
            paths = ' or '.join(f"'{module.rpartition('.')[2]}.{function_name}'" for module in matches)
            raise UsageError(f'{where and where + ": "}several modules have a {self.kind} {name!r}; give {paths}')
        return getattr(importlib.import_module(matches[0]), function_name) if matches else None

    def find(self, name: str, where: str = '') -> Callable:
        """Returns the function that a name selects.

        Args:
          name: as the config gives it.
          where: the key of the config, for errors.

        Raises:
          UsageError: with the near names, if there is no such function.
        """
        function = self.get(name, where)
        if function is None:
            known = self.names(dotted='.' in name)
            raise UsageError(f'{where and where + ": "}no {self.kind} is called {name!r}{suggest(name, known)}')
        return function

    def names(self, dotted: bool = False) -> list[str]:
        """Returns the sorted names of all functions, as `module.function` if `dotted`. Imports all modules."""
        paths = {f'{module}.{name}' for module in self._all_modules() for name in self._functions(module)}
        return sorted({'.'.join(path.split('.')[-2 if dotted else -1 :]) for path in paths})

    def _functions(self, module: str) -> list[str]:
        if not _defined_names(module):
            return []
        return [
            name
            for name, value in vars(importlib.import_module(module)).items()
            if inspect.isfunction(value) and value.__module__ == module and name[0] != '_' and self.accepts(value)
        ]

    def _all_modules(self) -> list[str]:
        modules = []
        for name in self.modules:
            folders = getattr(importlib.util.find_spec(name), 'submodule_search_locations', None)
            modules += [f'{name}.{m.name}' for m in pkgutil.iter_modules(folders) if not m.ispkg] if folders else [name]
        return modules


@functools.cache
def _defined_names(module: str) -> frozenset[str]:
    """Returns the names of the public functions that the text of a module defines."""
    loader: Any = getattr(importlib.util.find_spec(module), 'loader', None)
    return frozenset(re.findall(r'^def ([a-zA-Z]\w*)\(', loader.get_source(module) or '', re.MULTILINE))


def lookup(package: str, name: str, kind: str, where: str = '') -> Callable:
    """Returns the function of a package's modules that a name in a config selects: `Catalogue.find`."""
    return Catalogue(kind, (package,)).find(name, where)


def public_functions(package: str) -> list[str]:
    """Returns `module.function` for every public function that the package's modules define (imports them)."""
    return Catalogue('', (package,)).names(dotted=True)


def import_function(path: str, where: str) -> Callable:
    """Returns the function `path='package.module:function'`; raises UsageError if it cannot be imported."""
    module_name, _, name = path.partition(':')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything
        raise UsageError(f'{where}: cannot import {module_name!r} of {path!r}: {describe_error(error)}') from error
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith('_')}
    if name not in functions:
        raise UsageError(f'{where}: {module_name} has no function {name!r}{suggest(name, functions)}')
    return functions[name]


def returns(function: Callable) -> Any:
    """Returns the type that `function` is annotated to return, or None."""
    return type_hints(function).get('return')


# --- calls --------------------------------------------------------------------------------------------------------


def call(function: Callable, arguments: Mapping[str, Any], where: str) -> Any:
    """Returns `function(**arguments)` after checking names, types and ranges against the signature.

    Args:
      function: any callable.
      arguments: keyword arguments, as a config has them.
      where: the key of the config that holds them, for errors.

    Raises:
      UsageError: an argument is unknown, missing, of another type or outside its range.
    """
    names = [p.name for p in parameters(function)]
    for key in arguments:
        if not accepts(function, key):
            raise UsageError(f'{where}.{key}: {_title(function)} takes no such key{suggest(key, names)}')
    arguments, hints = to_plain(arguments), type_hints(function)
    for p in parameters(function):
        if p.default is p.empty and p.name not in arguments:
            raise UsageError(f'{where}: {_title(function)} needs {p.name!r}')
        # A default is valid even if its hint disagrees: `size: int = None`.
        if p.name in hints and p.name in arguments and arguments[p.name] is not p.default:
            check(arguments[p.name], hints[p.name], f'{where}.{p.name}')
    return function(**arguments)


def parameters(function: Callable) -> list[inspect.Parameter]:
    """Returns the arguments that `function` takes by name."""
    all_parameters = inspect.signature(function).parameters.values()
    return [p for p in all_parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def accepts(function: Callable, key: str) -> bool:
    """Returns whether `function` has an argument `key`, or takes any keyword."""
    all_parameters = inspect.signature(function).parameters.values()
    return any(p.name == key or p.kind is p.VAR_KEYWORD for p in all_parameters if p.kind is not p.VAR_POSITIONAL)


@functools.cache
def type_hints(function: Callable) -> dict[str, Any]:
    """Returns {argument: its type, ranges included} of a function or class; {} if they cannot be evaluated."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        if inspect.isclass(function) and inspect.isfunction(function.__init__):
            hints |= typing.get_type_hints(function.__init__, include_extras=True)
        return hints
    except (NameError, TypeError, AttributeError):  # a name that is imported for type checkers only
        return {}


# --- types and ranges ---------------------------------------------------------------------------------------------


def check(value: Any, hint: Any, where: str) -> None:
    """Raises UsageError, naming the key `where`, if a value is not of the type `hint` or outside its range.

    Only values that a config file or the command line can state are checked: numbers, text, tuples, mappings, None.
    """
    if not _fits(value, hint, ranges=False):
        raise UsageError(f'{where}={value!r} must be {describe(hint)}')
    if not _fits(value, hint, ranges=True):
        raise UsageError(f'{where}={value!r} must be {describe(hint, ranges=True)}')


def plain_types(hint: Any) -> set[type]:
    """Returns the plain types that `hint` allows: {float, NoneType} for `float | None`; {object} if it allows any."""
    return {_KINDS.get(_origin(option), object) for option in _options(hint)}


def describe(hint: Any, ranges: bool = False) -> str:
    """Returns `hint` in words: 'a whole number or None'."""
    words = []
    for option in _options(hint):
        bounds = [f' {r}' for r in _ranges(option) if ranges]
        elements = [h for h in typing.get_args(option) if h is not ...]
        if typing.get_origin(option) is typing.Literal:
            words += map(repr, typing.get_args(option))
        elif _KINDS.get(_origin(option)) is tuple and len(elements) == 1:
            words.append(f'a tuple, each element {describe(elements[0], ranges)}')
        else:
            words.append(_WORDS[_KINDS.get(_origin(option), object)] + ''.join(bounds))
    return ' or '.join(dict.fromkeys(words))


_KINDS = {
    bool: bool,
    int: int,
    float: float,
    str: str,
    types.NoneType: types.NoneType,
    tuple: tuple,
    list: tuple,
    Sequence: tuple,
    Iterable: tuple,
    dict: dict,
    Mapping: dict,
}
_WORDS = {
    object: 'something else',
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    types.NoneType: 'None',
    tuple: 'a tuple',
    dict: 'a mapping',
}


def _options(hint: Any) -> list[Any]:
    """Returns the alternatives of a union, each with its ranges."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(hint) for option in _options(part)]
    if typing.get_origin(hint) is Annotated and len(inner := _options(typing.get_args(hint)[0])) > 1:
        return [Annotated[(option, *hint.__metadata__)] for option in inner]
    return [hint]


def _origin(option: Any) -> Any:
    if typing.get_origin(option) is Annotated:
        option = typing.get_args(option)[0]
    return types.NoneType if option is None else typing.get_origin(option) or option


def _ranges(option: Any) -> list[Range]:
    return [r for r in getattr(option, '__metadata__', ()) if isinstance(r, Range)]


def _fits(value: Any, hint: Any, ranges: bool) -> bool:
    return any(_fits_option(value, option, ranges) for option in _options(hint))


def _fits_option(value: Any, option: Any, ranges: bool) -> bool:
    if value is not None and not isinstance(value, bool | numbers.Real | str | tuple | list | dict):
        return True  # an array, a function, a schedule: the function itself has to check it
    origin = _origin(option)
    if origin is typing.Literal:
        return value in typing.get_args(option)
    kind = _KINDS.get(origin, object)
    bare = typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option
    if kind is object:  # Any, Callable, a class of Canon's
        fits = True
    elif kind is tuple:
        fits = isinstance(value, tuple | list) and _elements_fit(value, typing.get_args(bare), ranges)
    elif kind is float:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    elif kind is int:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    else:
        fits = isinstance(value, kind)
    if not fits or not ranges or value is None or isinstance(value, str | dict):
        return fits
    return all(value in r for r in _ranges(option))


def _elements_fit(values: Sequence[Any], hints: tuple, ranges: bool) -> bool:
    if not hints:
        return True
    if len(hints) == 2 and hints[1] is ...:
        hints = hints[:1]
    if len(hints) == 1:
        return all(_fits(v, hints[0], ranges) for v in values)
    return len(values) == len(hints) and all(_fits(v, h, ranges) for v, h in zip(values, hints, strict=True))


# --- text of the command line -------------------------------------------------------------------------------------

_BOOLEANS = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}


def parse_text(text: str, allowed: Sequence[set[type]], where: str) -> Any:
    """Reads a value from text, by the types that it may have.

    Args:
      text: as it stands on the command line: `0.1`, `true`, `(1, 2)`, `resize,random_flip`, `None`.
      allowed: sets of plain types, tried in order; {object} allows anything that Python's literals can write.
      where: the flag, for errors.

    Raises:
      UsageError: the text is of none of the types.
    """
    for kinds in allowed:
        for read in (_read_none, _read_bool, _read_int, _read_float, _read_tuple, _read_literal, _read_str):
            try:
                return read(text, kinds)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    words = dict.fromkeys(describe(kind) for kinds in allowed for kind in sorted(kinds, key=str))
    raise UsageError(f'{where}={text}: must be {" or ".join(words)}')


def _require(kind: type, kinds: set[type]) -> None:
    if kind not in kinds:
        raise ValueError


def _read_none(text: str, kinds: set[type]) -> None:
    _require(type(None), kinds)
    if text.lower() != 'none':
        raise ValueError


def _read_bool(text: str, kinds: set[type]) -> bool:
    _require(bool, kinds)
    if text.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text.lower()]


def _read_int(text: str, kinds: set[type]) -> int:
    _require(int, kinds)
    return int(text)


def _read_float(text: str, kinds: set[type]) -> float:
    _require(float, kinds)
    return float(text)


def _read_tuple(text: str, kinds: set[type]) -> tuple:
    """Reads `(1, 2)`, `[1, 2]`, a single `1`, and words without quotes: `resize,random_flip`."""
    _require(tuple, kinds)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if not re.fullmatch(r'\(?[^()\[\]{}]*\)?', text.strip()):
            raise  # nested, so not a list of words
        value = tuple(_read_word(word.strip()) for word in text.strip('()[] ').split(',') if word.strip())
    return to_plain(value) if isinstance(value, tuple | list) else (value,)


def _read_literal(text: str, kinds: set[type]) -> Any:
    if not kinds & {object, dict}:
        raise ValueError
    value = _read_word(text)
    if object not in kinds and not isinstance(value, dict):
        raise ValueError
    return to_plain(value)


def _read_str(text: str, kinds: set[type]) -> str:
    _require(str, kinds)
    return text


def _read_word(text: str) -> Any:
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# --- sections of a config -----------------------------------------------------------------------------------------


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
    """Returns `config` as dicts with text as keys, tuples and values: a ConfigDict is not a Mapping, lists can change."""
    if hasattr(config, 'to_dict'):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if type(config) in (list, tuple):  # a NamedTuple, such as a gradient transformation, is a value
        return tuple(to_plain(v) for v in config)
    return config


def _title(function: Callable) -> str:
    return getattr(function, '__name__', str(function))


# Old names, until every module has the new ones.
plain, near, chain, takes, Room = to_plain, suggest, make_chain, accepts, Catalogue
