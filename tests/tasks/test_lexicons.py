"""Lexica and character models against literal definitions: every word compared, every count by a dictionary."""

import itertools
from collections import Counter

import numpy as np
import pytest

from canon.data import Alphabet
from canon.data.text.character_models import fit_character_model
from canon.errors import UsageError
from canon.tasks.text.lexicons import BKTree, edit_distances, encode_texts

WORDS = ['a', 'ab', 'abba', 'baab', 'bb', 'abba', 'ab']


def distance(a, b):
    """Levenshtein's distance by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    if a[-1] == b[-1]:
        return distance(a[:-1], b[:-1])
    return 1 + min(distance(a[:-1], b), distance(a, b[:-1]), distance(a[:-1], b[:-1]))


def draw_words(count, longest, letters='abcé', seed=0):
    rng = np.random.default_rng(seed)
    return [''.join(rng.choice(list(letters), rng.integers(0, longest + 1))) for _ in range(count)]


def test_distances():
    a, b = draw_words(60, 5), draw_words(60, 6, seed=1)
    expected = [distance(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(edit_distances(*encode_texts(a), *encode_texts(b)), expected)
    np.testing.assert_array_equal(
        edit_distances(*encode_texts(a), *encode_texts(['cab'])), [distance(x, 'cab') for x in a]
    )


def test_the_tree_finds_what_comparing_every_word_finds():
    words = draw_words(300, 7, 'abcd')
    tree = BKTree(words)
    assert tree.words == list(dict.fromkeys(words))
    codes, lengths = encode_texts(tree.words)
    for text, most in itertools.product(['', 'abc', 'dddd', 'abcdabc', 'xyz'], [0, 1, 2, 3]):
        apart = edit_distances(codes, lengths, *encode_texts([text]))
        expected = {(tree.words[i], int(apart[i])) for i in np.flatnonzero(apart <= most)}
        found = tree.find(text, most)
        assert set(found) == expected
        assert len(found) == len(expected)
        assert [d for _, d in found] == sorted(d for _, d in found)


def test_the_tree_is_that_of_one_insertion_after_the_other():
    """Every node is at the distance of its branch from all of its ancestors; its parent was inserted before it."""
    tree = BKTree(draw_words(200, 6))
    parents, edges = tree._insert_words()
    for node in range(1, len(tree)):
        parent = parents[node]
        assert 0 <= parent < node
        assert distance(tree.words[node], tree.words[parent]) == edges[node]
    assert len(set(zip(parents[1:].tolist(), edges[1:].tolist(), strict=True))) == len(tree) - 1


def witten_bell(words, alphabet, order):
    """{(history, character): probability} by dictionaries; '^' is the start and '$' the end."""
    grams = Counter()
    for word in words:
        padded = '^' * (order - 1) + word + '$'
        for end, k in itertools.product(range(order - 1, len(padded)), range(1, order + 1)):
            grams[padded[end - k + 1 : end], padded[end]] += 1
    symbols = '$' + alphabet

    def p(history, character):
        lower = p(history[1:], character) if history else 1 / len(symbols)
        followers = [grams[history, s] for s in symbols]
        if not sum(followers):
            return lower
        kinds = sum(n > 0 for n in followers)
        return (grams[history, character] + kinds * lower) / (sum(followers) + kinds)

    return p


@pytest.mark.parametrize('order', [1, 2, 4])
def test_character_model(order):
    table = np.exp(fit_character_model([*WORDS, '?'], Alphabet('abc'), order))  # '?' has no character of the alphabet
    assert table.shape == (4 ** (order - 1), 4)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-6)
    p = witten_bell(WORDS, 'abc', order)
    for row, history in enumerate(itertools.product('^abc', repeat=order - 1)):
        if '^' in ''.join(history).lstrip('^'):  # a start within a word never occurs
            continue
        expected = [p(''.join(history), s) for s in '$abc']
        np.testing.assert_allclose(table[row], expected, rtol=1e-5, err_msg=str(history))


def test_unusable_lists_are_refused():
    with pytest.raises(UsageError, match='a lexicon needs at least one word'):
        BKTree([])
    with pytest.raises(UsageError, match='needs words, but none has a character'):
        fit_character_model(['..'], Alphabet('abc'))
    with pytest.raises(UsageError, match=r'order=6 for 37 classes has 2,565,726,409 entries'):
        fit_character_model(['abc'], Alphabet(), order=6)
