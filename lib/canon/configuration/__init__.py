"""Config files and their overrides: read from Python files, changed by flags, checked against signatures.

config = configuration.load('configs/classification/lenet_digits.py:smoke')
configuration.apply_overrides(config, [('tx.learning_rate', '1e-3')])
"""

from canon.configuration.checks import check_values
from canon.configuration.files import (
    config_folder,
    is_config,
    load,
    load_module,
    read_comments,
    read_json,
    run_folder,
    split,
)
from canon.configuration.keys import describe_keys
from canon.configuration.nested import find_missing_key, get_value, list_leaves, merge
from canon.configuration.overrides import apply_overrides, known_keys, read_flags, stated_keys
from canon.configuration.sections import Sections, find_function

__all__ = [
    'Sections', 'apply_overrides', 'check_values', 'config_folder', 'describe_keys', 'find_function',
    'find_missing_key', 'get_value', 'is_config', 'known_keys', 'list_leaves', 'load', 'load_module', 'merge',
    'read_comments', 'read_flags', 'read_json', 'run_folder', 'split', 'stated_keys',
]  # fmt: skip
