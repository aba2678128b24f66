"""Selects the examples that an evaluator shows: correct ones, and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Iterable

SAMPLES = 32  # images in one gallery


def select_samples(batches: Iterable[Iterable[tuple]]) -> tuple[list[tuple], list[tuple]]:
    """Selects up to `SAMPLES` correct and incorrect predictions, batch by batch.

    Args:
      batches: for each batch, its rows (image, target, prediction, probability of the prediction).

    Returns:
      The first correct rows in their order, and the incorrect ones with the highest probability, most confident first.
    """
    correct: list[tuple] = []
    incorrect: list[tuple] = []
    for rows in batches:
        for row in rows:
            if row[1] != row[2]:
                incorrect.append(row)
            elif len(correct) < SAMPLES:
                correct.append(row)
        incorrect = sorted(incorrect, key=lambda row: -row[3])[:SAMPLES]  # at most one batch beyond SAMPLES in memory
    return correct, incorrect


def empty_title(title: str) -> str:
    """Returns the title of a gallery without samples: 'wrong, surest first: ...' becomes 'wrong: none'."""
    return f'{title.partition(":")[0].partition(",")[0]}: none'
