"""The alphabet of a text recogniser: texts to class indices and back. Class 0 is the blank of CTC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError

ALPHANUMERIC = '0123456789abcdefghijklmnopqrstuvwxyz'


@dataclass(frozen=True)
class Alphabet:
    """The characters that a recogniser distinguishes: `characters[i]` is class i + 1.

    Attributes:
      characters: without repetition, at least one.
      ignore_case: encodes texts in lower case; `characters` then has no capitals.

    Raises:
      UsageError: `characters` is empty, has a duplicate, or has a capital although case is ignored.
    """

    characters: str = ALPHANUMERIC
    ignore_case: bool = False

    def __post_init__(self):
        duplicates = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if not self.characters:
            raise UsageError('an alphabet needs at least one character')
        if duplicates:
            raise UsageError(f'the alphabet {self.characters!r} contains {duplicates[0]!r} more than once')
        if self.ignore_case and self.characters != self.characters.lower():
            raise UsageError(
                f'the alphabet {self.characters!r} contains capitals, but ignore_case=True encodes lower case only; '
                'remove them'
            )

    def __len__(self) -> int:
        return len(self.characters)

    def filter(self, text: str) -> str:
        """Returns `text` without the characters that are not in the alphabet."""
        text = text.lower() if self.ignore_case else text
        return ''.join(c for c in text if c in self.characters)

    def find_problem(self, text: str, max_length: int) -> str | None:
        """Returns why `text` cannot be encoded, or None if it can."""
        text = text.lower() if self.ignore_case else text
        # Sorted, so that the message is the same in every process: the order of a set is not.
        unknown = sorted(set(text) - set(self.characters))
        if unknown:
            return f'{unknown[0]!r} is not in the alphabet {self.characters!r}'
        return f'it is longer than max_length={max_length}' if len(text) > max_length else None

    def encode(self, text: str, max_length: int) -> Example:
        """Encodes a text as 'label' int32 [max_length], 0 beyond 'label_length' int32.

        Raises CanonError for a text that is too long or has a character that is not in the alphabet.
        """
        problem = self.find_problem(text, max_length)
        if problem:
            raise CanonError(f'the text {text!r} cannot be a label: {problem}')
        classes = [self.characters.index(c) + 1 for c in (text.lower() if self.ignore_case else text)]
        label = np.zeros(max_length, np.int32)  # padded, so that labels stack to a batch
        label[: len(classes)] = classes
        return {'label': label, 'label_length': np.int32(len(classes))}

    def decode(self, classes: Iterable[int]) -> str:
        """Returns the text of class indices; blanks (0) and padding (-1) are skipped."""
        return ''.join(self.characters[n - 1] for n in map(int, classes) if n > 0)
