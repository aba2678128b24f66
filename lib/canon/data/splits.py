"""Slices of a split by name, as TFDS writes them: 'train', 'train[:90%]', 'train[100:]'."""

import re

from canon.errors import UsageError

_SPLIT = re.compile(r'(?P<base>[\w.-]+)(\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?$')


def parse(split: str) -> tuple[str, str | None, str | None]:
    """('train', None, '90%') of 'train[:90%]'. Raises UsageError for anything else."""
    match = _SPLIT.match(split)
    if not match:
        raise UsageError(f"split={split!r} is neither a name nor a slice such as 'train[:90%]' or 'train[100:]'")
    return match['base'], match['first'], match['last']


def bounds(first: str | None, last: str | None, n: int) -> slice:
    """The slice of n examples; percentages are rounded to the nearest example, so adjacent ones meet."""
    return slice(*(_place(place, n) for place in (first, last)))


def _place(place: str | None, n: int) -> int | None:
    if place is None or not place.endswith('%'):
        return None if place is None else int(place)
    return round(n * int(place[:-1]) / 100)
