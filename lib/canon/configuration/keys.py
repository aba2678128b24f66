"""Describes the keys of a config for --help: values, types, comments of the config file, docstrings of signatures."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.files import Comments, read_comments
from canon.configuration.nested import get_value
from canon.configuration.overrides import known_keys, stated_keys
from canon.configuration.sections import find_function, find_own_functions

# (pattern of keys, text) of keys that no signature documents; `**` is any number of keys in between.
_DESCRIPTIONS = (
    ('experiment', 'the module of experiments/ that makes it'),
    ('seed', 'of everything random: initialisation, order, augmentation, dropout'),
    ('form', 'which of config.forms replaces sections of the config'),
    ('stages.chain', 'the stages in order'),
    ('stages.experiment', 'the experiment of stages that name none'),
    ('**.data.name', 'a data set, or my_package.module:function'),
    ('**.data.data_dir', 'where prepared data sets are'),
    ('**.data.batch_size', 'examples per step, over all devices and processes'),
    ('**.data.train.split', 'the examples that are learnt from, such as train[:90%]'),
    ('**.data.sizes', '(height, width) of batches, each of one size: an example goes to the one that it fits best'),
    ('**.data.train.sampler', "'shuffled', or 'balanced' for as many examples of every class"),
    ('**.model.name', 'a function of canon.models (./launch.sh models), or my_package.module:function'),
    ('**.backbone.name', 'a function of canon.models (./launch.sh models), or my_package.module:function'),
    ('**.tx.**.learning_rate', 'a number, or a schedule: tx.learning_rate.name=cosine and its arguments'),
    ('**.learning_rate.**.name', 'a schedule of canon.optim, optax.NAME, or my_package.module:function'),
    ('**.tx.**.name', 'a function of canon.optim, optax.NAME, or my_package.module:function'),
    ('**.transforms.**.name', 'a function of canon.data.transforms, or my_package.module:function'),
    ('**.transforms.chain', 'transforms of canon.data.transforms, in order'),
    ('**.chain', 'the links in order'),
    ('**.name', 'selects the function whose arguments the section has'),
    ('proposals.workers', 'processes that compute proposals; 0 computes in this one'),
    ('**.network', 'the stage whose network is used'),
    ('**.source.path', 'of a file or folder of the data'),
    ('data.path', 'of a file or folder of the data'),
    ('data.space', "of shapes: the 'cube' of side 1, or the unit 'sphere'"),
    ('target.metric', 'the metric of the last evaluation that the ledger compares'),
    ('target.at_least', 'what the metric reaches'),
    ('target.at_most', 'what the metric does not exceed'),
    ('target.ci', 'whether CI runs the config, too'),
)
_SENTENCE_ENDS = r'(?<!\bal)(?<!\bcf)(?<!\beq)(?<!\bsec)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)[.;](?: |$)|$'


def describe_keys(config: ConfigDict, source: str, sections: Mapping[str, Any] = {}) -> list[str]:
    """Returns lines for --help: every section with its function, every key with value, type, and documentation.

    Args:
      config: with all overrides applied.
      source: its file, for the comments: FILE or FILE:ARG.
      sections: the sections of the experiment's own (`find_function`).
    """
    comments, stated = read_comments(source), stated_keys(config)
    find = functools.cache(functools.partial(find_documented, config, sections=sections))
    lines = [f'The keys of {source} (* the default of the function that the section names):']
    keys = {}
    for key, value in known_keys(config, sections).items():
        path, _, name = key.rpartition('.')
        if not isinstance(value, ConfigDict) and (key in stated or name not in _list_hidden(find(path))):
            keys[key] = value
    for path in sorted({key.rpartition('.')[0] for key in keys}):
        lines += ['', *_describe_section(path, find(path), comments)]
        for key, value in sorted(keys.items()):
            if key.rpartition('.')[0] == path:
                lines += _describe_key(
                    key, value, key in stated, find(path), comments, _describe_choices(key, sections)
                )
    return lines


def _list_hidden(function: Callable | None) -> tuple[str, ...]:
    """Returns arguments that are other names of arguments, and those that every linen module has."""
    return *getattr(function, '__aliases__', ()), 'parent'


def find_documented(config: ConfigDict, path: str, sections: Mapping[str, Any]) -> Callable | None:
    """Returns the function, or the class of settings, whose arguments the section at `path` holds."""
    function = _settings_class(path) or (find_function(config, path, sections) if path else None)
    if function is None and path.endswith('.source'):  # of an evaluator or a benchmark, with a data set of its own
        outer = get_value(config, path.removesuffix('.source'))
        name = outer.get('data') or outer.get('name') or config.data.get('name')
        data = ConfigDict(dict(data=dict(name=name, source={})))
        return find_function(data, 'data.source', sections)
    return function


def _describe_section(path: str, function: Callable | None, comments: Comments) -> Iterator[str]:
    """Yields the lines of a section: `model: canon.models.lenet.lenet5`, its comment, its function's first sentence."""
    if not path:
        return
    title = f'{function.__module__}.{getattr(function, "__name__", function)}' if function is not None else ''
    yield f'  {path}: {title}'.rstrip(': ')
    sentence = '' if function is None else inspect.cleandoc(function.__doc__ or '').partition('\n\n')[0]
    text = _find_comment(path, comments.own) or ' '.join(sentence.split())
    if text:
        yield f'    {text}'


def _describe_key(
    key: str, value: Any, stated: bool, function: Callable | None, comments: Comments, choices: str
) -> Iterator[str]:
    """Yields the lines of a key: its value and type, and the most specific text that documents it."""
    name = key.rpartition('.')[2]
    # A function or an array as a default cannot be typed on a command line.
    shown = value if isinstance(value, bool | int | float | str | tuple | None) else '...'
    kind = choices or _describe_type(value, function, name)
    yield f'    --config.{key}={shown}{"" if stated else "*"}' + (f'  ({kind})' if kind else '')
    text = (
        _find_comment(key, comments.own)
        or (find_argument_text(function, name) if function else '')
        or _find_comment(key, comments.shared)
        or next((text for pattern, text in _DESCRIPTIONS if _matches(_drop_layers(key), pattern)), '')
    )
    if text:
        yield f'        {text}'


def _describe_type(value: Any, function: Callable | None, name: str) -> str:
    """Returns the type and range of an argument in words, or of the value if no signature has it; '' for any type."""
    from canon.train import lengths

    hint = named.get_type_hints(function).get(name) if function is not None else None
    if hint is None:
        hint = Any if value is None else type(value)
    words = named.describe(hint, ranges=True).split(' or ')
    takes_section = 'something else' in words and len(words) > 1
    words = [word for word in words if word != 'something else']
    if name in lengths.KEYS and any(word.startswith('a whole number') for word in words):
        words.append("a length such as '2 epochs'")
    return ' or '.join([*words, *(['a section'] if takes_section else [])])


def _describe_choices(key: str, sections: Mapping[str, Any]) -> str:
    """Returns `one of a, b` for a name that selects among the experiment's own functions; '' for other keys."""
    path, _, name = key.rpartition('.')
    names = list_own_names('data.source' if path == 'data' else path, sections) if name == 'name' else []
    return f'one of {", ".join(names)}' if names else ''


def list_own_names(path: str, sections: Mapping[str, Any]) -> list[str]:
    """Returns the names of the experiment's own functions that a section selects from; [] if there is no choice."""
    own = find_own_functions(path, sections)
    if isinstance(own, named.Catalogue):
        return own.names()
    return list(own) if own is not None and len(own) > 1 else []


def _find_comment(key: str, comments: Mapping[str, str]) -> str:
    """Returns the comment of a key; for one of a stage or a form, else that of the key that it replaces."""
    return comments.get(key) or comments.get(_drop_layers(key)) or ''


def _drop_layers(key: str) -> str:
    """Returns the key that one of a stage or of a form replaces."""
    return re.sub(r'^((stages|forms)\.[^.]+\.)+', '', key)


def _matches(key: str, pattern: str) -> bool:
    """Returns whether a key matches a pattern, in which `**.` stands for any number of keys."""
    return re.fullmatch(re.escape(pattern).replace(r'\*\*\.', r'(?:.+\.)?'), key) is not None


def _settings_class(path: str) -> type | None:
    """Returns the class of `canon.train.settings` that documents the keys of a section of `run`."""
    from canon.train import settings

    path = _drop_layers(path)
    if path == 'run':
        return settings.Settings
    if path.startswith('run.evals.'):
        return settings.Eval
    if not path.startswith('run.'):
        return None
    hint = named.get_type_hints(settings.Settings).get(path.removeprefix('run.'))
    return next((kind for kind in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(kind)), None)


def find_argument_text(function: Callable, name: str) -> str:
    """Returns what a docstring says after `name: `, up to the end of the sentence; '' if none documents the argument.

    A function without such a text has that of the function to which it passes the argument on, or of the class that it
    returns, or of its module, or of a function of that module that its docstring names, as in 'arguments of `X`'; a
    network that of any other of its module.
    """
    # A settings class may inherit fields, which the class that defines them documents.
    sources = [c for c in getattr(function, '__mro__', [function]) if not _is_basic(c)]
    module, docstring = inspect.getmodule(function), function.__doc__ or ''
    sources += [getattr(function, '__arguments_of__', None), named.get_return_type(function), module]
    if module is not None:
        others = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
        sources += [f for f in others if f'`{f.__name__}`' in docstring]
        sources += others if module.__name__.startswith('canon.models.') else []
    return next(filter(None, (_read_argument(inspect.getdoc(s) or '', name) for s in sources if not _is_basic(s))), '')


def _read_argument(docstring: str, name: str) -> str:
    # Several arguments may share a text: `low, high: bounds of the scale.`
    text = ' '.join(docstring.split())
    match = re.search(rf'(?:^|[.;:]\)? )(?:\w+, )*{name}(?:, \w+)*: (.+?)(?={_SENTENCE_ENDS})', text)
    return match[1] if match else ''


def _is_basic(kind: Any) -> bool:
    """Returns whether a class, or None, is not documented by its package: tuple, linen.Module, a generic type."""
    return kind is None or getattr(kind, '__module__', '').partition('.')[0] in ('builtins', 'flax', 'typing', 'optax')
