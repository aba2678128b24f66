"""Reads config files: Python modules with `get_config(arg='')` that returns a ConfigDict."""

from __future__ import annotations

import ast
import collections
import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from canon.errors import UsageError, describe_error
from canon.named import suggest


def split_source(source: str) -> tuple[Path, str]:
    """Splits `configs/x/y.py:smoke` into its path and its argument."""
    path, _, argument = source.partition(':')
    return Path(path), argument


def is_config(word: str) -> bool:
    """Returns whether a word of a command line has the form of a config, `FILE.py` or `FILE.py:ARG`."""
    return re.fullmatch(r'[^-].*\.py(:\w*)?', word) is not None


def load_module(source: str, known: Iterable[str] = ()) -> ModuleType:
    """Imports a config file, the path of `FILE` or `FILE:ARG`.

    Raises UsageError if it does not exist (suggesting one of the `known` paths), cannot be imported or has no
    `get_config`.
    """
    path, _ = split_source(source)
    if not path.is_file():
        raise UsageError(f'no config at {path}{suggest(str(path), known)}')
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    if spec is None or spec.loader is None:
        raise UsageError(f'{path} is not a Python file; a config is a .py with get_config(arg)')
    module = importlib.util.module_from_spec(spec)
    try:  # a config is code of the user's, which may raise anything
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f'{path} cannot be read: {describe_error(error)}') from error
    if not hasattr(module, 'get_config'):
        raise UsageError(f'{path} has no get_config(arg); a config file defines one')
    return module


def load_config(source: str, known: Iterable[str] = ()) -> ConfigDict:
    """Returns the config of `FILE` or `FILE:ARG`; raises UsageError that names the file and the fix."""
    path, argument = split_source(source)
    module = load_module(source, known)
    get_config = module.get_config
    arguments = getattr(module, 'ARGUMENTS', ('smoke',))
    if argument and argument not in arguments:
        raise UsageError(f'{path} takes no argument {argument!r}{suggest(argument, arguments)}')
    # 'smoke' is a known argument by default, even for a get_config that takes none.
    if argument and not inspect.signature(get_config).parameters:
        raise UsageError(f'{path} takes no argument, so not {argument!r}: its get_config() has no parameter')
    try:
        config = get_config(argument) if argument else get_config()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f'{source}: get_config: {describe_error(error)}') from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f'{source}: get_config returns a ConfigDict, not {config!r:.60}')
    return config


def read_saved_config(path: Path) -> ConfigDict:
    """Returns the config that a run has written as `config.json`; raises UsageError if it is damaged."""
    try:
        return ConfigDict(json.loads(path.read_text(), object_hook=_read_section))
    except (ValueError, TypeError) as error:
        raise UsageError(f'{path} is damaged, so give --config=FILE as well: {error}') from error


def _read_section(section: dict[str, Any]) -> dict[str, Any]:
    """Makes each null of JSON a key that the command line may set, and `run.log` of an older run's `tensorboard`."""
    if isinstance(section.get('tensorboard'), bool):
        section['log'] = ['tensorboard'] if section.pop('tensorboard') else []
    return {key: placeholder(str) if value is None else value for key, value in section.items()}


class Comments(NamedTuple):
    """The comments of config files by dotted key.

    `own` is about its key. `shared` may be: of a line with several keys, or of an argument of a function that makes a
    config, which most often becomes the section of that name.
    """

    own: dict[str, str]
    shared: dict[str, str]


def read_comments(source: str) -> Comments:
    """Returns the comment of each key, on its line or above it, in a config file and in the config files it imports."""
    path, _ = split_source(source)
    comments = Comments({}, {})
    if path.suffix != '.py':  # the config.json of a run
        return comments
    # The config's own comments come last and replace those of the files that it imports.
    for file in _list_imported(path):
        _add_comments_of(file.read_text(), comments)
    return comments


def _add_comments_of(text: str, comments: Comments) -> None:
    """Adds the comments of a file's text: in every ConfigDict, and in the statements of `get_config`."""
    tree, constants = ast.parse(text), {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for target in node.targets:
                # The first value of a name, which cannot contain itself.
                constants.setdefault(ast.unparse(target), node.value)
    written = _Written(text.splitlines(), constants)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'ConfigDict':
            _add_values(comments, list(_comments_in(node, '', written)))
    makers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == 'get_config']
    for node in (statement for maker in makers for statement in _list_unconditional(maker)):
        for key, value in _list_assigned(node) if isinstance(node, ast.Assign) else ():
            _add_values(comments, list(_comments_of(key, value, value.lineno, written)))
        if isinstance(node, ast.Assign | ast.Return) and isinstance(node.value, ast.Call):
            _add_arguments(comments, list(_comments_in(node.value, '', written)))


def _list_imported(path: Path, listed: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Returns the config files that a config file imports, directly or not, and last the file; those `listed` first."""
    imported = listed
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f'{node.module}.{name.name}' for name in node.names)]
            for file in filter(None, (_find_module(path, module) for module in modules)):
                if file not in imported:
                    imported = _list_imported(file, imported)
    return (*imported, path)


def _find_module(path: Path, module: str) -> Path | None:
    """Returns the file of a module below the folder of configs that has the file at `path`; None for other modules."""
    parts = module.split('.')
    root = next((folder.parent for folder in path.absolute().parents if folder.name == parts[0]), None)
    file = root and root.joinpath(*parts).with_suffix('.py')
    return file if file and file.is_file() else None


def _list_unconditional(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes of a tree outside `if`: what is set there, for `:smoke` alone, says little of the key."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.If):
            yield node
            yield from _list_unconditional(node)


def _list_assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    """Yields (dotted key, value) of `config.a.b = value`, and of each of `config.a, config.b = value, other`."""
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for place, value in pairs:
            _, _, key = ast.unparse(place).partition('.')
            if re.fullmatch(r'[\w.]+', key):
                yield key, value


def _add_arguments(comments: Comments, commented: list[tuple[str, int, str]]) -> None:
    """Adds (key, line, text) of the arguments of a function that makes a config: of keys in sections, one on a line."""
    on_line = collections.Counter(line for _, line, _ in commented)
    comments.shared.update({key: text for key, line, text in commented if '.' in key and on_line[line] == 1})


def _add_values(comments: Comments, commented: list[tuple[str, int, str]]) -> None:
    """Adds (key, line, text) of one statement: what several keys of a line share is about the first, or about any."""
    on_line = collections.Counter(line for _, line, _ in commented)
    for key, line, text in commented:
        # The outermost key of a line comes first: a section, which may have its keys on the same line.
        alone = on_line[line] == 1 or key == next(k for k, number, _ in commented if number == line)
        (comments.own if alone else comments.shared)[key] = text


class _Written(NamedTuple):
    """The lines of a file, and its constants that are calls: `SMALL = dict(...)`."""

    lines: list[str]
    constants: Mapping[str, ast.Call]

    def resolve(self, value: ast.expr) -> ast.expr:
        return self.constants.get(value.id, value) if isinstance(value, ast.Name) else value


def _comments_in(call: ast.Call, prefix: str, written: _Written) -> Iterator[tuple[str, int, str]]:
    """Yields (dotted key, line, comment) of the keywords of a call that have one, and of those of its constants."""
    for argument in (*call.args, *(keyword.value for keyword in call.keywords if keyword.arg is None)):
        if isinstance(inner := written.resolve(argument), ast.Call):
            yield from _comments_in(inner, prefix, written)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield from _comments_of(f'{prefix}{keyword.arg}', keyword.value, keyword.lineno, written)


def _comments_of(key: str, value: ast.expr, number: int, written: _Written) -> Iterator[tuple[str, int, str]]:
    """Yields (dotted key, line, comment) of a key and of those of its value; the key is on the line `number`."""
    lines, line, above = written.lines, number - 1, []
    while line and re.match(r' *# ', lines[line - 1 - len(above)]):
        above.insert(0, lines[line - 1 - len(above)].strip(' #'))
    # A value may span lines: the comment is on its last one, unless that is the line of its own last key.
    last = value.end_lineno or number
    inner = [k.lineno for k in value.keywords] if isinstance(value, ast.Call) else []
    trailing = re.search(r'\s# (.+)$', lines[last - 1])
    if number < last in inner:
        trailing = None
    if trailing or above:
        yield key, line, trailing[1] if trailing else ' '.join(above)
    if isinstance(value := written.resolve(value), ast.Call):
        yield from _comments_in(value, f'{key}.', written)


def run_folder(source: str | None, values: Mapping[str, Any], root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg]/<hash of the overrides>: the same words select the same folder and resume."""
    # The hash is of the values, not of their text: `1e-3` and `0.001` select the same folder.
    text = json.dumps(values, sort_keys=True, default=str)
    last = hashlib.sha256(text.encode()).hexdigest()[:8] if values else 'default'
    return config_folder(source or '', root) / last


def config_folder(source: str, root: Path) -> Path:
    """Returns ROOT/<task>/<name>[-arg], the folder with the runs of one config."""
    path, argument = split_source(source)
    return root / path.absolute().parent.name / (path.stem + (f'-{argument}' if argument else ''))
