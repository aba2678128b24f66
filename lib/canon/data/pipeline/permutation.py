"""A permutation of n numbers in constant memory: any element is computed from its place.

A Feistel network over pairs (left, right) of the residues of two numbers whose product is n or little more, and a walk
along the cycle for results beyond n: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 3 and 5.
"""

from __future__ import annotations

import math

import numpy as np

_ROUNDS = 8  # of which each changes one half
# The finaliser of splitmix64 (Steele et al. 2014), in which every input bit changes each output bit with p about 1/2.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class KeyedPermutation:
    """A permutation of 0, ..., n - 1 that a generator draws: `permutation(places)` are the elements at these places."""

    def __init__(self, n: int, generator: np.random.Generator):
        self._n = n
        self._left = math.isqrt(n - 1) + 1  # the smallest number whose square is at least n
        self._right = -(-n // self._left)
        self._keys = generator.integers(1 << 64, size=_ROUNDS, dtype=np.uint64)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        elements = self._encrypt(places.astype(np.uint64))
        # Of the pairs, fewer than `left` are beyond n: a second step along the cycle is rare, and the walk ends.
        while (beyond := elements >= self._n).any():
            elements[beyond] = self._encrypt(elements[beyond])
        return elements.astype(places.dtype)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = np.divmod(values, np.uint64(self._right))
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + _mix(right, first) % self._left) % self._left
            right = (right + _mix(left, second) % self._right) % self._right
        return left * np.uint64(self._right) + right


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hashes numbers uint64, whose products wrap."""
    mixed = values ^ key
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
