"""Slices of splits in the notation of TFDS: 'train', 'train[:90%]', 'train[100:]'."""

import re

from canon.errors import UsageError

_SPLIT = re.compile(r'(?P<base>[\w.-]+)(\[(?P<first>-?\d{1,15}%?)?:(?P<last>-?\d{1,15}%?)?\])?')
_MANY = 10_000  # examples: every whole percentage of them is a whole number


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """Parses 'train[:90%]' as ('train', None, '90%'). Raises UsageError for anything else.

    >>> parse_split('train[:90%]')
    ('train', None, '90%')
    """
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if not match:
        raise UsageError(f"split={split!r} is neither a name nor a slice such as 'train[:90%]' or 'train[100:]'")
    for place in (match['first'], match['last']):
        if place and place.endswith('%') and abs(int(place[:-1])) > 100:
            raise UsageError(f'split={split!r}: {place} is more than 100%')
    return match['base'], match['first'], match['last']


def to_slice(first: str | None, last: str | None, n: int) -> slice:
    """Returns the slice of n examples; percentages round to the nearest example, so adjacent slices meet."""
    return slice(*(_place(place, n) for place in (first, last)))


def share_examples(first: str, second: str, total: int | None) -> bool:
    """Returns whether two splits share examples; each may be a sum such as 'train+test'.

    total: examples of the split that both slice. If None, only slices by percentages are compared. 'trainval' shares
    examples with 'train' and 'val', whatever the slices. Names in another notation, of a user's data set, share
    examples if they are equal.
    """
    try:
        parts = [[parse_split(part) for part in split.split('+')] for split in (first, second)]
    except UsageError:
        return first == second
    return any(_slices_share(a, b, total) for a in parts[0] for b in parts[1])


def _slices_share(a, b, total: int | None) -> bool:
    if a[0] != b[0]:
        return a[0] in _split_union(b[0]) or b[0] in _split_union(a[0])
    places = [place for place in (*a[1:], *b[1:]) if place]
    if total is None and not all(place.endswith('%') for place in places):
        return False
    # Percentages mean the same for any number of examples, up to rounding, in which adjacent slices agree.
    n = _MANY if total is None else total
    ranges = [range(n)[to_slice(*part[1:], n)] for part in (a, b)]
    return max(r.start for r in ranges) < min(r.stop for r in ranges)


def _split_union(base: str) -> tuple[str, ...]:
    """Returns the parts of Pascal VOC's image set 'trainval', which may follow a year: '2007-trainval'."""
    prefix = base.removesuffix('trainval')
    return (f'{prefix}train', f'{prefix}val') if prefix != base else ()


def _place(place: str | None, n: int) -> int | None:
    if place is None or not place.endswith('%'):
        return None if place is None else int(place)
    return round(n * int(place[:-1]) / 100)
