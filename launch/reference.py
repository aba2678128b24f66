"""The reference of the manual: a page per package of the library, from its sources. A hook of MkDocs (mkdocs.yml).

A package whose `__all__` lists names of its modules has these names on its page. Of another one (`canon.models`,
`canon.tasks`), every module is a section with what it defines. Nothing is imported: names and docstrings are read from
the text.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).parents[1] / 'lib'
GROUND_FLOOR = ('canon.backend', 'canon.camera', 'canon.errors')  # modules that belong to no package


class Page(NamedTuple):
    """One page of the reference.

    Attributes:
      package: its dotted name.
      summary: the first paragraph of its docstring.
      names: {name: where it is defined} of what `__all__` lists, but for modules.
      modules: {module: what it defines} of the modules that are sections of the page.
    """

    package: str
    summary: str
    names: dict[str, str]
    modules: dict[str, list[str]]

    @property
    def path(self) -> str:
        """The file of the page, relative to the folder of all pages."""
        return f'reference/{self.package.partition(".")[2] or "canon"}.md'


def list_pages() -> list[Page]:
    """Returns the pages of all packages with public names, in the order of their names.

    What several packages list is on the page of the first of them, and not on that of the module that defines it.
    """
    folders = [file.parent for file in sorted((LIBRARY / 'canon').rglob('__init__.py'))]
    drafts = [
        Page('canon', 'Errors, cameras and the forms of operations.', {}, {module: [] for module in GROUND_FLOOR})
    ]
    drafts += [read_package(folder) for folder in folders[1:]]
    shown = {home for page in drafts for home in page.names.values()}
    packages = {page.package for page in drafts}
    pages = []
    for page in drafts:
        modules = {}
        for module in page.modules:
            definitions = [] if module in shown | packages else list_definitions(parse_module(module))
            members = [name for name in definitions if f'{module}.{name}' not in shown]
            shown.add(module)
            if members:
                modules[module] = members
        if page.names or modules:
            pages.append(page._replace(modules=modules))
    return pages


def read_package(folder: Path) -> Page:
    """Returns the page of a package with all the modules that it may have as sections."""
    package = '.'.join(folder.relative_to(LIBRARY).parts)
    tree = parse_module(package)
    exports, homes = read_exports(tree), read_homes(tree, package)
    if all(homes[name] == f'{package}.{name}' for name in exports):
        names = {name: f'{package}.{name}' for name in exports or list_definitions(tree)}
        modules = [f'{package}.{file.stem}' for file in sorted(folder.glob('[!_]*.py'))]
    else:
        modules = [homes[name] for name in exports if is_module(homes[name])]
        names = {name: homes[name] for name in sort_names(exports) if homes[name] not in modules}
    return Page(package, read_summary(tree), names, {module: [] for module in modules})


def parse_module(path: str) -> ast.Module:
    """Returns the syntax tree of a module or a package of the library."""
    file = LIBRARY.joinpath(*path.split('.'))
    return ast.parse((file / '__init__.py' if file.is_dir() else file.with_suffix('.py')).read_text())


def read_exports(tree: ast.Module) -> tuple[str, ...]:
    """Returns the names in `__all__`, () if a module has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, 'id', '') == '__all__' for target in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def read_homes(tree: ast.Module, package: str) -> dict[str, str]:
    """Returns {name: dotted path} of the imported names of a package, and of those that it defines."""
    homes = {name: f'{package}.{name}' for name in read_exports(tree)}
    for node in ast.walk(tree):  # walk: lazy packages import for type checkers alone
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.asname or alias.name: f'{node.module}.{alias.name}' for alias in node.names}
    return homes


def is_module(path: str) -> bool:
    """Returns whether a dotted path is a module or a package of the library."""
    file = LIBRARY.joinpath(*path.split('.'))
    return file.is_dir() or file.with_suffix('.py').exists()


def sort_names(names: tuple[str, ...]) -> list[str]:
    """Returns functions first, then classes, then constants, each in the order of the alphabet."""
    return sorted(names, key=lambda name: (name[0].isupper() + name.isupper(), name.lower()))


def list_definitions(tree: ast.Module) -> list[str]:
    """Returns the names of the public functions and classes that a module defines."""
    definitions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return [node.name for node in definitions if not node.name.startswith('_')]


def read_summary(tree: ast.Module) -> str:
    """Returns the first paragraph of a module's docstring, as one line."""
    return ' '.join((ast.get_docstring(tree) or '').partition('\n\n')[0].split())


# --- Markdown ----------------------------------------------------------------------------------------------------


def render_page(page: Page) -> str:
    """Returns the Markdown of a page: a directive of mkdocstrings per name and per module."""
    lines = [f'# {page.package}', '', f'::: {page.package}', '    options:', '      members: false', '']
    for name, home in page.names.items():
        # The home is not where a user imports it from, so the page has an anchor for that path, too.
        lines += [f'<a id="{page.package}.{name}"></a>', '', f'::: {home}', '    options:']
        lines += ['      show_root_heading: true', '      show_root_toc_entry: true', '']
    for module, members in page.modules.items():
        lines += [f'## {module}', '', f'::: {module}', '    options:', '      heading_level: 3']
        lines += [f'      members: [{", ".join(members)}]', '']
    return '\n'.join(lines)


def render_index(pages: list[Page]) -> str:
    """Returns the Markdown of the list of all pages."""
    rows = [f'| [`{page.package}`]({page.path.partition("/")[2]}) | {page.summary} |' for page in pages]
    preface = 'Every public name, from its docstring. [Batches](../batches.md) lists the keys of every task.'
    return '\n'.join(['# Reference', '', preface, '', '| package | |', '| --- | --- |', *rows, ''])


# --- events of MkDocs --------------------------------------------------------------------------------------------


def on_config(config):
    """Lists the pages in the section of the navigation that has the index."""
    for section in config.nav:
        (entries,) = section.values()
        if 'reference/index.md' in entries:
            entries += [{page.package: page.path} for page in list_pages()]
    return config


def on_files(files, config):
    """Adds the pages to those of the folder."""
    from mkdocs.structure.files import File  # here: without MkDocs, tests still list the pages

    pages = list_pages()
    for path, text in [('reference/index.md', render_index(pages)), *((p.path, render_page(p)) for p in pages)]:
        files.append(File.generated(config, path, content=text))
    return files
