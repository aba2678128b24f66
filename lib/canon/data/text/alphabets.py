"""Texts as numbers: which character is which class. Class 0 is CTC's blank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError

ALPHANUMERIC = '0123456789abcdefghijklmnopqrstuvwxyz'


@dataclass(frozen=True)
class Alphabet:
    """Character i of `characters` is class i + 1. ignore_case: texts are read as lower case.

    Raises UsageError for no characters, one that stands twice, and capitals that `ignore_case` would never read.
    """

    characters: str = ALPHANUMERIC
    ignore_case: bool = False

    def __post_init__(self):
        twice = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if not self.characters:
            raise UsageError('an alphabet has at least one character')
        if twice:
            raise UsageError(f'alphabet {self.characters!r}: {twice[0]!r} stands twice')
        if self.ignore_case and self.characters != self.characters.lower():
            raise UsageError(f'alphabet {self.characters!r} has capitals, which ignore_case never reads; drop them')

    def __len__(self) -> int:
        return len(self.characters)

    def filter(self, text: str) -> str:
        """Returns `text` without the characters that the alphabet does not hold."""
        text = text.lower() if self.ignore_case else text
        return ''.join(c for c in text if c in self.characters)

    def refusal(self, text: str, max_length: int) -> str | None:
        """Why `text` cannot be a label; None where it can."""
        text = text.lower() if self.ignore_case else text
        strange = sorted(set(text) - set(self.characters))
        if strange:
            return f'{strange[0]!r} is not in the alphabet {self.characters!r}'
        return f'it is longer than max_length={max_length}' if len(text) > max_length else None

    def encode(self, text: str, max_length: int) -> Example:
        """'label' int32 [max_length], 0 beyond 'label_length' int32. Raises CanonError for a text that does not fit."""
        why = self.refusal(text, max_length)
        if why:
            raise CanonError(f'the text {text!r} cannot be a label: {why}')
        numbers = [self.characters.index(c) + 1 for c in (text.lower() if self.ignore_case else text)]
        label = np.zeros(max_length, np.int32)
        label[: len(numbers)] = numbers
        return {'label': label, 'label_length': np.int32(len(numbers))}

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of classes 1, 2, ...; those without a character (0, -1) are left out."""
        return ''.join(self.characters[n - 1] for n in map(int, numbers) if n > 0)
