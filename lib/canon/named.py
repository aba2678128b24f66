"""From names in a config to functions of a module: the one place that looks up, checks and suggests.

A config selects by name (`model.name='lenet.lenet5'`) and passes the rest as keyword arguments. A chain of
several things carries its order apart, since a ConfigDict sorts its keys:
`dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(learning_rate=1e-3))`.

The types in a signature are the types that a config may give, and `Annotated` with a `Range` states which values of
them: `dropout: DropRate = 0.0`. `call` checks both, so no function repeats it.
"""

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
    """The numbers from `low` to `high`, bounds included unless open; each element where the value is a tuple."""

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


IMPORTED = re.compile(r'[\w.]+:[a-zA-Z_]\w*')  # `package.module:function`, a function of any module
_LISTED = 30  # names in a message that is still one line to read


def near(name: str, names) -> str:
    """`'; did you mean 'x'?'` with the nearest names, or a list of names where none is near."""
    names = sorted(map(str, names))
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return '; did you mean ' + ' or '.join(repr(c) for c in close) + '?'
    more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
    return f'; there are {", ".join(names[:_LISTED])}{more}' if names else ''


def lookup(package: str, path: str, what: str) -> Callable:
    """The function `path='module.function'` of `package`; raises UsageError with the near names.

    `path='my_package.module:function'` is a function of any module that can be imported.
    """
    check(path, str, f'the name of a {what}')
    if ':' in path:
        return import_function(path, what)
    module_name, _, attribute = path.rpartition('.')
    names = public_functions(package)
    if path in names:
        return getattr(importlib.import_module(f'{package}.{module_name}'), attribute)
    raise UsageError(f'no {what} is called {path!r}{near(path, names)}')


def import_function(path: str, where: str) -> Callable:
    """The function `path='package.module:function'`; raises UsageError where it cannot be imported."""
    module_name, _, name = path.partition(':')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # what a module of the user's raises is up to the user
        raise UsageError(f'{where}: cannot import {module_name!r} of {path!r}: {describe_error(error)}') from error
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith('_')}
    if name not in functions:
        raise UsageError(f'{where}: {module_name} has no function {name!r}{near(name, functions)}')
    return functions[name]


class Room(NamedTuple):
    """Functions of one kind that a config selects by name: data sets, samplers. Adding a function adds a name.

    A room is read, not imported, to find a name in it: a module that nobody asks for may be slow to import.
    """

    what: str  # for messages: 'volume'
    modules: tuple[str, ...]  # names of modules, and of packages whose modules all belong
    accepts: Callable[[Callable], bool]  # tells these functions from the others of the modules, often by `returns`

    def get(self, name: str) -> Callable | None:
        """Returns the function `name`, or `module.name` where several modules have one; None if there is none.

        `package.module:name` is a function of any module that can be imported, of whatever kind.
        """
        check(name, str, f'the name of a {self.what}')
        if IMPORTED.fullmatch(name):
            return import_function(name, self.what)
        module_name, _, attribute = name.rpartition('.')
        for module in self._defining().get(attribute, ()):
            if module_name in ('', module.rpartition('.')[2]) and attribute in self._functions(module):
                return getattr(importlib.import_module(module), attribute)
        return None

    def find(self, name: str) -> Callable:
        """Returns the function that `get` returns; raises UsageError with the near names if there is none."""
        function = self.get(name)
        if function is None:
            raise UsageError(f'no {self.what} is called {name!r}{near(name, self.names())}')
        return function

    def names(self) -> list[str]:
        """Returns the names of all functions of the room, in order of the alphabet. Imports its modules."""
        modules = {module for modules in self._defining().values() for module in modules}
        return sorted({name for module in modules for name in self._functions(module)})

    def _functions(self, module: str) -> list[str]:
        functions = vars(importlib.import_module(module)).items()
        return [
            name
            for name, value in functions
            if inspect.isfunction(value) and value.__module__ == module and name[0] != '_' and self.accepts(value)
        ]

    def _defining(self) -> dict[str, list[str]]:
        """{name of a public function: the modules whose text defines it}."""
        modules: dict[str, list[str]] = {}
        for module in self._all_modules():
            loader: Any = getattr(importlib.util.find_spec(module), 'loader', None)
            for name in re.findall(r'^def ([a-z]\w*)\(', loader.get_source(module) or '', re.MULTILINE):
                modules.setdefault(name, []).append(module)
        return modules

    def _all_modules(self) -> list[str]:
        every = []
        for name in self.modules:
            folders = getattr(importlib.util.find_spec(name), 'submodule_search_locations', None)
            every += [f'{name}.{m.name}' for m in pkgutil.iter_modules(folders) if not m.ispkg] if folders else [name]
        return every


def returns(function: Callable) -> Any:
    """Returns the type that `function` is annotated to return; None where it is not annotated."""
    return type_hints(function).get('return')


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
    names = [p.name for p in parameters(function)]
    for key in arguments:
        if not takes(function, key):
            raise UsageError(f'{where}.{key}: {_title(function)} takes no such key{near(key, names)}')
    arguments, hints = plain(arguments), type_hints(function)
    for p in parameters(function):
        if p.default is p.empty and p.name not in arguments:
            raise UsageError(f'{where}: {_title(function)} needs {p.name!r}')
        # A default is right whatever its hint says: `size: int = None`.
        if p.name in hints and p.name in arguments and arguments[p.name] is not p.default:
            check(arguments[p.name], hints[p.name], f'{where}.{p.name}')
    return function(**arguments)


def parameters(function: Callable) -> list[inspect.Parameter]:
    """The arguments that `function` takes by name."""
    every = inspect.signature(function).parameters.values()
    return [p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def takes(function: Callable, key: str) -> bool:
    """Whether `function` has an argument `key`, or takes any."""
    every = inspect.signature(function).parameters.values()
    return any(p.name == key or p.kind is p.VAR_KEYWORD for p in every if p.kind is not p.VAR_POSITIONAL)


@functools.cache
def type_hints(function: Callable) -> dict[str, Any]:
    """The type of each argument of a function or class, with its ranges; {} where they cannot be evaluated."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        if inspect.isclass(function) and inspect.isfunction(function.__init__):
            hints |= typing.get_type_hints(function.__init__, include_extras=True)
        return hints
    except (NameError, TypeError, AttributeError):  # a name imported for type checkers alone
        return {}


def check(value: Any, hint: Any, where: str) -> None:
    """Raises UsageError, naming the key `where`, if a plain value is not of the type `hint` or outside its range.

    Only values that a config file or the command line can state are judged: numbers, text, tuples, mappings, None.
    """
    if not _fits(value, hint, ranges=False):
        raise UsageError(f'{where}={value!r} must be {describe(hint)}')
    if not _fits(value, hint, ranges=True):
        raise UsageError(f'{where}={value!r} must be {describe(hint, ranges=True)}')


def plain_types(hint: Any) -> set[type]:
    """The plain types that `hint` allows: {float, NoneType} of `float | None`; {object} where it allows anything."""
    return {_KINDS.get(_origin(option), object) for option in _options(hint)}


def describe(hint: Any, ranges: bool = False) -> str:
    """`hint` in words: 'a whole number or None'."""
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
    """The alternatives of a union, ranges and all."""
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
        return True  # an array, a function, a schedule: for the function itself to judge
    origin = _origin(option)
    if origin is typing.Literal:
        return value in typing.get_args(option)
    kind = _KINDS.get(origin, object)
    bare = typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option
    if kind is object:  # Any, Callable, a class of ours
        right = True
    elif kind is tuple:
        right = isinstance(value, tuple | list) and _elements_fit(value, typing.get_args(bare), ranges)
    elif kind is float:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    elif kind is int:
        right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    else:
        right = isinstance(value, kind)
    if not right or not ranges or value is None or isinstance(value, str | dict):
        return right
    return all(value in r for r in _ranges(option))


def _elements_fit(values: Sequence[Any], hints: tuple, ranges: bool) -> bool:
    if not hints:
        return True
    if len(hints) == 2 and hints[1] is ...:
        hints = hints[:1]
    if len(hints) == 1:
        return all(_fits(v, hints[0], ranges) for v in values)
    return len(values) == len(hints) and all(_fits(v, h, ranges) for v, h in zip(values, hints, strict=True))


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
