"""Published weights of the networks of `canon.models`: their publishers' names and layouts, to and from Flax trees."""

from canon.weights.files import is_weights, read, write
from canon.weights.layout import Names, from_torch, substitutions, to_torch
from canon.weights.published import load, names_of, reader, save

__all__ = [
    'Names', 'from_torch', 'is_weights', 'load', 'names_of', 'read', 'reader', 'save', 'substitutions', 'to_torch',
    'write',
]  # fmt: skip
