"""The n-gram model that a neural language model has to beat: interpolated modified Kneser-Ney, in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canon.errors import UsageError

_FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts give none, as KenLM's --discount_fallback


class _Order(NamedTuple):
    """The k-grams of the text by number; arrays over k-grams, or over their contexts, the (k - 1)-grams."""

    keys: np.ndarray  # sorted: number of the suffix, the (k - 1)-gram of its last words, and the first word, in one
    counts: np.ndarray  # float64: of the k-gram, or of the different words before it
    totals: np.ndarray  # float64 [contexts]: the sum of counts
    backoff: np.ndarray  # float64 [contexts]: the mass that its discounts free
    discounts: tuple[float, float, float]


class KneserNey:
    """Interpolated modified Kneser-Ney of any order over token numbers (Chen and Goodman 1999).

    p_k(w | h) = (max(c_k(hw) - D_k(c_k(hw)), 0) + gamma_k(h) p_{k-1}(w | h')) / sum over w of c_k(hw),

    where c_n counts, c_k below n is the number of different words that stand before the k-gram, h' is h without its
    first word, gamma_k(h) is what the discounts D_k of h's successors add up to, and p_0 = 1 / V. A context that never
    occurred leaves p_{k-1}. With n_j k-grams of count j and Y = n_1 / (n_1 + 2 n_2), the discounts are
    D_k(j) = j - (j + 1) Y n_{j+1} / n_j for j = 1, 2 and 3 (and more); 1/2, 1 and 3/2 where these are none (an n_j of
    0, or D below 0).
    The text is one sequence; n - 1 marks that are never predicted stand before it.
    """

    def __init__(self, tokens: np.ndarray, vocabulary_size: int, order: int = 5):
        """
        Args:
          tokens: integers [n] in [0, vocabulary_size), the text to learn from.
          vocabulary_size: V; tokens that do not occur share in the mass that discounting frees.

        Raises UsageError for an empty text, an order below 1 and tokens out of range.
        """
        if order < 1:
            raise UsageError(f'order={order}: an n-gram has at least one token')
        if not len(tokens):
            raise UsageError('an n-gram model needs a text; there are no tokens')
        self.vocabulary_size, self.order = vocabulary_size, order
        self._orders = self._count(self._padded(tokens))

    @property
    def discounts(self) -> list[tuple[float, float, float]]:
        """(D(1), D(2), D(3 and more)) of each order from 1 on."""
        return [o.discounts for o in self._orders]

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log p of each token given those before it, nats, float64 [n]. The text begins as the one that was learnt."""
        padded = self._padded(tokens)
        return np.log(self._interpolate(padded, np.arange(self.order - 1, len(padded))))

    def probabilities(self, context: np.ndarray) -> np.ndarray:
        """p(w | context) of all V tokens, float64 [V]; `context`: the tokens before, from the text's beginning on."""
        n, size = self.order, self.vocabulary_size
        padded = self._padded(context)
        rows = np.empty((size, n), np.int64)
        rows[:, : n - 1] = padded[len(padded) - (n - 1) :]
        rows[:, -1] = np.arange(size)
        return self._interpolate(rows.ravel(), np.arange(n - 1, size * n, n))

    def _padded(self, tokens: np.ndarray) -> np.ndarray:
        """[n - 1 marks, tokens]; the mark is number V."""
        tokens = np.asarray(tokens, np.int64)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary_size:
            raise UsageError(
                f'tokens {tokens.min()} to {tokens.max()} do not fit vocabulary_size={self.vocabulary_size}'
            )
        return np.concatenate([np.full(self.order - 1, self.vocabulary_size), tokens])

    def _count(self, padded: np.ndarray) -> list[_Order]:
        """Numbers the k-grams from k = 1 up, then counts them from k = n down: c_k needs the (k + 1)-grams."""
        numbers, keys, suffixes, contexts = [np.zeros(len(padded), np.int64)], [], [], []
        for k in range(1, self.order + 1):
            begun = numbers[-1][k - 1 :] * (self.vocabulary_size + 1) + padded[: len(padded) - k + 1]
            kinds, places, which = np.unique(begun, return_index=True, return_inverse=True)
            keys.append(kinds)
            suffixes.append(numbers[-1][places + k - 1])
            contexts.append(numbers[-1][places + k - 2])
            numbers.append(np.concatenate([np.full(k - 1, -1), which]))
        counts = np.bincount(numbers[-1][self.order - 1 :], minlength=len(keys[-1]))
        orders = []
        for k in range(self.order, 0, -1):
            size = len(keys[k - 2]) if k > 1 else 1
            orders.append(_order(keys[k - 1], counts.astype(np.float64), contexts[k - 1], size))
            counts = np.bincount(suffixes[k - 1][counts > 0], minlength=size)
        return orders[::-1]

    def _interpolate(self, padded: np.ndarray, places: np.ndarray) -> np.ndarray:
        """p of the tokens at `places` given those before them."""
        p = np.full(len(places), 1 / self.vocabulary_size)
        suffix = np.zeros(len(padded), np.int64)  # of the (k - 1)-gram that ends here; -1 for an unseen one
        for k, order in enumerate(self._orders, 1):
            context, first = suffix[places - 1], np.roll(padded, k - 1)
            key = suffix * (self.vocabulary_size + 1) + first
            found = np.searchsorted(order.keys, key).clip(max=len(order.keys) - 1)
            suffix = np.where((suffix >= 0) & (order.keys[found] == key), found, -1)
            gram = suffix[places]
            count = np.where(gram >= 0, order.counts[gram], 0)
            total = np.where(context >= 0, order.totals[context], 0)
            kept = np.maximum(count - _discount(count, order.discounts), 0)
            seen = total > 0
            p = np.where(seen, (kept + order.backoff[context] * p) / np.where(seen, total, 1), p)
        return p


def _order(keys: np.ndarray, counts: np.ndarray, contexts: np.ndarray, size: int) -> _Order:
    discounts = _discounts(counts)
    totals = np.bincount(contexts, counts, size)
    backoff = np.bincount(contexts, _discount(counts, discounts), size)
    return _Order(keys, counts, totals, backoff, discounts)


def _discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """From how many k-grams have the counts 1, 2, 3 and 4."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if not n1 or not n2 or not n3 or not n4:
        return _FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= d <= c for c, d in enumerate(found, 1)) else _FALLBACK


def _discount(counts: np.ndarray, discounts: tuple[float, float, float]) -> np.ndarray:
    return np.array([0.0, *discounts])[np.minimum(counts, 3).astype(np.int64)]
