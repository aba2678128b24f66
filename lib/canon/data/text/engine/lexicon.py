"""The words that the engine draws: a list, numbers, and words invented by a chain of characters."""

from __future__ import annotations

import bisect
import functools
import itertools
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.data.text.engine.fonts import Fonts
from canon.errors import CanonError, UsageError

CASES: dict[str, Callable[[str], str]] = {
    'as written': lambda word: word,
    'lower': str.lower,
    'capitalised': lambda word: word[:1].upper() + word[1:].lower(),
    'upper': str.upper,
}
# Signs around a word: the end of a sentence, quotations, amounts, addresses.
_SIGNS = (
    *('{}.', '{},', '{}!', '{}?', '{}:', '{};', "{}'s", '{}-', '{}%'),
    *('"{}"', "'{}'", '({})', '-{}', '#{}', '${}', '@{}', '&{}', '*{}'),
)
_ORDER = 3  # characters on which the next one of an invented word depends
_DRAWS = 50  # per word that is invented, at most: a short list has a chain that repeats itself
_SHORTEST, _LONGEST = 2, 23  # letters of an embedded word; MJSynth's longest word has 23


def read_words(path: str | Iterable[str] | None, alphabet: Alphabet) -> tuple[tuple[str, ...], str]:
    """Reads a list of words, each once, and returns it with its name for messages.

    Words are brought to Unicode's normal form C, in which an accented letter is one character.

    Args:
      path: a text file with a word per line, or the words themselves; 'characters' for each character of the alphabet
        as a word; None for the 3,092 words of two letters or more in CPython's documentation (with Python 3.11;
        `pydoc_data.topics`), in lower case.
      alphabet: of the labels.

    Raises:
      UsageError: the file is missing, or there are no words.
    """
    if path is None:
        return _read_documentation(), "CPython's documentation"
    if path == 'characters':
        return tuple(alphabet.characters), 'the alphabet'
    lines, name = (text_files.read_lines(path), path) if isinstance(path, str) else (path, 'the list of words')
    words = tuple(dict.fromkeys(unicodedata.normalize('NFC', line.strip()) for line in lines if line.strip()))
    if not words:
        raise UsageError(f'{name} has no words')
    return words, str(name)


@functools.cache
def _read_documentation() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    found = {word.lower() for text in topics.values() for word in re.findall('[A-Za-z]+', text)}
    return tuple(sorted(word for word in found if _SHORTEST <= len(word) <= _LONGEST))


def list_lexicon(
    path: str | Iterable[str] | None, alphabet: Alphabet, max_length: int, count: int, seed: int = 0
) -> list[str]:
    """Returns `count` different words in random order, in lower case if the alphabet ignores it.

    Args:
      path: as for `read_words`. With None, words that a chain of characters invents follow those of CPython's
        documentation, if these are too few.
      alphabet: characters that it lacks are removed.
      max_length: characters of the longest word; longer ones are left out.
      count: how many; a list that has fewer gives all of them.
      seed: of the order, and of the invented words.

    >>> words = list_lexicon(None, Alphabet(ignore_case=True), 23, 5000)
    >>> len(words), len(set(words))
    (5000, 5000)
    """
    texts = map(alphabet.filter, read_words(path, alphabet)[0])
    words = list(dict.fromkeys(text for text in texts if 0 < len(text) <= max_length))
    rng = np.random.default_rng(seed)
    if path is None and len(words) < count:
        chain, kept = Lexicon(words, alphabet, max_length, invented=1.0), dict.fromkeys(words)
        for _ in range(_DRAWS * count):
            if len(kept) == count:
                break
            kept[chain.draw_text(rng)[0]] = None
        words = list(kept)
    return [words[place] for place in rng.permutation(len(words))[:count]]


def select_words(
    words: Iterable[str], alphabet: Alphabet, max_length: int, outside: str, fonts: Fonts, origin: str
) -> tuple[str, ...]:
    """Selects the words that can be labels and that a font can draw.

    Args:
      words: each once.
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      outside: 'refuse' raises an error for a word that cannot be a label or be drawn; 'filter' removes characters that
        are not in the alphabet first, and drops what still cannot; 'skip' drops such words. The number is logged.
      fonts: opened for the characters of all words.
      origin: of the words, for messages.

    Raises:
      UsageError: no word is left.
      CanonError: a word is refused.
    """
    kept: dict[str, None] = {}
    reasons: Counter[str] = Counter()
    for word in words:
        text = alphabet.filter(word) if outside == 'filter' else word
        problem = alphabet.find_problem(text, max_length) if text else 'none of its characters is in the alphabet'
        problem = problem or _find_joined(text) or fonts.find_problem(text)
        if problem and outside == 'refuse':
            raise CanonError(f"{origin}: the word {word!r}: {problem}; remove it, or set outside='filter' or 'skip'")
        if problem:
            reasons[problem] += 1
        else:
            kept[text] = None
    if not kept:
        first = next(iter(reasons), 'the list is empty')
        raise UsageError(f'{origin}: no word is left of {sum(reasons.values())} (the first: {first})')
    if reasons:
        some = '; '.join(f'{count}: {reason}' for reason, count in reasons.most_common(3))
        logging.getLogger('canon').warning('%s: %d words are skipped (%s)', origin, sum(reasons.values()), some)
    return tuple(kept)


def _find_joined(text: str) -> str | None:
    """Returns why glyphs that are drawn one by one would misspell a text, or None."""
    for c in text:
        if unicodedata.combining(c) or unicodedata.bidirectional(c) in ('R', 'AL'):
            return f'{c!r} (U+{ord(c):04X}) combines with its neighbours or is written to the left, which is not drawn'
    return None


class Lexicon:
    """Draws texts: words of a list, words invented after it, and numbers."""

    def __init__(
        self,
        words: Sequence[str],
        alphabet: Alphabet,
        max_length: int,
        cases: Sequence[str] = ('as written',),
        invented: float = 0.0,
        numbers: float = 0.0,
        strings: float = 0.0,
        signs: float = 0.0,
        can_draw: Callable[[str], bool] = lambda text: True,
        words_per_line: tuple[int, int] = (1, 1),
    ):
        """
        Args:
          words: the list.
          alphabet: of the labels. A case that it cannot encode is not drawn.
          max_length: characters of the longest text.
          cases: how words are written, each as likely: keys of `CASES`.
          invented: share of the texts that a Markov chain over the characters of the words invents.
          numbers: share of the texts that are numbers of one to six digits.
          strings: share of the texts that are 1 to `max_length` random characters of the words.
          signs: share of the texts with a sign before or after the word.
          can_draw: whether some font has all characters of a text. A word of the list replaces an invented one, or a
            number, that no font can draw, and a word is written as in the list if its case or its signs cannot be.
          words_per_line: least and most words of a text, with spaces between them. A line ends where the next word
            would exceed `max_length`, or where no font could draw it all.

        Raises:
          UsageError: a case is unknown, the shares of what is not a word of the list exceed 1, or lines have several
            words and the alphabet has no space.
        """
        for case in cases:
            if case not in CASES:
                raise UsageError(f'cases has {case!r}, but there are {", ".join(map(repr, CASES))}')
        if not cases:
            raise UsageError(f'cases is empty; there are {", ".join(map(repr, CASES))}')
        if invented + numbers + strings > 1 + 1e-9:
            raise UsageError(
                f'invented={invented:g}, numbers={numbers:g} and strings={strings:g} are more than 1 together'
            )
        if not 1 <= words_per_line[0] <= words_per_line[1]:
            raise UsageError(f'words_per_line={tuple(words_per_line)} must be (least, most), at least 1 and in order')
        if words_per_line[1] > 1 and ' ' not in alphabet.characters:
            raise UsageError(
                f'words_per_line={tuple(words_per_line)} needs an alphabet with a space, and this one has none'
            )
        self.words, self.alphabet, self.max_length = tuple(words), alphabet, max_length
        self.words_per_line = words_per_line
        self.cases, self.signs, self.can_draw = tuple(cases), signs, can_draw
        # Cumulative, so that one uniform number selects what is drawn.
        self._shares = tuple(itertools.accumulate((numbers, invented, strings)))
        if numbers:
            alphabet.encode('0123456789'[:max_length], max_length)  # raises if the alphabet lacks a digit
        self._chain = _count_characters(self.words) if invented else {}
        self._letters = sorted(set(''.join(self.words))) if strings else []

    def list_characters(self) -> set[str]:
        """Returns every character that a text may have."""
        letters = set(''.join(self.words))
        cased = {
            c for letter in letters for case in self.cases for c in CASES[case](letter) + CASES[case](f'a{letter}')
        }
        numerals = '0123456789' if self._shares[0] else ''
        spaces = {' '} if self.words_per_line[1] > 1 else set()
        return letters | cased | set(numerals) | spaces | set(''.join(_SIGNS) if self.signs else '') - set('{}')

    def draw_text(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draws a text that the alphabet can encode, and the same as written, with signs that may have no class."""
        text, written = self._draw_signed(rng)
        least, most = self.words_per_line
        # Without a draw for single words, so that these stay the same.
        for _ in range(1, rng.integers(least, most + 1) if most > 1 else 1):
            word, word_written = self._draw_signed(rng)
            longer, longer_written = f'{text} {word}', f'{written} {word_written}'
            if len(longer) > self.max_length or not self.can_draw(longer_written):
                break
            text, written = longer, longer_written
        return text, written

    def _draw_signed(self, rng: np.random.Generator) -> tuple[str, str]:
        """Draws a word with or without a sign, as `draw_text` returns a text."""
        use, form = rng.random(), _SIGNS[rng.integers(len(_SIGNS))]
        word = self._draw_word(rng)
        if use >= self.signs:
            return word, word
        written = form.format(word)
        # As published results do, which remove the signs of a text that the alphabet lacks.
        text = self.alphabet.filter(written)
        return (text, written) if len(text) <= self.max_length and self.can_draw(written) else (word, word)

    def _draw_word(self, rng: np.random.Generator) -> str:
        kind = bisect.bisect_right(self._shares, rng.random())
        word = self.words[rng.integers(len(self.words))]
        case = CASES[self.cases[rng.integers(len(self.cases))]]
        if kind < len(self._shares):
            other = (self._draw_number, self._invent, self._draw_string)[kind](rng)
            word = other if other and self.can_draw(other) else word
        text = case(word)
        # An alphabet of small letters that does not ignore case has no label for capitals; some capitals are longer.
        fits = self.alphabet.find_problem(text, self.max_length) is None
        return text if fits and self.can_draw(text) else word

    def _draw_number(self, rng: np.random.Generator) -> str:
        digits = int(rng.integers(1, min(6, self.max_length) + 1))
        return str(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))

    def _draw_string(self, rng: np.random.Generator) -> str:
        chosen = rng.integers(len(self._letters), size=rng.integers(1, self.max_length + 1))
        return ''.join(self._letters[i] for i in chosen).strip()

    def _invent(self, rng: np.random.Generator) -> str:
        """Draws a word from the chain; one that would become too long ends where it is cut."""
        text = ''
        while len(text) < self.max_length:
            characters, sums = self._chain[text[-_ORDER:]]
            character = characters[bisect.bisect_right(sums, int(rng.integers(sums[-1])))]
            if not character:
                break
            text += character
        return text


def _count_characters(words: Iterable[str]) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Returns {the last characters: (what may follow, cumulative counts)}; '' marks beginnings and ends."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word in words:
        for i in range(len(word) + 1):
            counts[word[max(i - _ORDER, 0) : i]][word[i : i + 1]] += 1
    return {
        context: (tuple(follow), tuple(itertools.accumulate(follow.values()))) for context, follow in counts.items()
    }
