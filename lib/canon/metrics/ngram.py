"""N-gram language models with interpolated modified Kneser-Ney smoothing, in numpy: the baseline of neural ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canon.errors import UsageError

_FALLBACK = (0.5, 1.0, 1.5)  # discounts if the counts of counts do not determine them: KenLM's --discount_fallback


class _Order(NamedTuple):
    """The distinct k-grams of a text, numbered; a context is the (k - 1)-gram before the last word."""

    keys: np.ndarray  # int64 [k-grams], sorted: (number of the suffix of k - 1 words) * (V + 1) + first word
    counts: np.ndarray  # float64 [k-grams]: occurrences, or below the highest order the distinct words before it
    totals: np.ndarray  # float64 [contexts]: sums of counts
    backoff: np.ndarray  # float64 [contexts]: the mass that discounting frees
    discounts: tuple[float, float, float]


class KneserNey:
    """Interpolated modified Kneser-Ney of any order over token numbers (Chen and Goodman 1999).

    p_k(w | h) = (max(c_k(hw) - D_k(c_k(hw)), 0) + gamma_k(h) p_{k-1}(w | h')) / sum over w of c_k(hw),

    where c_n is a count, c_k for k < n the number of distinct words that precede the k-gram, h' is h without its first
    word, gamma_k(h) the sum of the discounts D_k over h's successors, and p_0 = 1 / V. For a context that never
    occurred p_k = p_{k-1}. With n_j k-grams of count j and Y = n_1 / (n_1 + 2 n_2), the discounts are
    D_k(j) = j - (j + 1) Y n_{j+1} / n_j for j = 1, 2 and 3 (or more); they are 1/2, 1 and 3/2 if an n_j is 0 or a D_k
    is negative. The text is one sequence, preceded by n - 1 boundary marks that are never predicted.

        >>> import numpy as np
        >>> model = KneserNey(np.array([0, 1, 0, 1, 0, 2]), vocabulary_size=3, order=2)
        >>> model.probabilities(np.array([0])).argmax()
        np.int64(1)
    """

    def __init__(self, tokens: np.ndarray, vocabulary_size: int, order: int = 5):
        """Counts the k-grams of a text.

        Args:
          tokens: integers [n] in [0, vocabulary_size), the training text.
          vocabulary_size: V; tokens that do not occur share the mass that discounting frees.
          order: n, the words of the longest k-grams.

        Raises:
          UsageError: the text is empty, the order is below 1, or a token is out of range.
        """
        if order < 1:
            raise UsageError(f'order={order} must be at least 1')
        if not len(tokens):
            raise UsageError('an n-gram model needs a text, but there are no tokens')
        self.vocabulary_size, self.order = vocabulary_size, order
        self._orders = self._count(self._pad_stream(tokens))

    @property
    def discounts(self) -> list[tuple[float, float, float]]:
        """(D(1), D(2), D(3 or more)) of each order, from 1 to n."""
        return [o.discounts for o in self._orders]

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """Returns log p of each token of a text given those before it, in nats, float64 [n]."""
        padded = self._pad_stream(tokens)
        return np.log(self._interpolate(padded, np.arange(self.order - 1, len(padded))))

    def probabilities(self, context: np.ndarray) -> np.ndarray:
        """Returns p(w | context) of all V tokens, float64 [V]; the context is all tokens of a text up to w."""
        n, size = self.order, self.vocabulary_size
        padded = self._pad_stream(context)
        rows = np.empty((size, n), np.int64)
        rows[:, : n - 1] = padded[len(padded) - (n - 1) :]
        rows[:, -1] = np.arange(size)
        return self._interpolate(rows.ravel(), np.arange(n - 1, size * n, n))

    def _pad_stream(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the tokens after n - 1 boundary marks, which have the number V."""
        tokens = np.asarray(tokens, np.int64)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary_size:
            raise UsageError(
                f'tokens {tokens.min()} to {tokens.max()} do not fit vocabulary_size={self.vocabulary_size}'
            )
        return np.concatenate([np.full(self.order - 1, self.vocabulary_size), tokens])

    def _count(self, padded: np.ndarray) -> list[_Order]:
        """Numbers the k-grams for k = 1 to n, then counts them for k = n to 1, as c_k needs the (k + 1)-grams."""
        numbers, keys, suffixes, contexts = [np.zeros(len(padded), np.int64)], [], [], []
        for k in range(1, self.order + 1):
            # Entry i of `numbers` is the number of the k-gram that ends at i; -1 where the text is too short.
            occurrences = numbers[-1][k - 1 :] * (self.vocabulary_size + 1) + padded[: len(padded) - k + 1]
            distinct, positions, numbering = np.unique(occurrences, return_index=True, return_inverse=True)
            keys.append(distinct)
            suffixes.append(numbers[-1][positions + k - 1])
            contexts.append(numbers[-1][positions + k - 2])
            numbers.append(np.concatenate([np.full(k - 1, -1), numbering]))
        counts = np.bincount(numbers[-1][self.order - 1 :], minlength=len(keys[-1]))
        orders = []
        for k in range(self.order, 0, -1):
            size = len(keys[k - 2]) if k > 1 else 1
            orders.append(_make_order(keys[k - 1], counts.astype(np.float64), contexts[k - 1], size))
            counts = np.bincount(suffixes[k - 1][counts > 0], minlength=size)
        return orders[::-1]

    def _interpolate(self, padded: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Returns p of the tokens at `positions` given those before them."""
        p = np.full(len(positions), 1 / self.vocabulary_size)
        suffix = np.zeros(len(padded), np.int64)  # the number of the (k - 1)-gram that ends here; -1 if it is unknown
        for k, order in enumerate(self._orders, 1):
            context, first = suffix[positions - 1], np.roll(padded, k - 1)
            key = suffix * (self.vocabulary_size + 1) + first
            index = np.searchsorted(order.keys, key).clip(max=len(order.keys) - 1)
            suffix = np.where((suffix >= 0) & (order.keys[index] == key), index, -1)
            gram = suffix[positions]
            count = np.where(gram >= 0, order.counts[gram], 0)
            total = np.where(context >= 0, order.totals[context], 0)
            discounted = np.maximum(count - _discount(count, order.discounts), 0)
            occurs = total > 0
            p = np.where(occurs, (discounted + order.backoff[context] * p) / np.where(occurs, total, 1), p)
        return p


def _make_order(keys: np.ndarray, counts: np.ndarray, contexts: np.ndarray, size: int) -> _Order:
    discounts = _estimate_discounts(counts)
    totals = np.bincount(contexts, counts, size)
    backoff = np.bincount(contexts, _discount(counts, discounts), size)
    return _Order(keys, counts, totals, backoff, discounts)


def _estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """Estimates the discounts from the numbers of k-grams with counts 1, 2, 3 and 4."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if not n1 or not n2 or not n3 or not n4:
        return _FALLBACK
    y = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return discounts if all(0 <= d <= c for c, d in enumerate(discounts, 1)) else _FALLBACK


def _discount(counts: np.ndarray, discounts: tuple[float, float, float]) -> np.ndarray:
    return np.array([0.0, *discounts])[np.minimum(counts, 3).astype(np.int64)]
