"""Checks of the sections and keys that all experiments share."""

from __future__ import annotations

from typing import Annotated, Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.nested import get_value, list_leaves
from canon.errors import UsageError
from canon.named import Count, Range, suggest

_SECTIONS = ('data', 'input', 'loss', 'model', 'run', 'target', 'tx')
_HINTS = {  # of keys that experiments read themselves; signatures have those of named functions
    'experiment': str,
    'data.name': str,
    'data.batch_size': Count,
    'data.reading.threads': Annotated[int, Range(0, 256)],
    'data.reading.workers': Annotated[int, Range(0, 256)],
    'data.train.split': str,
    'model.name': str,
    'model.num_classes': Annotated[int, Range(1, 10_000_000)],  # the report lists the name of each class
    'target.metric': str,
    'target.at_least': float,
    'target.at_most': float,
}
DTYPES = ('bfloat16', 'float16', 'float32', 'float64')


def check_values(config: ConfigDict) -> None:
    """Raises UsageError, naming the key, for sections and values that cannot be valid in any experiment."""
    for key in _SECTIONS:
        if key in config and config[key] is not None and not isinstance(config[key], ConfigDict):
            raise UsageError(f'{key}={config[key]!r} must be a section, such as {key}=dict(...)')
    for key, hint in _HINTS.items():
        value = get_value(config, key)
        if value is not None:
            named.check(value, hint, key)
    for key, value in list_leaves(config):
        # No array has as many elements, and arithmetic on such a number overflows where no error names the key.
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(f'{key}={str(value)[:12]}... must be a whole number below 2^63')
        if key.startswith(('model.', 'tx.')) and key.endswith('dtype') and not _is_dtype(value):
            raise UsageError(f'{key}={value!r} is not a floating-point type{suggest(str(value), DTYPES)}')
    if get_value(config, 'run.mesh.data') == 0:
        raise UsageError('run.mesh.data=0 must be a number of devices, or -1 for all that are left')


def _is_dtype(value: Any) -> bool:
    return value is None or str(value) in DTYPES
