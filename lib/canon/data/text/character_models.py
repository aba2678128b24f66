"""Character n-gram models for decoding: tables of log probabilities, fitted to the words of a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np

from canon.data.text.alphabets import Alphabet
from canon.errors import UsageError
from canon.named import Range

_LARGEST = 1 << 26  # entries of a table, 256 MB


def fit_character_model(words: Iterable[str], alphabet: Alphabet, order: Annotated[int, Range(1)] = 3) -> np.ndarray:
    """Fits log p(character | the n - 1 characters before it) with interpolated Witten-Bell smoothing.

        p_k(c | h) = (count(h c) + T(h) p_{k-1}(c | h')) / (count(h) + T(h)),

    where T(h) is the number of distinct characters that follow h, h' is h without its first character, and p_0 is
    uniform (Witten & Bell 1991, method C; Chen & Goodman 1999, section 2.4). A history that never occurred has
    p_k = p_{k-1}. Class 0 stands for the start of a word in a history, and is predicted at its end.

    Args:
      words: each counts as often as it occurs; characters outside the alphabet are removed.
      alphabet: of classes 1, 2, ...
      order: n, characters of the longest n-grams.

    Returns:
      float32 [C^(n-1), C] with C = 1 + the characters, for `canon.ops.ctc.prefix_beam_search`. The row of a history is
      its number in base C, the last character the lowest digit.

    Raises:
      UsageError: there are no words, or the table would not fit into memory.
    """
    classes = len(alphabet) + 1
    if classes**order > _LARGEST:
        raise UsageError(
            f'a character model of order={order} for {classes} classes has {classes**order:,} entries, more than '
            f'{_LARGEST:,}; lower the order'
        )
    codes = {character: number for number, character in enumerate(alphabet.characters, 1)}
    rows = [[codes[c] for c in alphabet.filter(word)] for word in words]
    rows = [row for row in rows if row]
    if not rows:
        raise UsageError('a character model needs words, but none has a character of the alphabet')
    # Each word after n - 1 starts and before an end; the starts of the next word are those of the stream.
    padding = [0] * (order - 1)
    stream = np.array([c for row in rows for c in (*padding, *row, 0)], np.int64)
    lengths = np.array([order + len(row) for row in rows])  # in the stream, starts and end included
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    ends = np.flatnonzero(np.arange(len(stream)) - first >= order - 1)  # what is predicted: no start
    table = np.full((1, classes), 1 / classes)
    for k in range(1, order + 1):
        grams = sum(stream[ends - back] * classes**back for back in range(k))
        counts = np.bincount(grams, minlength=classes**k).reshape(-1, classes)
        total, kinds = counts.sum(1, keepdims=True), (counts > 0).sum(1, keepdims=True)
        # The row of h' is that of h modulo C^(k-2): the first character is the highest digit.
        lower = np.tile(table, (len(counts) // len(table), 1))
        table = np.where(total > 0, (counts + kinds * lower) / np.maximum(total + kinds, 1), lower)
    return np.log(table).astype(np.float32)
