"""A live line for long operations: how much is done, and the time left. On a terminal only; a pipe gets nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

FORM = '{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]{postfix}'
_Item = TypeVar('_Item')
_SECONDS = 1.0  # what takes less shows no line


def make_bar(
    total: int | None,
    title: str = '',
    unit: str = 'it',
    start: int = 0,
    quiet: bool = False,
    delay: float | None = None,
) -> tqdm:
    """Returns a bar, a context manager with `update(n=1)`; it is removed when it is closed.

    Args:
      total: of the units; None if it is not known, which leaves out the time left.
      title: of the operation.
      unit: what is counted, in the singular.
      start: units that are done before.
      quiet: shows nothing, as on a pipe or in a file, which a live line would fill with control characters.
      delay: seconds after which the line appears; 1 if None.
    """
    return tqdm(
        total=total,
        desc=title or None,
        unit=f' {unit}',
        initial=start,
        file=sys.stderr,
        disable=quiet or not sys.stderr.isatty(),
        bar_format=None if total is None else ('{desc}: ' if title else '') + FORM,
        dynamic_ncols=True,
        leave=False,
        delay=_SECONDS if delay is None else delay,
    )


def show_progress(items: Iterable[_Item], title: str, unit: str = 'it', total: int | None = None) -> Iterator[_Item]:
    """Yields items, with a bar of `make_bar` that counts them.

    >>> sum(show_progress([1, 2, 3], 'numbers'))
    6

    Args:
      items: what is iterated over.
      title: of the operation.
      unit: what is counted, in the singular.
      total: of the items; None takes their length, if they have one.
    """
    with make_bar(total if total is not None or not isinstance(items, Sized) else len(items), title, unit) as bar:
        for item in items:
            yield item
            bar.update()
