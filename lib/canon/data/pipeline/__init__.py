"""From sources of examples to batches by number: sources, order, randomness, batches, reader processes."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
