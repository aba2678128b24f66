"""Types and ranges of signatures: what a value of a config may be, and in words."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from canon.errors import UsageError


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
        low = '' if self.low == -math.inf else f'{"above" if self.open_low else "at least"} {_digits(self.low)}'
        high = f'{"below" if self.open_high else "at most"} {_digits(self.high)}'
        if self.high == math.inf:
            high = 'finite' if self.open_high else ''
        return ' and '.join(filter(None, (low, high)))


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f'{bound:g}'  # '%g' would round 2147483647


Probability = Annotated[float, Range(0, 1)]
DropRate = Annotated[float, Range(0, 1, open_high=True)]  # what is kept is divided by 1 - rate
Positive = Annotated[float, Range(0, open_low=True, open_high=True)]
NonNegative = Annotated[float, Range(0, open_high=True)]
Count = Annotated[int, Range(1)]


def compile_pattern(pattern: str, where: str = '') -> re.Pattern:
    """Compiles a regular expression; raises UsageError, naming the key `where`, if it is not valid."""
    try:
        return re.compile(pattern)
    except re.error as error:
        title = f'{where}: ' if where else ''
        raise UsageError(f'{title}{pattern!r} is not a valid regular expression: {error}') from error


@functools.cache
def get_type_hints(function: Callable) -> dict[str, Any]:
    """Returns {argument: its type, ranges included} of a function or class; {} if they cannot be evaluated."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        # The annotations of a dataclass are its own and its bases'; `__init__` repeats them without their modules.
        written = inspect.isclass(function) and not dataclasses.is_dataclass(function)
        if written and inspect.isfunction(function.__init__):
            hints |= typing.get_type_hints(function.__init__, include_extras=True)
        return hints
    except (NameError, TypeError, AttributeError):  # a name that is imported for type checkers only
        return {}


def get_return_type(function: Callable) -> Any:
    """Returns the type that `function` is annotated to return, or None."""
    return get_type_hints(function).get('return')


def check(value: Any, hint: Any, where: str) -> None:
    """Raises UsageError, naming the key `where`, if a value is not of the type `hint` or outside its range.

    Only values that a config file or the command line can state are checked: numbers, text, tuples, mappings, None.
    """
    if not _fits(value, hint, ranges=False):
        raise UsageError(f'{where}={value!r} must be {describe(hint)}')
    if not _fits(value, hint, ranges=True):
        raise UsageError(f'{where}={value!r} must be {describe(hint, ranges=True)}')


def list_types(hint: Any) -> set[type]:
    """Returns the plain types that `hint` allows: {float, NoneType} for `float | None`; {object} if it allows any."""
    return {_KINDS.get(_origin(option), object) for option in list_options(hint)}


def describe(hint: Any, ranges: bool = False) -> str:
    """Returns `hint` in words: 'a whole number or None'."""
    words = []
    for option in list_options(hint):
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


def list_options(hint: Any) -> list[Any]:
    """Returns the alternatives of a union, each with its ranges."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(hint) for option in list_options(part)]
    if typing.get_origin(hint) is Annotated and len(inner := list_options(typing.get_args(hint)[0])) > 1:
        return [Annotated[(option, *hint.__metadata__)] for option in inner]
    return [hint]


def _origin(option: Any) -> Any:
    if typing.get_origin(option) is Annotated:
        option = typing.get_args(option)[0]
    return types.NoneType if option is None else typing.get_origin(option) or option


def _ranges(option: Any) -> list[Range]:
    return [r for r in getattr(option, '__metadata__', ()) if isinstance(r, Range)]


def _fits(value: Any, hint: Any, ranges: bool) -> bool:
    return any(_fits_option(value, option, ranges) for option in list_options(hint))


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
    # A bool is an int in Python, but `layers=True` is a mistake.
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
