"""Edit distance against the table filled by hand; rates of characters and words."""

import jax
import numpy as np
import pytest

from canon.data import Alphabet
from canon.metrics import character_error_rate, edit_distance, score_texts, word_accuracy, word_error_rate

distance = jax.jit(edit_distance)


def levenshtein(a, b):
    """The whole table in loops."""
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    d[:, 0], d[0] = range(len(a) + 1), range(len(b) + 1)
    for i, j in np.ndindex(len(a), len(b)):
        d[i + 1, j + 1] = min(d[i, j + 1] + 1, d[i + 1, j] + 1, d[i, j] + (a[i] != b[j]))
    return d[-1, -1]


def pad(texts, width, fill):
    rows = np.full((len(texts), width), fill)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = list(text)
    return rows, np.array([len(text) for text in texts])


def words(*texts, width=9, fill=-1):
    return pad([list(map(ord, text)) for text in texts], width, fill)


@pytest.mark.parametrize(
    ('a', 'b', 'expected'),
    [('kitten', 'sitting', 3), ('', 'abc', 3), ('abc', '', 3), ('', '', 0), ('flaw', 'lawn', 2), ('aaaa', 'aa', 2)],
)
def test_known_distances(a, b, expected):
    assert distance(*words(a), *words(b)).tolist() == [expected]


def test_against_the_table():
    rng = np.random.default_rng(0)
    a, b = ([rng.integers(0, 3, rng.integers(0, most + 1)) for _ in range(300)] for most in (9, 12))
    expected = [levenshtein(x, y) for x, y in zip(a, b, strict=True)]
    for fill in (-1, 1):  # what stands in the padding does not matter
        assert distance(*pad(a, 9, fill), *pad(b, 12, 1 - fill)).tolist() == expected
    assert len(set(expected)) > 8


def test_rates():
    readings, labels = words('cat', 'dgo', 'bird', ''), words('cat', 'dog', 'birds', 'x', width=7, fill=99)
    mask = np.array([True, True, True, False])
    errors = character_error_rate(*readings, *labels, mask)
    assert (float(errors.total), float(errors.weight)) == (0 + 2 + 1, 3 + 3 + 5)
    right = word_accuracy(*readings, *labels, mask)
    assert (float(right.total), float(right.weight)) == (1, 3)
    assert float(character_error_rate(*readings, *labels).value) == pytest.approx(4 / 12)
    assert float(word_accuracy(*readings, *labels).value) == pytest.approx(1 / 4)


def test_a_word_is_right_only_without_errors():
    labels = words('abc', 'abc', 'abc', '', 'abcdefg', width=7)
    readings = words('abc', 'ab', 'abcd', '', 'abcdefgh', width=8)
    assert float(word_accuracy(*readings, *labels).total) == 2
    assert float(word_accuracy(*labels, *readings).total) == 2


def test_words_are_what_spaces_separate():
    """Against the score of strings, which is tested against jiwer; spaces at the ends and in a row, and empty texts."""
    rng = np.random.default_rng(0)
    alphabet = Alphabet('ab ')
    texts = [[''.join(rng.choice(list('ab '), rng.integers(0, n))) for _ in range(60)] for n in (12, 9)]
    texts[0][:4], texts[1][:4] = ['', ' ', 'a  b ', 'ab a ab'], ['a b', '', ' a b', 'ab ab a']
    arrays = []
    for side, columns in zip(texts, (14, 9), strict=True):
        labels = [alphabet.encode(text, columns)['label'] for text in side]
        # What is beyond the end may be anything.
        noise = [np.where(np.arange(columns) < len(text), x, 2) for text, x in zip(side, labels, strict=True)]
        arrays += [np.stack(noise), np.array([len(text) for text in side])]
    rate = jax.jit(word_error_rate, static_argnums=4)(*arrays, 3, np.arange(60) < 55)
    expected = score_texts(texts[0][:55], texts[1][:55], 'exact')['word_error_rate']
    assert (float(rate.total), float(rate.weight)) == (expected.total, expected.weight)
    assert 0 < expected.value < 2
