"""The reference lists every public name, each has a docstring, and docstrings show as they are written."""

import ast
import importlib

import pytest

import canon
from launch import reference


@pytest.fixture(scope='module')
def pages():
    return reference.list_pages()


def test_every_room_has_a_page(pages):
    packages = {page.package for page in pages}
    rooms = {f'canon.{name}' for name in canon.__all__ if not name.startswith('_')}
    ground = {module for page in pages if page.package == 'canon' for module in page.modules}
    assert rooms == {name for name in packages | ground if name.count('.') == 1}


def test_the_page_of_a_package_that_exports_none_of_its_modules_has_them_as_sections(pages):
    for package in ('models', 'tasks'):
        (page,) = (page for page in pages if page.package == f'canon.{package}')
        assert len(page.modules) > 10
    (page,) = (page for page in pages if page.package == 'canon.models')
    assert 'make_model' in page.names
    assert 'lenet5' in page.modules['canon.models.lenet']


def test_the_names_are_those_that_can_be_imported(pages):
    """`__all__` as it is read from the text is what the package has."""
    for name in ('canon.optim', 'canon.train', 'canon.losses', 'canon.rendering'):
        (page,) = (page for page in pages if page.package == name)
        package = importlib.import_module(name)
        assert set(page.names) == set(package.__all__)
        for public, home in page.names.items():
            module, _, own = home.rpartition('.')
            assert getattr(importlib.import_module(module), own) is getattr(package, public)


def test_every_public_function_and_class_has_a_docstring(pages):
    homes = [home for page in pages for home in page.names.values()]
    homes += [f'{module}.{name}' for page in pages for module, names in page.modules.items() for name in names]
    assert len(homes) > 900
    trees = {}
    bare = []
    for home in homes:
        module, _, name = home.rpartition('.')
        tree = trees.get(module) or trees.setdefault(module, reference.parse_module(module))
        definitions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
        bare += [home for node in definitions if not ast.get_docstring(node)]
    assert not bare


def test_docstrings_show_as_they_are_written():
    pytest.importorskip('griffe')
    from launch.docstrings import to_markdown

    assert to_markdown('u <- a * b, of [0, 1] and *never* `a*b`') == 'u &lt;- a \\* b, of \\[0, 1] and *never* `a*b`'
    assert to_markdown('Args:\n  **arguments: of <name>.') == 'Args:\n  **arguments: of &lt;name>.'
    assert to_markdown('Sums.\n\n    >>> a[0] * 2\n    4') == 'Sums.\n\n```pycon\n>>> a[0] * 2\n4\n```'
    assert to_markdown('Code:\n\n    x = a * [1]\n\nEnd *') == 'Code:\n\n    x = a * [1]\n\nEnd \\*'
    fields = 'Holds a batch.\n\nx, y: the pair,\n    in pixels.\nn:    its size.'
    assert to_markdown(fields) == 'Holds a batch.\n\n- `x, y`: the pair,\n  in pixels.\n- `n`: its size.'
    assert to_markdown('Note: one line.\nOf a text.') == 'Note: one line.\nOf a text.'


def test_names_of_optax_that_a_function_accepts_are_shown():
    griffe = pytest.importorskip('griffe')
    from launch.docstrings import Docstrings

    file = reference.LIBRARY / 'canon/optim/adaptive.py'
    module = griffe.visit('adaptive', file, file.read_text())
    for name in ('adadelta', 'rmsprop'):
        Docstrings().on_object(obj=module[name])
    assert module['adadelta'].docstring.value.endswith('those of optax: `rho` for `decay`.')
    assert 'those of optax' not in module['rmsprop'].docstring.value
