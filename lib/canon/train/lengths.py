"""Turns lengths in a config, in any unit, into steps: here, once, and nowhere else.

`'300 steps'`, `'1e6 examples'`, `'30 epochs'` or `'5%'` (of `run.steps`) may be given wherever a number of steps is
expected: for the run, a schedule, the interval between evaluations. Plain integers are steps already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.named import to_plain

_NUMBER = r'(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?'
_LENGTH = re.compile(rf'^\s*({_NUMBER})\s*(steps?|epochs?|examples?|%)\s*$')
MOST = 2**31 - 1  # steps are counted in int32
KEYS = ('steps', 'stop_after', 'log_every', 'every', 'start')  # keys whose text may be a number without a unit


def resolve(config: Mapping[str, Any] | ConfigDict, batch_size: int | None, num_examples: int | None) -> ConfigDict:
    """Returns a copy of `config` in which every length is a whole number of steps, at least 1 (0 stays 0).

    Args:
      config: has `run.steps` if percentages are to have a meaning.
      batch_size: rows per step, of all processes together; None if it is not known.
      num_examples: rows per epoch; None for endless data.

    Raises:
      UsageError: a length has no number of steps, such as an epoch of endless data.
    """
    config = to_plain(config)
    total = config.get('run', {}).get('steps')
    if isinstance(total, str):
        if total.isdigit():
            total += ' steps'
        if '%' in total:
            raise UsageError(f'run.steps={total!r} is a percentage of itself; give steps, epochs or examples')
        total = steps_in(total, 'run.steps', batch_size, num_examples, None)

    def walk(value, where):
        if isinstance(value, dict):
            return {k: walk(v, f'{where}.{k}' if where else k) for k, v in value.items()}
        if isinstance(value, str) and value.isdigit() and where.rpartition('.')[2] in KEYS:
            return int(value)
        if isinstance(value, list | tuple):
            return tuple(walk(v, where) for v in value)
        if isinstance(value, str) and _LENGTH.match(value):
            return steps_in(value, where, batch_size, num_examples, total)
        return value

    return ConfigDict(walk(config, ''))


def steps_in(length: str | int, where: str, batch_size: int | None, num_examples: int | None, total: int | None) -> int:
    """Returns the number of steps in a length.

    >>> steps_in('2 epochs', 'run.steps', batch_size=10, num_examples=105, total=None)
    21

    Args:
      length: a number of steps, or text with a unit.
      where: the key that an error names.
      batch_size: rows per step.
      num_examples: rows per epoch.
      total: steps of the run, of which a length may be a percentage.
    """
    if isinstance(length, int):
        return length
    match = _LENGTH.match(length)
    if not match:
        raise UsageError(f"{where}={length!r} is not a length; write '300 steps', '2 epochs', '1e6 examples' or '5%'")
    amount, unit = float(match[1]), match[2].rstrip('s')
    per_unit = {'step': 1.0}
    if total is not None:
        per_unit['%'] = total / 100
    if batch_size:
        per_unit['example'] = 1 / batch_size
        if num_examples:
            per_unit['epoch'] = num_examples / batch_size
    if unit not in per_unit:
        why = 'run.steps is not given' if unit == '%' else 'the data do not state their size'
        raise UsageError(f'{where}={length!r} cannot be turned into steps: {why}; give it in steps')
    steps = amount * per_unit[unit]
    if not steps <= MOST:
        raise UsageError(f'{where}={length!r} is too long: a run has at most {MOST} steps')
    # '1%' of a smoke run is a step, not none: an interval of 0 would never come.
    return max(round(steps), 1 if amount > 0 else 0)
