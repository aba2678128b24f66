"""Published weights for the networks of `canon.models`: between publishers' names and layouts and Flax trees."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use
from canon.weights.detectors import detector_reader
from canon.weights.fcn import convolutionalise, fcn_reader
from canon.weights.files import is_weights, read, write
from canon.weights.layout import Names, from_torch, substitute, to_torch
from canon.weights.published import find_names, load_variables, reader, save_variables

__all__ = [
    'Names', 'convolutionalise', 'detector_reader', 'fcn_reader', 'find_names', 'from_torch', 'is_weights',
    'load_variables', 'read', 'reader', 'save_variables', 'substitute', 'to_torch', 'write',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
