"""Reads values from the text of a command line, by the types that they may have."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from canon.errors import UsageError
from canon.named.calls import to_plain
from canon.named.hints import describe

_BOOLEANS = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}


def parse_text(text: str, allowed: Sequence[set[type]], where: str) -> Any:
    """Reads a value from text, by the types that it may have.

    Args:
      text: as written on the command line: `0.1`, `true`, `(1, 2)`, `resize,random_flip`, `None`.
      allowed: sets of plain types, tried in order; {object} allows anything that Python's literals can write.
      where: the flag, for errors.

    Raises:
      UsageError: the text is of none of the types.
    """
    for kinds in allowed:
        # From the narrowest to the widest: '1' is an int where ints are allowed, and text only if nothing else fits.
        for read in (_read_none, _read_bool, _read_int, _read_float, _read_tuple, _read_literal, _read_str):
            try:
                return read(text, kinds)
            except (ValueError, SyntaxError, MemoryError, RecursionError):  # '((((...' exhausts the parser of literals
                continue
    # dict.fromkeys drops repetitions and keeps the order.
    words = dict.fromkeys(describe(kind) for kinds in allowed for kind in sorted(kinds, key=str))
    raise UsageError(f'{where}={text}: must be {" or ".join(words)}')


def _require(kind: type, kinds: set[type]) -> None:
    if kind not in kinds:
        raise ValueError


def _read_none(text: str, kinds: set[type]) -> None:
    _require(type(None), kinds)
    if text.lower() != 'none':
        raise ValueError


def _read_bool(text: str, kinds: set[type]) -> bool:
    _require(bool, kinds)
    if text.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text.lower()]


def _read_int(text: str, kinds: set[type]) -> int:
    _require(int, kinds)
    return int(text)


def _read_float(text: str, kinds: set[type]) -> float:
    _require(float, kinds)
    return float(text)


def _read_tuple(text: str, kinds: set[type]) -> tuple:
    """Reads `(1, 2)`, `[1, 2]`, a single `1`, and words without quotes: `resize,random_flip`."""
    _require(tuple, kinds)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if not re.fullmatch(r'\(?[^()\[\]{}]*\)?', text.strip()):
            raise  # nested, so not a list of words
        value = tuple(_read_word(word.strip()) for word in text.strip('()[] ').split(',') if word.strip())
    return to_plain(value) if isinstance(value, tuple | list) else (value,)


def _read_literal(text: str, kinds: set[type]) -> Any:
    if not kinds & {object, dict}:  # other types have readers of their own
        raise ValueError
    value = _read_word(text)
    if object not in kinds and not isinstance(value, dict):
        raise ValueError
    return to_plain(value)


def _read_str(text: str, kinds: set[type]) -> str:
    _require(str, kinds)
    return text


def _read_word(text: str) -> Any:
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
