"""Published weights of the networks of `canon.models`: their publishers' names and layouts, to and from Flax trees."""

from canon.weights.layout import Names, from_torch, substitutions, to_torch

__all__ = ['Names', 'from_torch', 'substitutions', 'to_torch']
