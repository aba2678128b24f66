"""Optional libraries: the core imports without them, and whatever needs one says which extra brings it."""

import ast
import importlib.util
import inspect
import json
import re
import subprocess
import sys

import pytest

from canon import extras, lazy
from canon.errors import CanonError, MissingExtra
from tests.distributions import find_distributions, list_core, list_extra, read_project

CORE = ('losses', 'metrics', 'models', 'nn', 'ops', 'optim')


@pytest.fixture(scope='module')
def modules(root):
    """{dotted name: file} of all modules of the library."""
    files = {file.relative_to(root / 'lib').with_suffix(''): file for file in (root / 'lib/canon').rglob('*.py')}
    return {'.'.join(path.parts).removesuffix('.__init__'): file for path, file in files.items()}


def list_imports(node, guarded=False):
    """Yields the top-level names that a syntax tree imports, but for those whose absence an `except` provides for."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition('.')[0] for alias in node.names if not guarded)
    elif isinstance(node, ast.ImportFrom) and not guarded:
        yield str(node.module).partition('.')[0]
    guards = isinstance(node, ast.Try) and any('ImportError' in ast.unparse(h.type or h) for h in node.handlers)
    for child in ast.iter_child_nodes(node):
        yield from list_imports(child, guarded or (guards and child in node.body))


def test_every_import_is_of_the_core_or_of_the_extra_of_its_subject(modules):
    distributions, core = find_distributions(), set(list_core())
    optional = 0
    for module, file in modules.items():
        extra = extras.find_extra(module)
        allowed = core | (list_extra(extra) if extra else set())
        for name in set(list_imports(ast.parse(file.read_text()))) - sys.stdlib_module_names - {'canon'}:
            assert name in distributions, f'{module} imports {name}, which is not installed: add it to an extra'
            assert distributions[name] & allowed, (
                f'{module} imports {name}: add {distributions[name]} to the extra {extra!r} in pyproject.toml, or give'
                f' the module another extra in canon.extras.SUBJECTS'
            )
            optional += not distributions[name] & core
    assert optional > 100


def test_subjects_are_modules_and_extras(modules):
    stated = read_project()['optional-dependencies']
    for module, extra in extras.SUBJECTS.items():
        assert module in modules
        assert extra in stated
        parent = extras.find_extra(module.rpartition('.')[0])
        assert parent != extra, f'{module} has this extra of its package'
    assert not [name for name in CORE if f'canon.{name}' in extras.SUBJECTS]


def test_all_is_all():
    subjects = set(extras.SUBJECTS.values()) - {'trackers'}
    assert list_extra('all') >= set().union(*map(list_extra, subjects))
    assert list_extra('all').isdisjoint({'wandb', 'mlflow-skinny', 'pytest'})


# Hides every distribution but the core's from imports.
HIDE_EXTRAS = """
import importlib, importlib.machinery, json, sys
hidden = set(json.loads(sys.argv[1])) - set(sys.modules)  # a .pth file may have imported some
class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition('.')[0] in hidden else super().find_spec(name, path, target)
sys.meta_path[:] = [Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""
IMPORT_ALL = """
import canon
loaded, missing = [], {}
def load(name):
    try:
        importlib.import_module(name)
        loaded.append(name)
    except ImportError as error:
        missing[name] = [type(error).__name__, str(error)]
for module in json.loads(sys.argv[2]):
    load(module)
print(json.dumps([loaded, missing, sorted(set(sys.modules) & hidden)]))
"""


def run_without_extras(root, program, *arguments):
    """Returns what a program prints in a process that can import the core alone; its stderr is empty."""
    core = set(list_core())
    hidden = sorted(name for name, owners in find_distributions().items() if not owners & core and name != 'canon')
    assert len(hidden) > 50
    words = [sys.executable, '-c', HIDE_EXTRAS + program, json.dumps(hidden), *arguments]
    done = subprocess.run(words, cwd=root / 'lib', capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert 'Traceback' not in done.stderr, done.stderr  # an error at exit does not set the status
    return done.stdout


@pytest.fixture(scope='module')
def imported(root, modules):
    """(modules that can be imported without any extra, {module: error of the others}, hidden modules that got in)."""
    printed = run_without_extras(root, IMPORT_ALL, json.dumps(sorted(modules)))
    loaded, missing, leaked = json.loads(printed.splitlines()[-1])
    return set(loaded), missing, leaked


def test_the_core_needs_no_extra(imported, modules):
    loaded, missing, leaked = imported
    assert not leaked
    assert {name for name in modules if name.split('.')[1:2] and name.split('.')[1] in CORE} <= loaded
    assert {'canon', 'canon.backend', 'canon.camera', 'canon.data', 'canon.transfer', 'canon.tracking'} <= loaded
    assert not set(missing) & loaded


def describe_wrong_message(module, kind, text):
    """Returns what is wrong with the error of a module that cannot be imported, or None."""
    match = re.fullmatch(r"(canon\.[\w.]+) needs (\w+): pip install 'canon-jax\[(\w+)\]'", text)
    if kind != 'MissingExtra' or not match:
        return f'{module}: {kind}: {text}'
    importer, library, extra = match.groups()
    if not find_distributions()[library] & list_extra(extra):
        return f'{module}: {extra} does not bring {library}: give {importer} another extra in canon.extras.SUBJECTS'
    # The extra of the module itself brings all that it needs, so that one command is enough, unless it is the package
    # around it that cannot be imported.
    own = extras.find_extra(module)
    if own not in (None, extra) and not module.startswith(f'{importer}.'):
        return f'{module} belongs to {own}, and its error names {extra}: {text}'
    return None


def test_all_other_failures_name_the_extra_that_helps(imported):
    _, missing, _ = imported
    assert len(missing) > 50
    wrong = [describe_wrong_message(module, kind, text) for module, (kind, text) in missing.items()]
    assert not any(wrong), '\n'.join(filter(None, wrong))
    named = {text.rpartition('[')[2].removesuffix("]'") for _, text in missing.values()}
    assert named >= {'train', 'images', 'text', 'scenes', 'detection', 'tracking'}


USE_BASE = """
import pydoc
import numpy as np
import canon, canon.data
from canon.data import Arrays, Batches, Once, load_source
from canon.named import Catalogue

def catch(function, *arguments, **settings):
    try:
        return repr(function(*arguments, **settings))
    except Exception as error:
        return f'{type(error).__name__}: {error}'

names = ('fake', 'npz', 'digits', 'voc_detection', 'digit_frames', 'mnist')
sources = {name: catch(load_source, name) for name in names}
helps = {name: pydoc.plain(pydoc.render_doc(name)) for name in ('canon', 'canon.data')}
source = Arrays({'x': np.arange(10)})
same = []
for threads in (0, 2):
    batches, once = Batches(source, 3, seed=1, threads=threads), Once(source, 4, threads=threads)
    same += [np.array_equal(b['x'], batches[5 + i]['x']) for i, b in zip(range(40), batches.iterate(5))]
    same += [np.array_equal(a['x'], b['x']) for a, b in zip(once.iterate(), (once[0], once[1], once[2]), strict=True)]
    left_open = batches.iterate()
    next(left_open)
processes = catch(lambda: next(Batches(source, 3, workers=1).iterate()))
functions = Catalogue('function', ('canon.plots', 'canon.tracking')).names()
print(json.dumps([sources, helps, same, processes, functions, 'grain' in sys.modules]))
"""


def test_a_base_install_reads_arrays_shows_help_and_names_the_extra_of_a_data_set(root):
    sources, helps, same, processes, functions, grain = json.loads(run_without_extras(root, USE_BASE).splitlines()[-1])
    assert sources['fake'].startswith('FakeImages(train')
    assert sources['npz'] == "UsageError: data 'npz': npz needs 'path'"
    needed = {name: text.partition(': ')[2] for name, text in sources.items() if text.startswith('MissingExtra: ')}
    assert {name: re.search(r'\[(\w+)\]', text)[1] for name, text in needed.items()} == {
        'digits': 'images', 'voc_detection': 'detection', 'digit_frames': 'tracking', 'mnist': 'images'
    }  # fmt: skip
    assert helps['canon'].startswith('Python Library Documentation: package canon')
    assert 'PACKAGE CONTENTS' in helps['canon']
    assert 'class Batches' in helps['canon.data']
    assert len(same) == 2 * (40 + 3)
    assert all(same)
    assert not grain
    assert processes == "MissingExtra: canon.data.pipeline.batches needs grain: pip install 'canon-jax[train]'"
    assert 'sort' in functions  # of canon.tracking; the figures of canon.plots need matplotlib
    assert 'draw_alignments' not in functions


def run_import(importer, statement='import nowhere_to_be_found'):
    exec(statement, {'__name__': importer})


def test_a_missing_library_is_one_line_that_names_the_extra():
    expected = r"^canon\.data\.scenes\.x needs nowhere_to_be_found: pip install 'canon-jax\[scenes\]'$"
    with pytest.raises(MissingExtra, match=expected) as caught:
        run_import('canon.data.scenes.x')
    assert isinstance(caught.value, CanonError | ModuleNotFoundError)
    assert caught.value.name == 'nowhere_to_be_found'
    with pytest.raises(MissingExtra, match=r'canon-jax\[train\]'):
        run_import('canon.train.x', 'def f():\n    import nowhere_to_be_found\nf()')  # also within a function


@pytest.mark.parametrize(
    ('importer', 'statement'),
    [
        ('user_script', 'import nowhere_to_be_found'),
        ('canonical.data.scenes', 'import nowhere_to_be_found'),
        ('canon.optim.x', 'import nowhere_to_be_found'),  # the core has no extra
        ('canon.train.x', 'import numpy.nowhere_to_be_found'),  # no part of a library that is installed
        ('canon.train.x', 'import canon.train.nowhere_to_be_found'),
        ('canon.train.x', 'import importlib; importlib.import_module("nowhere_to_be_found")'),  # a name of the user's
    ],
)
def test_other_failures_are_those_of_python(importer, statement):
    with pytest.raises(ModuleNotFoundError, match='No module named') as caught:
        run_import(importer, statement)
    assert not isinstance(caught.value, CanonError)


def test_looking_for_a_module_finds_none():
    assert importlib.util.find_spec('nowhere_to_be_found') is None
    run_import('canon.train.x', 'import importlib.util; assert not importlib.util.find_spec("nowhere_to_be_found")')


@pytest.mark.parametrize('package', ['canon', 'canon.data', 'canon.plots', 'canon.train'])
def test_public_names_are_listed_once_and_load(package):
    module = importlib.import_module(package)
    with open(module.__file__, encoding='utf-8') as file:
        names = lazy.read_typed_imports(file.read())
    assert {*names} == {*module.__all__} - {'__version__'}
    assert set(module.__all__) <= set(dir(module))
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f'module {package} has no attribute .nothing.'):
        module.nothing  # noqa: B018


@pytest.mark.parametrize(
    'package', ['canon.models', 'canon.metrics', 'canon.ops', 'canon.data.images', 'canon.weights']
)
def test_modules_load_as_attributes(package, root):
    module = importlib.import_module(package)
    folder = root / 'lib' / package.replace('.', '/')
    files = {file.stem for file in folder.glob('[a-z]*.py')} | {
        file.parent.name for file in folder.glob('*/__init__.py')
    }
    assert len(files) > 5
    listed = {name for name in dir(module) if not name.startswith('__')}
    assert listed == files | set(getattr(module, '__all__', ()))
    for name in sorted(files)[:3]:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_an_error_of_a_lazy_name_keeps_its_type_for_all_but_inspect(monkeypatch):
    def fail(name):
        raise MissingExtra('canon.data.images.digits needs x')

    monkeypatch.setattr(lazy.importlib, 'import_module', fail)
    module = sys.modules['canon.data']
    with pytest.raises(MissingExtra, match='needs x'):
        module.__getattr__('load_boxes')
    assert 'Batches' not in dict(inspect.getmembers(module, inspect.isclass))
