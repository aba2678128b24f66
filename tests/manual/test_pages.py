"""The pages of the manual: their programs run, their commands are valid, their links lead somewhere."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from canon.configuration import check_values
from canon.errors import UsageError
from canon.extras import find_extra
from experiments import overrides
from launch import reference, sweep
from tests.distributions import list_extra
from tests.manual.pages import list_commands, read_blocks, read_links, read_sizes, run_page, shrink
from tests.quick import quick_programs

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / 'docs/getting_started.md', *sorted((ROOT / 'docs').glob('tutorials/*.md'))]
GUIDES += sorted((ROOT / 'docs').glob('how_to/*.md'))
PAGES = sorted((ROOT / 'docs').rglob('*.md'))
FAST = ('getting_started', 'own_model', 'own_optimizer', 'own_task', 'own_data')
FLAGS = {'workdir', 'runs', 'mode', 'force', 'step', 'input', 'output', 'help'}  # of main
FLAGS |= {'coordinator', 'process_count', 'process_index'}


def name_page(page):
    return str(page.relative_to(ROOT / 'docs').with_suffix(''))


def with_programs():
    """The guides that have programs; those that train are slow."""
    for page in GUIDES:
        if read_blocks(page, 'python'):
            yield pytest.param(page, id=name_page(page), marks=() if page.stem in FAST else pytest.mark.slow)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty working directory, from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], '__file__', None) or '/').parent == tmp_path:
            del sys.modules[name]


@pytest.mark.parametrize('page', with_programs())
def test_its_programs_run(page, in_folder, monkeypatch):
    # The figures of evaluators have tests of their own, and would take most of the time.
    monkeypatch.setattr('canon.train.loop.draw_figures', lambda *args: None)
    with quick_programs():
        run_page(page, in_folder)


@pytest.mark.parametrize('page', GUIDES, ids=name_page)
def test_its_programs_are_python_and_what_they_import_exists(page):
    """Also those of slow pages."""
    for block in shrink(read_blocks(page, 'python'), read_sizes(page)):
        compile(block.text, str(page), 'exec')
        for module in re.findall(r'^(?:from|import) (canon[\w.]*)', block.text, re.MULTILINE):
            importlib.import_module(module)


def list_modules(code, homes):
    """The modules of Canon that a block imports from, those that define the names of a package included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition('.')[0] == 'canon':
            for alias in node.names:
                yield homes.get(f'{node.module}.{alias.name}', f'{node.module}.{alias.name}')


@pytest.fixture(scope='module')
def homes():
    """{name in its package: where it is defined} of the public names."""
    return {f'{page.package}.{name}': home for page in reference.list_pages() for name, home in page.names.items()}


@pytest.mark.parametrize('page', GUIDES, ids=name_page)
def test_it_names_the_extra_before_the_code_that_needs_it(page, homes):
    """By a line of pip; a page with commands names the checkout before the first of them."""
    lines = page.read_text().splitlines()
    for block in shrink(read_blocks(page, 'python'), read_sizes(page)):
        before = '\n'.join(lines[: block.line - 1])
        installed = set().union(*map(list_extra, re.findall(r'canon-jax\[(\w+)\]', before)))
        assert 'pip install' in before
        for module in list_modules(block.text, homes):
            # The sources and batches of arrays work without an extra, though the rest of their package needs one.
            extra = None if module.startswith('canon.data.pipeline.') else find_extra(module)
            assert not extra or list_extra(extra) <= installed, f'{page.name}:{block.line} {module} needs {extra}'
    for block in read_blocks(page, 'bash'):
        assert 'checkout' in '\n'.join(lines[: block.line - 1]), f'{page.name}:{block.line}'


@pytest.mark.parametrize('page', GUIDES, ids=name_page)
def test_its_commands_are_valid(page, in_folder):
    """Every verb exists, every config loads and takes the overrides, and other flags are those of main."""
    verbs = re.findall(
        r'^  (\w+)', (ROOT / 'launch.sh').read_text().partition("<<'END'")[2].partition('END\n')[0], re.M
    )
    for file in read_blocks(page, 'python'):
        if match := re.match(r'# (\w+\.py)\n', file.text):
            (in_folder / match[1]).write_text(file.text)  # a command may name it
    for words in list_commands(page):
        words = [word for word in words if not re.match(r'CANON_\w+=', word)]
        assert words[0] == './launch.sh', words
        if len(words) == 1:
            continue
        assert words[1] in verbs, words
        check_command(words[1], words[2:])


def check_command(verb, words):
    """Raises UsageError or AssertionError if a command names a config, key, value or flag that does not exist."""
    pairs, others = overrides.read_flags(words)
    configs = [word for word in others if re.search(r'\.py(:|$)', word)]
    flags = [word.partition('=')[0].removeprefix('--') for word in others if word.startswith('--')]
    if verb in ('run', 'eval', 'predict', 'export', 'replay'):
        assert set(flags) <= FLAGS, words
        assert configs or 'workdir' in flags, words
    for source in configs:
        source = source if Path(source.partition(':')[0]).exists() else str(ROOT / source)
        if verb == 'sweep':
            lists = [word for word in words if word.startswith('--config.')]
            assert sweep.plan(source, lists, '--ignore-sweep' in words)
            continue
        config = overrides.load(source)
        overrides.apply(config, pairs)
        check_values(config)


def test_a_wrong_command_is_caught():
    for words in (
        ['configs/classification/lenet_digits.py', '--config.tx.learning_rat=1'],
        ['configs/classification/lenet_digit.py'],
    ):
        with pytest.raises(UsageError):
            check_command('run', words)
    with pytest.raises(AssertionError):
        check_command('run', ['configs/classification/lenet_digits.py', '--workdri=x'])


def test_links_lead_to_pages_and_sections():
    """In the sources, as a viewer of the repository shows them; `./launch.sh docs` checks the built pages."""
    for page in [*PAGES, ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']:
        for link in read_links(page):
            path, _, anchor = link.partition('#')
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f'{page}: {link}'
            if anchor:
                headings = re.findall(r'^#+ (.*)', target.read_text(), re.MULTILINE)
                slugs = {re.sub(r'[^\w\- ]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}
                assert anchor in slugs, f'{page}: {link}'


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r': ([\w/]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE))
    assert {f'{name_page(page)}.md' for page in PAGES} == listed
