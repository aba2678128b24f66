"""The alphabet of a text recogniser: texts to class indices and back. Class 0 is the blank of CTC."""

from __future__ import annotations

import functools
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError

ALPHANUMERIC = '0123456789abcdefghijklmnopqrstuvwxyz'
_SHOWN = 100  # characters of an alphabet in messages
# Rows of the GB 2312-80 table by level: level 1 in the order of pronunciation, level 2 by radicals. Row 55 has 89
# characters, all others 94.
_GB2312_LEVELS = {1: range(16, 56), 2: range(56, 88)}


@functools.cache
def gb2312_characters(level: int) -> str:
    """Returns the Chinese characters of a level of GB 2312-80 in the order of the standard: 3,755 or 3,008.

    Args:
      level: 1 for the characters in common use, 2 for the others.

    Raises:
      UsageError: there is no such level.
    """
    if level not in _GB2312_LEVELS:
        raise UsageError(f'GB 2312-80 has levels 1 and 2, not {level}')
    codes = (bytes([0xA0 + row, 0xA0 + cell]) for row in _GB2312_LEVELS[level] for cell in range(1, 95))
    # The codec knows which cells of the table are empty.
    return ''.join(code.decode('gb2312', 'ignore') for code in codes)


# Alphabets by name. Each name repeats a letter, so that it is not a valid list of characters itself.
_NAMED: Mapping[str, str] = {
    'digits': '0123456789',
    'alphanumeric': ALPHANUMERIC,
    'alphanumeric_cased': '0123456789' + string.ascii_lowercase + string.ascii_uppercase,
    'printable_ascii': ''.join(map(chr, range(32, 127))),
}
_GB2312_NAMES = {'gb2312_level1': (1,), 'gb2312_level2': (2,), 'gb2312_levels': (1, 2)}


def find_characters(name: str) -> str:
    """Returns the characters of a named alphabet, and any other text as it is.

    The names are 'digits', 'alphanumeric' (36 characters), 'alphanumeric_cased' (62), 'printable_ascii' (95, with the
    space), 'gb2312_level1' (3,755), 'gb2312_level2' (3,008) and 'gb2312_levels' (both).

    >>> len(find_characters('gb2312_level1')), find_characters('abc')
    (3755, 'abc')
    """
    if name in _GB2312_NAMES:
        return ''.join(map(gb2312_characters, _GB2312_NAMES[name]))
    return _NAMED.get(name, name)


@functools.lru_cache(maxsize=64)
def _number_characters(characters: str) -> Mapping[str, int]:
    """Returns {character: its class}; searching the text would take as long as the alphabet for each character."""
    return {c: i for i, c in enumerate(characters, 1)}


@dataclass(frozen=True)
class Alphabet:
    """The characters that a recogniser distinguishes: `characters[i]` is class i + 1.

    Attributes:
      characters: without repetition, at least one; or the name of an alphabet (`find_characters`), which becomes its
        characters.
      ignore_case: encodes texts in lower case; `characters` then has no capitals.

    Raises:
      UsageError: `characters` is empty, has a duplicate, or has a capital although case is ignored.
    """

    characters: str = ALPHANUMERIC
    ignore_case: bool = False

    def __post_init__(self):
        object.__setattr__(self, 'characters', find_characters(self.characters))  # frozen for everyone else
        duplicates = sorted(c for c, count in Counter(self.characters).items() if count > 1)
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
        numbers = _number_characters(self.characters)
        return ''.join(c for c in text if c in numbers)

    def find_problem(self, text: str, max_length: int) -> str | None:
        """Returns why `text` cannot be encoded, or None if it can."""
        text = text.lower() if self.ignore_case else text
        # Sorted, so that the message is the same in every process: the order of a set is not.
        numbers = _number_characters(self.characters)
        unknown = sorted(c for c in set(text) if c not in numbers)
        if unknown:
            shown = self.characters if len(self.characters) <= _SHOWN else f'{self.characters[:_SHOWN]}...'
            return f'{unknown[0]!r} is not in the alphabet {shown!r}{self._explain_form(text)}'
        return f'it is longer than max_length={max_length}' if len(text) > max_length else None

    def _explain_form(self, text: str) -> str:
        """Returns a hint if the text could be encoded in another normal form of Unicode."""
        for form in ('NFC', 'NFD'):
            if all(c in _number_characters(self.characters) for c in unicodedata.normalize(form, text)):
                return f' (its accents are written in another form of Unicode: normalise it to {form})'
        return ''

    def encode(self, text: str, max_length: int) -> Example:
        """Encodes a text as 'label' int32 [max_length], 0 beyond 'label_length' int32.

        Raises CanonError for a text that is too long or has a character that is not in the alphabet.
        """
        problem = self.find_problem(text, max_length)
        if problem:
            raise CanonError(f'the text {text!r} cannot be a label: {problem}')
        numbers = _number_characters(self.characters)
        classes = [numbers[c] for c in (text.lower() if self.ignore_case else text)]
        label = np.zeros(max_length, np.int32)  # padded, so that labels stack to a batch
        label[: len(classes)] = classes
        return {'label': label, 'label_length': np.int32(len(classes))}

    def decode(self, classes: Iterable[int]) -> str:
        """Returns the text of class indices; blanks (0) and padding (-1) are skipped."""
        return ''.join(self.characters[n - 1] for n in map(int, classes) if n > 0)
