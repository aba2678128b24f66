"""The name tables of docs/coming_from.md: every name exists, and the defaults are those of the signatures."""

import ast
import importlib
import inspect
import re

import optax
import pytest

from canon import data, losses, metrics, models, nn, ops, optim, tasks, train

ROOMS = dict(optim=optim, nn=nn, ops=ops, losses=losses, metrics=metrics, models=models, train=train, tasks=tasks)
ROOMS |= dict(data=data, transforms=data.transforms)
DEFAULT = re.compile(r'`(\w+)` ((?:\([^()]*\)|[^ ,()])+) \(((?:\([^()]*\)|[^()])+)\)')


@pytest.fixture(scope='module')
def sections(root):
    """{heading: [{column: cell}]} of the page."""
    found = {}
    for part in (root / 'docs/coming_from.md').read_text().split('\n## ')[1:]:
        rows = [split_row(line) for line in part.splitlines() if line[:1] == '|']
        heads = rows[0]
        assert all(len(row) == len(heads) for row in rows), part[:20]
        found[part.partition('\n')[0]] = [dict(zip(heads, row, strict=True)) for row in rows[2:]]
    return found


def split_row(line):
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip()[1:-1].split('|')]


def find(name):
    """The object of a dotted name of a room, `ops.boxes.pairwise_iou`; None for names of other things."""
    room, *rest = name.split('.')
    value = ROOMS.get(room)
    for part in rest if value else ():
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(f'{value.__name__}.{part}')
    return value


def defaults(function):
    """{argument: default} of the arguments that have one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def test_every_name_exists(sections):
    checked = 0
    for rows in sections.values():
        for row in rows:
            for name in re.findall(
                r'`((?:optim|nn|ops|losses|metrics|models|train|tasks|data|transforms)\.[\w.]+)`', row['Canon']
            ):
                assert find(name) is not None, name
                checked += 1
    assert checked > 50


def test_every_default_is_that_of_the_signature(sections):
    checked = 0
    for rows in sections.values():
        for row in rows:
            names = re.findall(r'`([\w.]+)`', row['Canon'])
            for argument, here, _ in DEFAULT.findall(row['defaults']):
                assert defaults(find(names[0]))[argument] == ast.literal_eval(here), (names[0], argument)
                checked += 1
            # Nothing of a cell is left unread.
            assert not DEFAULT.sub('', row['defaults']).strip(', '), row['defaults']
    assert checked > 40


def test_the_defaults_of_optax_are_complete(sections):
    """Arguments of one name, or of names that the row equates, have equal defaults unless the row lists them."""
    for row in sections['optax']:
        ours, theirs = find(row['Canon'].strip('`')), eval(row['optax'].strip('`'), {'optax': optax})
        same = dict(re.findall(r'`(\w+)` is `(\w+)`', row['arguments']))
        listed = {
            argument: (ast.literal_eval(a), ast.literal_eval(b)) for argument, a, b in DEFAULT.findall(row['defaults'])
        }
        here, there = defaults(ours), defaults(theirs)
        differing = {}
        for name, value in there.items():
            argument = same.get(name, name)
            if argument in here and here[argument] != value:
                differing[argument] = (here[argument], value)
        assert differing == listed, row['Canon']
