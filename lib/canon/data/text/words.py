"""Word lists as arrays: words in the order that `canon.ops.words` searches, and their most frequent n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from canon.data.text.alphabets import Alphabet
from canon.errors import UsageError
from canon.named import Count


class NgramTable(NamedTuple):
    """The n-grams that a network tells apart."""

    texts: tuple[str, ...]
    codes: np.ndarray  # int32 [N], ascending: the characters' classes as a number in base `base`
    counts: np.ndarray  # int64 [N], words of the list that hold each
    base: int
    order: int

    @property
    def inverse_frequencies(self) -> np.ndarray:
        """Weights 1 / count for `canon.losses.words.ngram_loss`, float32 [N], scaled to a mean of 1.

        Jaderberg et al. 2014 scale gradients by the inverse frequency and state no constant; with a mean of 1 the loss
        has the size of an unweighted one.
        """
        weights = 1 / self.counts
        return (weights / weights.mean()).astype(np.float32)


def encode_words(words: Iterable[str], alphabet: Alphabet, max_length: Count) -> tuple[tuple[str, ...], np.ndarray]:
    """Encodes a word list: (words, labels int32 [W, max_length]) in the order of the labels, without repetition.

    Args:
      words: characters that the alphabet lacks are removed; words that are too long or empty are dropped.
      alphabet: of classes 1, 2, ...
      max_length: characters of the longest word.

    Raises:
      UsageError: no words are left.
    """
    texts = {alphabet.filter(word) for word in words}
    usable = [text for text in texts if 0 < len(text) <= max_length]
    if not usable:
        raise UsageError(f'none of {len(texts)} words has 1 to {max_length} characters of {alphabet.characters!r}')
    codes = {character: number for number, character in enumerate(alphabet.characters, 1)}
    rows = sorted((tuple(codes[c] for c in text), text) for text in usable)
    labels = np.zeros((len(rows), max_length), np.int32)
    for label, (classes, _) in zip(labels, rows, strict=True):
        label[: len(classes)] = classes
    return tuple(text for _, text in rows), labels


def take_words(words: Sequence[str], count: int | None, seed: int = 0) -> tuple[str, ...]:
    """Takes words of a list at random, without repetition; fewer of them are the first of more of the same seed.

    Args:
      words: a list of them.
      count: how many; None, or more than there are, takes all.
      seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(words))
    return tuple(words[place] for place in order[:count])


def count_ngrams(words: Iterable[str], alphabet: Alphabet, count: Count = 10_000, order: Count = 4) -> NgramTable:
    """Selects the n-grams of up to `order` characters that the most words hold (Jaderberg et al. 2014, section 3).

    Args:
      words: a list of them; an n-gram counts once per word, however often it occurs in it.
      alphabet: of classes 1, 2, ...; other characters are removed.
      count: n-grams that are kept; fewer if there are fewer.
      order: characters of the longest n-grams, 4 in the paper.

    Raises:
      UsageError: there are none, or their numbers do not fit 31 bits.
    """
    base = len(alphabet) + 1
    if base**order >= 1 << 31:
        raise UsageError(f'n-grams of order={order} over {base - 1} characters have no number of 31 bits; lower order')
    held: Counter[str] = Counter()
    for word in words:
        text = alphabet.filter(word)
        held.update({text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1)})
    if not held:
        raise UsageError(f'the words have no characters of {alphabet.characters!r}')
    # Equally frequent ones in alphabetical order: the list is the same whatever the order of the words.
    chosen = [text for text, _ in sorted(held.items(), key=lambda item: (-item[1], item[0]))[:count]]
    codes = {character: number for number, character in enumerate(alphabet.characters, 1)}
    numbers = []
    for text in chosen:
        number = 0
        for character in text:
            number = number * base + codes[character]
        numbers.append(number)
    by_code = np.argsort(numbers)
    texts = tuple(chosen[i] for i in by_code)
    return NgramTable(
        texts, np.array(numbers, np.int32)[by_code], np.array([held[t] for t in texts], np.int64), base, order
    )
