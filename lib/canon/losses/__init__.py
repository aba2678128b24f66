"""Losses: pure functions of arrays, one value a row, named for what they are."""

from canon.losses.classification import softmax_cross_entropy
from canon.losses.ctc import ctc

__all__ = ['ctc', 'softmax_cross_entropy']
