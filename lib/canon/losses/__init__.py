"""Losses: pure functions of arrays, one value a row, named for what they are."""

from canon.losses.classification import softmax_cross_entropy

__all__ = ['softmax_cross_entropy']
