"""Overrides as flags of the command line, and the runs that such flags select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from canon.configuration import run_folder
from canon.errors import UsageError
from canon.train.runs import Run, find_runs
from experiments import overrides


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """Returns `['--config.tx.learning_rate=0.001']` for `{'tx.learning_rate': 1e-3}`."""
    return [f'--config.{key}={format_value(key, value)}' for key, value in values.items()]


def format_value(key: str, value: Any) -> str:
    """Returns a value as the command line takes it; raises UsageError, naming the key, for other types."""
    if hasattr(value, 'tolist'):
        value = value.tolist()  # repr of a NumPy number is `np.float64(..)`
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, int | float | tuple):
        return repr(value)
    if isinstance(value, list):
        return repr(tuple(value))
    raise UsageError(f'{key}: a sweep gives strings, numbers, booleans, tuples and None, not {value!r}')


def label(values: Mapping[str, Any]) -> str:
    """Returns `tx.learning_rate=0.001 seed=1`, for a line of output or the name of a log."""
    return ' '.join(f'{key}={format_value(key, value)}' for key, value in values.items()) or 'default'


def read_option(flags: Sequence[str], name: str, default: str = '') -> str:
    """Returns the last value given to `--name=`."""
    values = [flag.partition('=')[2] for flag in flags if flag.startswith(f'--{name}=')]
    return values[-1] if values else default


def runs_folder(flags: Sequence[str]) -> Path:
    """Returns the folder of all runs, `--runs`."""
    return Path(read_option(flags, 'runs', 'runs')).expanduser()


def find_run(source: str, flags: Sequence[str], root: Path) -> Run | None:
    """Returns the run of a config with the overrides in `flags` below the folder of all runs, or None."""
    try:
        values = overrides.apply(overrides.load(source), overrides.read_flags(flags)[0])
    except UsageError:  # then main has refused the same flags, and made no run
        return None
    return next(iter(find_runs(run_folder(source, values, root))), None)
