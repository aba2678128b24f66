"""Metrics of language models, from a `Mean` of nats a token: total is the text's -log p, weight its tokens."""

from __future__ import annotations

import math

from canon.errors import UsageError
from canon.metrics.mean import Mean


def perplexity(nats: Mean) -> float:
    """exp of the mean: among how many equally likely tokens the model wavers. inf beyond float64."""
    mean = float(nats.value)
    return math.exp(mean) if mean < 709 else math.inf


def bits_per(nats: Mean, count: float | None = None) -> float:
    """Bits a token or, with `count` characters (bytes) of the same text, bits a character: total / count / ln 2.

    Over characters a model of words or subwords compares with one of characters. Raises UsageError for a count of 0.
    """
    count = float(nats.weight) if count is None else count
    if count <= 0:
        raise UsageError(f'bits per character of {count} characters')
    return float(nats.total) / count / math.log(2)
