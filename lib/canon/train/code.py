"""A digest of the code of an experiment, so that a run that is resumed with other code can warn."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import platform
import types
from collections.abc import Iterator, Mapping
from typing import Any

from canon.train.types import Experiment

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LONGEST = 1000  # items: longer collections are data, not code


def digest_code(experiment: Experiment) -> str:
    """Returns a digest of the functions of an experiment and of what they close over, if it is code or plain values.

    It covers the functions and classes that these use from their own module, and the networks that they hold. It does
    not cover positions in a file, comments and file names. Another version of Python compiles to other code, and
    therefore has another digest.
    """
    task = experiment.task
    functions: list[Any] = [task.init, task.loss, task.predict, experiment.make_step]
    functions += [] if task.gradient is None else [task.gradient]
    for _, evaluator in sorted(experiment.evals.items()):
        functions += [evaluator.measure, evaluator.finish, evaluator.start]
    text = '\n'.join(line for function in functions for line in _describe(function, {}))
    return hashlib.sha256(f'{platform.python_version()}\n{text}'.encode()).hexdigest()[:16]


def _describe(value: Any, visited: dict[int, Any]) -> Iterator[str]:
    """Yields lines that are equal in two processes if the code is.

    visited: values that were described, by id; holding it keeps any id from being used twice.
    """
    if isinstance(value, _PLAIN):
        yield repr(value)
        return
    # What occurs several times, or calls itself, is described once.
    if id(value) in visited or (isinstance(value, tuple | list | Mapping) and len(value) > _LONGEST):
        return
    visited[id(value)] = value
    if isinstance(value, tuple | list):
        for item in value:
            yield from _describe(item, visited)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key)
            yield from _describe(value[key], visited)
    elif isinstance(value, functools.partial):
        yield from _describe((value.func, value.args, value.keywords), visited)
    elif isinstance(value, types.MethodType):
        yield from _describe(value.__func__, visited)
    elif isinstance(value, types.FunctionType):
        yield from _describe_function(inspect.unwrap(value), visited)
    elif isinstance(value, type):
        for name, item in sorted(vars(value).items()):
            if isinstance(item, types.FunctionType):
                yield name
                yield from _describe(item, visited)
    elif dataclasses.is_dataclass(value):  # a network
        yield from _describe(type(value), visited)
        for field in dataclasses.fields(value):
            yield field.name
            yield from _describe(getattr(value, field.name, None), visited)
    elif isinstance(getattr(value, '__wrapped__', None), types.FunctionType):  # a jitted function
        yield from _describe(value.__wrapped__, visited)


def _describe_function(function: types.FunctionType, visited: dict[int, Any]) -> Iterator[str]:
    yield from _describe_code(function.__code__)
    yield from _describe((function.__defaults__, function.__kwdefaults__), visited)
    for cell in function.__closure__ or ():
        try:
            yield from _describe(cell.cell_contents, visited)
        except ValueError:  # a cell that has no value yet
            continue
    # Functions of other modules are not followed: a digest of all of JAX would change with every version.
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if isinstance(called, types.FunctionType | type) and called.__module__ == function.__module__:
            yield from _describe(called, visited)
        elif isinstance(called, _PLAIN) and name.isidentifier():
            yield f'{name} = {called!r}'


def _describe_code(code: types.CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield ' '.join((*code.co_names, *code.co_varnames, *code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _describe_code(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)
