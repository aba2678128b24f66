"""Learning tasks of the literature, one file each: the `Task`, its evaluators and its figures, built from arguments."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
