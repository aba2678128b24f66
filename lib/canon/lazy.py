"""Packages whose public names load on first use, so that importing one does not import all that it could need."""

import ast
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any


def load_on_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` (PEP 562) of a package whose names load on first use.

    The names are those that the `__init__.py` of the package imports under `if TYPE_CHECKING:`, where type checkers and
    editors see them, too: there is no second list. The file is read when the first name is used.

        if TYPE_CHECKING:
            from canon.train.loop import fit
        else:
            __getattr__, __dir__ = load_on_use(__name__)
    """

    @functools.cache
    def homes() -> dict[str, str]:
        return read_typed_imports(inspect.getsource(sys.modules[package]))

    def load(name: str) -> Any:
        # Asked by inspect and the import system themselves, of every module.
        if name.startswith('__') or name not in homes():
            raise AttributeError(f'module {package} has no attribute {name!r}')
        home = homes()[name]
        if home != package and hasattr(module := importlib.import_module(home), name):
            return getattr(module, name)
        return importlib.import_module(f'{home}.{name}')

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes()})

    return load, list_names


def read_typed_imports(source: str) -> dict[str, str]:
    """Returns {name: the module that it is imported from} for the imports of a source under `if TYPE_CHECKING:`."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    typed = [statement for block in blocks if ast.unparse(block.test) == 'TYPE_CHECKING' for statement in block.body]
    imports = [statement for statement in typed if isinstance(statement, ast.ImportFrom)]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}
