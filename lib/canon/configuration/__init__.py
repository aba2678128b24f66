"""Config files and their overrides: read from Python files, changed by flags, checked against signatures.

config = configuration.load('configs/classification/lenet_digits.py:smoke')
configuration.apply_overrides(config, [('tx.learning_rate', '1e-3')])
"""

from canon.configuration.files import is_config, load, load_module, read_comments, read_json, split
from canon.configuration.keys import describe_keys
from canon.configuration.nested import find_missing_key, get_value, list_leaves
from canon.configuration.overrides import apply_overrides, known_keys, read_flags, stated_keys
from canon.configuration.sections import Sections, find_function

__all__ = [
    'Sections', 'apply_overrides', 'describe_keys', 'find_function', 'find_missing_key', 'get_value', 'is_config',
    'known_keys', 'list_leaves', 'load', 'load_module', 'read_comments', 'read_flags', 'read_json', 'split',
    'stated_keys',
]  # fmt: skip
