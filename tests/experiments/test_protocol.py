"""Every module of experiments/ satisfies the protocol that its documentation states."""

import inspect

import pytest

from canon.errors import UsageError
from canon.named import Catalogue
from experiments import protocol

OPTIONAL = (protocol.Predicts, protocol.Exports, protocol.WithoutData)


def methods(kind):
    return {name: f for name, f in vars(kind).items() if inspect.isfunction(f) and not name.startswith('_')}


@pytest.mark.parametrize('name', protocol.names())
def test_experiments_satisfy_the_protocol(name):
    module = protocol.load(name)
    assert module.__doc__
    for kind in (protocol.ExperimentModule, *(kind for kind in OPTIONAL if isinstance(module, kind))):
        for method, expected in methods(kind).items():
            wanted = list(inspect.signature(expected).parameters)[1:]
            assert list(inspect.signature(getattr(module, method)).parameters)[: len(wanted)] == wanted, method
            assert getattr(module, method).__doc__, method
    for functions in getattr(module, 'SECTIONS', {}).values():
        assert isinstance(functions, Catalogue) or (functions and all(map(callable, functions.values())))


def test_the_experiments_with_a_scene_are_known_without_an_import():
    shown = [name for name in protocol.names() if isinstance(protocol.load(name), protocol.Shows)]
    assert shown == protocol.names('show')
    assert 'view_synthesis' in shown


def test_names_are_those_of_files_that_define_make():
    names = protocol.names()
    assert {'classification', 'translation', 'optimizer_lab'} < set(names)
    assert not {'main', 'overrides', 'predictions', 'protocol', 'claims'} & set(names)
    with pytest.raises(UsageError, match="no experiment is called 'clasification'; did you mean 'classification'"):
        protocol.load('clasification')
