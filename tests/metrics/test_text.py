"""Edit distance against the table filled by hand; rates of characters and words."""

import jax
import numpy as np
import pytest

from canon.metrics import character_error_rate, edit_distance, word_accuracy

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
