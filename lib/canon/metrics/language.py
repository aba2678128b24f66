"""Metrics of language models, from a `Mean` of nats per token: total -log p of the text, weight its tokens."""

from __future__ import annotations

import math

from canon.errors import UsageError
from canon.metrics.mean import Mean


def perplexity(nats: Mean) -> float:
    """Returns exp(mean), the number of equally likely tokens that would be as hard to predict."""
    mean = float(nats.value)
    return math.exp(mean) if mean < 709 else math.inf  # exp(710) exceeds float64


def bits_per(nats: Mean, count: float | None = None) -> float:
    """Returns total / count / ln 2: bits per token, or per character (byte) if the text has `count` of them.

    Bits per character compare models of words, subwords and characters. Raises UsageError for a count of 0.
    """
    count = float(nats.weight) if count is None else count
    if count <= 0:
        raise UsageError(f'bits per character need a text; count={count}')
    return float(nats.total) / count / math.log(2)
