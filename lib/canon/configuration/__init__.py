"""Config files and their overrides: read from Python files, changed by flags, checked against signatures.

A script of your own may have configs, too:

    config = configuration.load_config('circles.py:smoke')
    configuration.apply_overrides(config, configuration.read_flags(sys.argv[1:])[0])
"""

from canon.configuration.checks import check_values
from canon.configuration.choices import list_choices
from canon.configuration.files import (
    config_folder,
    is_config,
    load_config,
    load_module,
    read_comments,
    read_saved_config,
    run_folder,
    split_source,
)
from canon.configuration.keys import describe_keys
from canon.configuration.nested import (
    apply_form,
    drop_placeholders,
    find_missing_key,
    get_value,
    join_arguments,
    list_leaves,
    merge,
)
from canon.configuration.overrides import apply_overrides, known_keys, read_flags, stated_keys, takes_tuple
from canon.configuration.sections import Sections, find_function
from canon.configuration.staging import make_stage_config, order_stages

__all__ = [
    'Sections', 'apply_form', 'apply_overrides', 'check_values', 'config_folder', 'describe_keys', 'drop_placeholders',
    'find_function', 'find_missing_key', 'get_value', 'is_config', 'join_arguments', 'known_keys', 'list_choices',
    'list_leaves', 'load_config', 'load_module', 'make_stage_config', 'merge', 'order_stages', 'read_comments',
    'read_flags', 'read_saved_config', 'run_folder', 'split_source', 'stated_keys', 'takes_tuple',
]  # fmt: skip
