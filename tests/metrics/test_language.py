"""Kneser-Ney by hand, against loops over dicts, and summing to 1; perplexity, bits, BLEU and chrF."""

import doctest
import math
from collections import Counter

import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import KneserNey, Mean, bits_per, bleu, bleu_tokenizer, check_tokenizer, chrf, ngram, perplexity


def test_a_bigram_by_hand():
    """The text a b a b with V = 3. Bigrams: |a 1, ab 2, ba 1. Before a stand | and b, before b only a.

    Counts of counts have zeros, so D = 1/2, 1, 3/2. p(a) = (2 - 1 + 3/2 / 3) / 3 = 1/2, p(b) = (1 - 1/2 + 1/2) / 3,
    p(c) = 1/2 / 3. p(b | a) = (2 - 1 + 1 p(b)) / 2 = 2/3, p(a | b) = 1 - 1/2 + 1/2 p(a) = 3/4.
    """
    model = KneserNey(np.array([0, 1, 0, 1]), 3, order=2)
    np.testing.assert_allclose(model.probabilities([]), [3 / 4, 1 / 6, 1 / 12])
    np.testing.assert_allclose(model.probabilities([0]), [1 / 4, 2 / 3, 1 / 12])
    np.testing.assert_allclose(model.probabilities([0, 1]), [3 / 4, 1 / 6, 1 / 12])
    np.testing.assert_allclose(model.probabilities([2]), [1 / 2, 1 / 3, 1 / 6])  # c was never seen: the unigrams
    np.testing.assert_allclose(np.exp(model.log_probs(np.array([0, 1, 2]))), [3 / 4, 2 / 3, 1 / 12])


def test_discounts_by_hand():
    """Of a unigram text with n1 = 4, n2 = 3, n3 = 2, n4 = 1: Y = 4/10, D = 1 - 2Y 3/4, 2 - 3Y 2/3, 3 - 4Y 1/2."""
    counts = [1] * 4 + [2] * 3 + [3] * 2 + [4]
    model = KneserNey(np.repeat(np.arange(10), counts), 11, order=1)
    np.testing.assert_allclose(model.discounts[0], (0.4, 1.2, 2.2))
    freed = 4 * 0.4 + 3 * 1.2 + 3 * 2.2
    expected = [(c - d + freed / 11) / 20 for c, d in zip(counts, [0.4] * 4 + [1.2] * 3 + [2.2] * 3, strict=True)]
    np.testing.assert_allclose(model.probabilities([]), [*expected, freed / 11 / 20])


class Dicts:
    """The equations of the docstring, word by word."""

    def __init__(self, tokens, size, order):
        self.size, self.order = size, order
        text = [size] * (order - 1) + list(tokens)
        places = range(order - 1, len(text))
        self.counts = {order: Counter(tuple(text[i - order + 1 : i + 1]) for i in places)}
        for k in range(order - 1, 0, -1):
            self.counts[k] = Counter(gram[1:] for gram in self.counts[k + 1])
        self.discounts = {k: self._discounts(counts) for k, counts in self.counts.items()}

    @staticmethod
    def _discounts(counts):
        n = [0] + [sum(c == j for c in counts.values()) for j in (1, 2, 3, 4)]
        if 0 in n[1:]:
            return 0.5, 1.0, 1.5
        y = n[1] / (n[1] + 2 * n[2])
        d = tuple(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3))
        return d if all(0 <= x <= j for j, x in enumerate(d, 1)) else (0.5, 1.0, 1.5)

    def p(self, word, context, k=None):
        k = self.order if k is None else k
        if k == 0:
            return 1 / self.size
        context = context[len(context) - (k - 1) :]
        lower = self.p(word, context[1:], k - 1)
        follow = {gram[-1]: c for gram, c in self.counts[k].items() if gram[:-1] == context}
        if not follow:
            return lower

        def discount(c):
            return self.discounts[k][min(c, 3) - 1] if c else 0

        freed = sum(discount(c) for c in follow.values())
        c = follow.get(word, 0)
        return (max(c - discount(c), 0) + freed * lower) / sum(follow.values())


@pytest.mark.parametrize('order', [1, 2, 3, 5])
def test_against_loops_over_dicts(order):
    rng = np.random.default_rng(order)
    text = np.minimum(rng.geometric(0.3, 400) - 1, 8)
    held_out = rng.integers(0, 10, 60)  # 9 never occurs in the text
    fast, slow = KneserNey(text, 10, order), Dicts(text.tolist(), 10, order)
    begun = (10,) * (order - 1) + tuple(held_out.tolist())
    expected = [slow.p(begun[i], begun[i - order + 1 : i]) for i in range(order - 1, len(begun))]
    np.testing.assert_allclose(np.exp(fast.log_probs(held_out)), expected, rtol=1e-12)
    np.testing.assert_allclose(fast.discounts, [slow.discounts[k] for k in range(1, order + 1)])
    if 1 < order < 4:
        assert fast.discounts[-1] != (0.5, 1.0, 1.5)  # the paper's own are tried


@pytest.mark.parametrize('order', [1, 2, 4])
def test_probabilities_sum_to_one(order):
    text = np.random.default_rng(0).integers(0, 12, 500)
    model = KneserNey(text, 15, order)
    contexts = [text[:i] for i in (0, 1, 2, 9, 77)]
    unseen = [[13], [13, 14, 13, 14], [0, 14], [14, 0, 0, 0]]
    for context in (*contexts, *unseen):
        p = model.probabilities(context)
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert p.min() > 0
    chosen = [model.probabilities(text[:i])[text[i]] for i in range(20)]
    np.testing.assert_allclose(np.exp(model.log_probs(text[:20])), chosen)


def test_bad_arguments_are_refused():
    for tokens, order, message in (
        ([], 2, 'needs a text'),
        ([1], 0, 'order=0'),
        ([7], 2, 'vocabulary_size=5'),
        ([-1], 2, '-1'),
    ):
        with pytest.raises(UsageError, match=message):
            KneserNey(np.array(tokens), 5, order)


def test_perplexity_and_bits():
    nats = Mean(8 * math.log(4), 8)
    assert perplexity(nats) == pytest.approx(4)
    assert bits_per(nats) == pytest.approx(2)
    assert bits_per(nats, 32) == pytest.approx(0.5)
    assert perplexity(Mean(1e6, 1)) == math.inf
    with pytest.raises(UsageError):
        bits_per(nats, 0)


def test_bleu_by_hand():
    """5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples, equal lengths: the geometric mean."""
    actual = bleu(['the cat sat on a mat'], ['the cat sat on the mat'])
    assert actual.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert 'tok:13a|smooth:exp' in actual.signature
    assert 'case:mixed' in actual.signature
    assert bleu(['A b c d'], ['a b c d'], lowercase=True).value == pytest.approx(100)
    with pytest.raises(UsageError, match='got 2 for 1 translations'):
        bleu(['a'], ['a', 'b'])


def test_bleu_of_languages_without_spaces():
    """Characters of 今天天气很好啊 against one that differs at the end: 6 of 7, 5 of 6, 4 of 5, 3 of 4."""
    right, wrong = '今天天气很好啊', '今天天气很好吗'
    for code, name in (('zh', 'zh'), ('zh_CN', 'zh'), ('zh-Hans', 'zh'), ('ja', 'char'), ('th_TH', 'char')):
        assert bleu_tokenizer(code) == name
        assert bleu([right], [right], bleu_tokenizer(code)).value == pytest.approx(100)
        expected = 100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25
        assert bleu([wrong], [right], bleu_tokenizer(code)).value == pytest.approx(expected)
    assert {bleu_tokenizer(code) for code in ('de', 'pt_BR', 'fr', None, '')} == {'13a'}
    with pytest.raises(UsageError, match=r"sacrebleu has no tokenizer 'intel'.*'intl'"):
        check_tokenizer('intel')


def test_chrf_by_hand():
    """abcd against abce: F2 of the orders 1 to 4 is 3/4, 2/3, 1/2, 0; higher orders are not there and do not count."""
    actual = chrf(['abcd'], ['abce'])
    assert actual.value == pytest.approx(100 * (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    assert 'nc:6|nw:0' in actual.signature
    with pytest.raises(UsageError):
        chrf([], [])


def test_the_example_of_the_n_gram_model():
    assert doctest.testmod(ngram).failed == 0
