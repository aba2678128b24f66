"""Losses: pure functions of arrays, one value a row, named for what they are."""

from canon.losses.classification import maximum_a_posteriori, softmax_cross_entropy
from canon.losses.ctc import ctc

__all__ = ['ctc', 'maximum_a_posteriori', 'softmax_cross_entropy']
