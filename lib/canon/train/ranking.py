"""Compares the values of a metric in its direction, and chooses among saved steps: the one place that does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence


def is_better(value: float, best: float | None, mode: str | None, min_delta: float = 0.0) -> bool:
    """Returns whether `value` improves on `best` by more than `min_delta`.

    Any finite value improves on None; NaN and infinities never improve.

    >>> is_better(0.9, 0.8, 'max'), is_better(0.9, 0.8, 'min'), is_better(0.9, 0.8, 'max', min_delta=0.2)
    (True, False, False)

    Args:
      value: the new value.
      best: the best value so far; None if there is none.
      mode: 'max' if higher is better, 'min' if lower is.
      min_delta: the difference that does not count as an improvement.
    """
    if mode not in ('min', 'max'):
        raise ValueError(f"mode={mode!r} must be 'min' or 'max'")
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value - best > min_delta if mode == 'max' else best - value > min_delta


def best_step(values: Mapping[int, float], mode: str | None) -> int:
    """Returns the step with the best of `values`, which must not be empty; the latest of several."""
    best, *later = sorted(values)
    for step in later:
        if not is_better(values[best], values[step], mode):
            best = step
    return best


def choose_steps(
    steps: Sequence[int], average: int, find_best: Callable[[], int | None]
) -> tuple[str, tuple[int, ...]]:
    """Returns which of the saved `steps` a run hands on, by name: its 'average', else its 'best', else its 'last'."""
    if average > 1:
        return 'average', tuple(steps[-average:])
    best = find_best()
    return ('last', (steps[-1],)) if best is None else ('best', (best,))
