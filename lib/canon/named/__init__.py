"""Selects functions by the names that a config gives, checks their arguments and suggests near names.

A config selects by name (`model.name='lenet.lenet5'` is `canon.models.lenet.lenet5`) and passes the rest on as keyword
arguments. Several links in order are a chain; `chain` states the order because a ConfigDict sorts its keys:
`dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(learning_rate=1e-3))`.

The types in a signature are the types that a config may give, and `Annotated` with a `Range` restricts their values:
`dropout: DropRate = 0.0`. `call` checks both, so the function need not.
"""

from canon.named.calls import (
    accepts,
    call,
    combine_arguments,
    list_parameters,
    make_chain,
    takes_arguments_of,
    to_plain,
)
from canon.named.catalogue import IMPORTED, Catalogue, import_function, lookup, public_functions, suggest
from canon.named.hints import (
    Count,
    DropRate,
    NonNegative,
    Positive,
    Probability,
    Range,
    check,
    compile_pattern,
    describe,
    get_return_type,
    get_type_hints,
    list_options,
    list_types,
)
from canon.named.text import parse_text

__all__ = [
    'IMPORTED', 'Catalogue', 'Count', 'DropRate', 'NonNegative', 'Positive', 'Probability', 'Range', 'accepts',
    'call', 'check', 'combine_arguments', 'compile_pattern', 'describe', 'get_return_type', 'get_type_hints',
    'import_function', 'list_options', 'list_parameters', 'list_types', 'lookup', 'make_chain', 'parse_text',
    'public_functions', 'suggest', 'takes_arguments_of', 'to_plain',
]  # fmt: skip
