"""Packages whose public names load on first use, so that importing one does not import all that it could need."""

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from canon.errors import MissingExtra


def load_on_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` (PEP 562) of a package whose names and modules load on first use.

    The names are those that the `__init__.py` of the package imports under `if TYPE_CHECKING:`, where type checkers and
    editors see them, too, and that `__all__` lists. The file is read when the first name is used. The modules are all
    those of the package. `dir` lists the names of `__all__` and the modules.

        if TYPE_CHECKING:
            from canon.train.loop import fit
        else:
            __getattr__, __dir__ = load_on_use(__name__)
    """

    @functools.cache
    def homes() -> dict[str, str]:
        names = read_typed_imports(inspect.getsource(sys.modules[package]))
        public = getattr(sys.modules[package], '__all__', ())  # a package may also import types of others for itself
        return {name: home for name, home in names.items() if name in public}

    @functools.cache
    def modules() -> frozenset[str]:
        return frozenset(module.name for module in pkgutil.iter_modules(sys.modules[package].__path__))

    def load(name: str) -> Any:
        # Asked by inspect and the import system themselves, of every module.
        if name.startswith('__') or not (name in homes() or name in modules()):
            raise AttributeError(f'module {package} has no attribute {name!r}')
        try:
            return _load(homes().get(name, package), name, package)
        except MissingExtra as error:
            # `inspect.getmembers`, hence `help`, skips the names that raise an AttributeError, and stops at others.
            if sys._getframe(1).f_globals.get('__name__') == 'inspect':
                raise AttributeError(str(error)) from error
            raise

    def list_names() -> list[str]:
        names = vars(sys.modules[package])
        special = [name for name in names if name.startswith('__')]
        return sorted({*special, *names.get('__all__', ()), *modules()})

    return load, list_names


def _load(home: str, name: str, package: str) -> Any:
    """Returns the attribute or the module `name` of the module `home`."""
    if home != package and hasattr(module := importlib.import_module(home), name):
        return getattr(module, name)
    return importlib.import_module(f'{home}.{name}')


def read_typed_imports(source: str) -> dict[str, str]:
    """Returns {name: the module that it is imported from} for the imports of a source under `if TYPE_CHECKING:`."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    typed = [statement for block in blocks if ast.unparse(block.test) == 'TYPE_CHECKING' for statement in block.body]
    imports = [statement for statement in typed if isinstance(statement, ast.ImportFrom)]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}
