"""Describes the keys of a config for --help: values, comments of the config file, docstrings of signatures."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.files import read_comments
from canon.configuration.overrides import known_keys, stated_keys
from canon.configuration.sections import find_function

_DESCRIPTIONS = {  # of keys that no signature documents
    'experiment': 'the module of experiments/ that makes it',
    'seed': 'of everything random: initialisation, order, augmentation, dropout',
    'data.name': 'a data set, or my_package.module:function',
    'data.data_dir': 'where prepared data sets are',
    'data.batch_size': 'examples per step, over all devices and processes',
    'data.reading.threads': 'threads that read examples',
    'data.reading.workers': 'processes that read examples; 0 reads in threads of this one',
    'input.mean': 'subtracted from pixels in [0, 1], one value or one per channel',
    'input.std': 'divides them',
    'model.name': 'a function of canon.models (./launch.sh models), or my_package.module:function',
    'tx.name': 'a function of canon.optim, optax.NAME, or my_package.module:function',
    'tx.learning_rate': 'a number, or a schedule: tx.learning_rate.name=cosine and its arguments',
}


def describe_keys(config: ConfigDict, source: str, sections: Mapping[str, Any] = {}) -> list[str]:
    """Returns sorted lines for --help: every key that may be set, its value, and what is documented about it."""
    comments = read_comments(source)
    stated = stated_keys(config)
    lines = [f'The keys of {source} (* the default of the function that the section names):', '']
    for key, value in sorted(known_keys(config, sections).items()):
        if isinstance(value, ConfigDict):
            continue
        path, _, name = key.rpartition('.')
        function = _settings_class(path) or (find_function(config, path, sections) if path else None)
        # The most specific text wins: a comment in the config, then the signature's, then a general one.
        text = comments.get(key) or (_argument_doc(function, name) if function else '') or _DESCRIPTIONS.get(key)
        # A function or an array as a default cannot be typed on a command line.
        value = value if isinstance(value, bool | int | float | str | tuple | None) else '...'
        star = '' if key in stated else '*'
        lines.append(f'  --config.{key}={value}{star}' + (f'\n      {text}' if text else ''))
    return lines


def _settings_class(path: str) -> type | None:
    """Returns the class of `canon.train.settings` that documents the keys of a section of `run`."""
    from canon.train import settings

    if path == 'run':
        return settings.Settings
    if path.startswith('run.evals.'):
        return settings.Eval
    if not path.startswith('run.'):
        return None
    hint = named.get_type_hints(settings.Settings).get(path.removeprefix('run.'))
    return next((kind for kind in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(kind)), None)


def _argument_doc(function: Callable, name: str) -> str:
    """Returns the text after `name: ` in a docstring up to the end of its sentence, or ''."""
    # A settings class may inherit fields, which the class that defines them documents.
    docstrings = [
        inspect.cleandoc(f.__doc__ or '') for f in getattr(function, '__mro__', [function]) if f is not object
    ]
    text = ' '.join('\n\n'.join(docstrings).split())
    # Several arguments may share a text: `low, high: bounds of the scale.`
    match = re.search(rf'(?:^|[.;:] )(?:\w+, )*{name}(?:, \w+)*: (.+?)(?=[.;](?: |$)|$)', text)
    return match[1] if match else ''
