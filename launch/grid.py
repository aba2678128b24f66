"""Lists of values on the command line of a sweep: which runs `--config.seed=0,1,2 --config.tx.b1='0.9,0.99'` are.

Values are separated by `;`. Where a key holds one number, text or truth value, a comma separates them, too; where it
holds a tuple, a comma is the tuple's own: `transforms.chain=resize,random_flip` is one value, and
`transforms.chain='resize;resize,random_flip'` two. Nothing is split between quotes or brackets.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from canon.errors import UsageError
from experiments import overrides
from launch.flags import format_value

_BRACKETS = {'(': ')', '[': ']', '{': '}'}


class Lists(NamedTuple):
    """The overrides of a command line: `single` belong to every run; `several` has the texts of each swept key."""

    single: dict[str, str]
    several: dict[str, list[str]]


def split_lists(source: str, pairs: Iterable[tuple[str, str]], points: Sequence[Mapping[str, Any]]) -> Lists:
    """Separates the overrides with several values from those with one.

    Args:
      source: the config, FILE or FILE:ARG.
      pairs: (dotted key, text) of each override.
      points: those of the config's `sweep()`, {} if it has none: another name of a model has other keys.

    Raises:
      UsageError: a list has an empty value.
    """
    texts = dict(pairs)
    # Names and chains decide which arguments there are, so they are split first.
    names = {key: text for key, text in texts.items() if key.rpartition('.')[2] in ('name', 'chain')}
    choices = {key: split_values(key, text, key.endswith('chain')) for key, text in names.items()}
    chosen = [
        {**_to_texts(point), **dict(zip(choices, values, strict=True))}
        for point in points
        for values in itertools.product(*choices.values())
    ]
    for key, text in texts.items():
        if key not in names:
            # Without a comma there is no need to know the type, and so to read the config.
            tuple_valued = ',' in text and any(_takes_tuple(source, key, others) for others in chosen)
            choices[key] = split_values(key, text, tuple_valued)
    single = {key: choices[key][0] for key in texts if len(choices[key]) == 1}
    return Lists(single, {key: choices[key] for key in texts if key not in single})


def make_points(source: str, lists: Lists, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the product of the lists with the points of `sweep()`: the swept keys of each run, with their values.

    Raises UsageError, before anything runs, if the config does not take a value.
    """
    product = []
    for point in points:
        for texts in itertools.product(*lists.several.values()):
            swept = {**_to_texts(point), **dict(zip(lists.several, texts, strict=True))}
            values = overrides.apply(overrides.load(source), [*{**lists.single, **swept}.items()])
            combined = {**point, **{key: values[key] for key in lists.several}}
            if combined not in product:  # 0.1 and 1e-1 are the same run
                product.append(combined)
    return product


def split_values(key: str, text: str, tuple_valued: bool) -> list[str]:
    """Returns the values of a list; a text without separators is one value, as it is written.

        >>> split_values('seed', '0,1', tuple_valued=False)
        ['0', '1']
        >>> split_values('data.train.transforms.chain', 'resize;resize,random_flip', tuple_valued=True)
        ['resize', 'resize,random_flip']
        >>> split_values('text', '"a,b",c', tuple_valued=False)
        ['a,b', 'c']

    Raises UsageError if a value of several is empty.
    """
    values = _split(text, ';')
    if len(values) == 1 and not tuple_valued:
        values = _split(text, ',')
    if len(values) == 1 and (tuple_valued or not re.search('[;,]', text)):
        return [text]
    if '' in values:
        raise UsageError(f"--config.{key}={text}: a value of the list is empty; write '' for an empty text")
    return values if tuple_valued else [_unquote(value) for value in values]


def _split(text: str, separator: str) -> list[str]:
    """Splits a text at a separator that stands neither between quotes nor between brackets."""
    values, start = [], 0
    quote, closing = '', []
    for i, letter in enumerate(text):
        if quote:
            quote = '' if letter == quote else quote
        elif letter in '\'"' and text[start:i].rstrip()[-1:] in ('', *'([{,:'):  # not the apostrophe of a word
            quote = letter
        elif letter in _BRACKETS:
            closing.append(_BRACKETS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == separator and not closing:
            values.append(text[start:i].strip())
            start = i + 1
    return [*values, text[start:].strip()]


def _unquote(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' and text[0] not in text[1:-1]
    return text[1:-1] if quoted else text


def _to_texts(point: Mapping[str, Any]) -> dict[str, str]:
    return {key: format_value(key, value) for key, value in point.items()}


def _takes_tuple(source: str, key: str, names: Mapping[str, str]) -> bool:
    """Returns whether a key holds a tuple under overrides that choose names; False if there is no such key."""
    config = overrides.load(source)
    try:
        overrides.apply(config, list(names.items()))
    except UsageError:  # `make_points` reports it, with all overrides of the run
        return False
    return overrides.takes_tuple(config, key)
