"""Finds functions by the names that configs give, and suggests near names."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from canon.errors import MissingExtra, UsageError, describe_error
from canon.named.hints import check

_LISTED = 30  # names in a message that is still one line to read


def suggest(name: str, names: Iterable[Any]) -> str:
    """Returns `; did you mean 'x'?` with the names nearest to `name`, or a list of all names if none is near."""
    names = sorted(map(str, names))
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return '; did you mean ' + ' or '.join(repr(c) for c in close) + '?'
    more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
    return f'; there are {", ".join(names[:_LISTED])}{more}' if names else ''


IMPORTED = re.compile(r'[\w.]+:[a-zA-Z_]\w*')  # `package.module:function`, a function of any module


class Catalogue(NamedTuple):
    """Functions of one kind that configs select by name: models, optimizers, data sets. Adding one is adding a file.

    A name is `module.function`, or `function` alone if one module has it, or `my_package.module:function` of any module
    that can be imported. A function with an argument `name` is one that finds others, and does not belong. Modules are
    searched as text, and only the one that defines the name is imported: importing all of them would take seconds, and
    need every extra.

    Attributes:
      kind: what error messages call the functions: 'model', 'volume'.
      modules: names of modules, and of packages, whose modules then all belong to it.
      accepts: selects the functions of this kind among those of the modules, often by what they return.
    """

    kind: str
    modules: tuple[str, ...]
    accepts: Callable[[Callable], bool] = lambda function: True

    def get(self, name: str, where: str = '') -> Callable | None:
        """Returns the function that a name selects, or None.

        Raises:
          UsageError: several modules have it.
          MissingExtra: the module that has it needs a library that is not installed.
        """
        check(name, str, f'the name of a {self.kind}')
        if IMPORTED.fullmatch(name):  # not 'voc/2007:4.0.0', the version of a TFDS set
            return import_function(name, where or self.kind)
        module_name, _, function_name = name.rpartition('.')
        matches = [
            module
            for module in self._all_modules()
            if module_name in ('', module.rpartition('.')[2])
            and function_name in _defined_names(module)  # before `_functions`, which imports the module
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
        """Returns the sorted names of all functions, as `module.function` if `dotted`. Imports all modules.

        A module whose extra is not installed is left out: none of its functions could be called.
        """
        paths = set()
        for module in self._all_modules():
            with contextlib.suppress(MissingExtra):
                paths |= {f'{module}.{name}' for name in self._functions(module)}
        return sorted({'.'.join(path.split('.')[-2 if dotted else -1 :]) for path in paths})

    def _functions(self, module: str) -> list[str]:
        if not _defined_names(module):
            return []
        return [
            name
            for name, value in vars(importlib.import_module(module)).items()
            if inspect.isfunction(value) and value.__module__ == module and name[0] != '_'
            if 'name' not in inspect.signature(value).parameters and self.accepts(value)
        ]

    def _all_modules(self) -> list[str]:
        modules = []
        for name in self.modules:
            folders = getattr(_find_spec(name), 'submodule_search_locations', None)  # None for a module
            modules += [f'{name}.{m.name}' for m in pkgutil.iter_modules(folders) if not m.ispkg] if folders else [name]
        return modules


def _find_spec(module: str) -> ModuleSpec | None:
    """Finds a module as `importlib.util.find_spec` does, but does not import the packages around it."""
    parent = module.rpartition('.')[0]
    if not parent or module in sys.modules:
        return importlib.util.find_spec(module)
    return PathFinder.find_spec(module, getattr(_find_spec(parent), 'submodule_search_locations', None) or [])


@functools.cache
def _defined_names(module: str) -> frozenset[str]:
    """Returns the names of the public functions that the text of a module defines."""
    file = getattr(_find_spec(module), 'origin', None)
    text = Path(file).read_text(encoding='utf-8') if file and file.endswith('.py') else ''
    return frozenset(re.findall(r'^def ([a-zA-Z]\w*)\(', text, re.MULTILINE))


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
