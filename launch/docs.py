"""Builds the manual, a folder of HTML that needs no network, and checks its links and pictures.

./launch.sh docs                     # into site/
./launch.sh docs --output=DIR
./launch.sh docs --serve             # shows it at http://127.0.0.1:8000 and rebuilds it whenever a page changes
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from canon.errors import CanonError
from launch import tools

CONFIG = Path(__file__).parents[1] / 'mkdocs.yml'
LOADS = {'img': 'src', 'script': 'src', 'link': 'href', 'source': 'src', 'iframe': 'src', 'video': 'src'}


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('docs', __doc__)
    parser.add_argument('--output', type=Path, default=Path('site'), metavar='DIR', help='the folder (default: site)')
    parser.add_argument('--serve', action='store_true', help='show it, and rebuild it whenever a page changes')
    parser.add_argument('--port', type=int, default=8000, help='of --serve (default: 8000)')
    options = parser.parse_args(argv)
    # Material prints news of its authors at every build otherwise.
    os.environ.setdefault('NO_MKDOCS_2_WARNING', '1')
    if options.serve:
        return serve_site(options.port)
    folder = options.output.expanduser().resolve()
    build_site(folder)
    problems = list(check_site(folder))
    for problem in problems:
        print(problem)
    if problems:
        raise CanonError(f'{len(problems)} links or pictures of {folder} lead nowhere: see the lines above')
    print(f'{folder / "index.html"}: {len(list(folder.rglob("*.html")))} pages')
    return 0


def load_config(**settings):
    """Returns the settings of MkDocs; raises CanonError if it is not installed."""
    try:
        import mkdocs.config
        import mkdocstrings  # noqa: F401
    except ImportError as error:
        raise CanonError(f"the manual needs {error.name}: pip install '.[docs]'") from error
    return mkdocs.config.load_config(str(CONFIG), **settings)


def build_site(folder: Path) -> None:
    """Builds the manual into a folder; raises CanonError at the first of any warnings."""
    config = load_config(site_dir=str(folder), strict=True)
    from mkdocs.commands.build import build
    from mkdocs.exceptions import Abort

    logger = logging.getLogger('mkdocs')
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    config.plugins.on_startup(command='build', dirty=False)
    try:
        build(config)
    except Abort as error:
        raise CanonError(f'the manual is not sound: {error}') from error
    finally:
        config.plugins.on_shutdown()
        logger.removeHandler(handler)


def serve_site(port: int) -> int:
    """Serves the manual on the loopback until it is interrupted."""
    load_config()
    from mkdocs.commands.serve import serve

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    serve(str(CONFIG), dev_addr=f'127.0.0.1:{port}', strict=True)
    return 0


# --- links and pictures ------------------------------------------------------------------------------------------


class PageLinks(NamedTuple):
    """The references of a page: `ids` in it, `links` of its anchors, `loads` of pictures, scripts and styles."""

    ids: set[str]
    links: list[str]
    loads: list[str]


class _Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.page = PageLinks(set(), [], [])

    def handle_starttag(self, tag, attrs):
        values = {key: value for key, value in attrs if value is not None}
        self.page.ids.update(values[key] for key in ('id', 'name') if key in values)
        if tag == 'a' and 'href' in values:
            self.page.links.append(values['href'])
        if values.get(LOADS.get(tag, '')):
            self.page.loads.append(values[LOADS[tag]])


def read_links(file: Path) -> PageLinks:
    """Reads the references of an HTML file."""
    collector = _Collector()
    collector.feed(file.read_text())
    return collector.page


def check_site(folder: Path) -> Iterator[str]:
    """Yields a line for each link to a missing page or anchor, missing picture, and anything of another host."""
    pages = {file.resolve(): read_links(file) for file in sorted(folder.rglob('*.html'))}
    for file, page in pages.items():
        name = file.relative_to(folder.resolve())
        for reference in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(reference)
            if parts.scheme == 'data' or (parts.netloc and reference in page.links and reference not in page.loads):
                continue  # a link to another site is not loaded with the page
            # 404.html is served at any address, so its links begin at the root.
            base = folder.resolve() if parts.path.startswith('/') else file.parent
            target = (base / unquote(parts.path.lstrip('/'))).resolve() if parts.path else file
            target = target / 'index.html' if target.is_dir() else target
            if parts.scheme or parts.netloc:
                yield f'{name}: {reference} is of another host'
            elif not target.exists():
                yield f'{name}: {reference} does not exist'
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids | {'__top'}:
                yield f'{name}: {reference} has no such anchor'


if __name__ == '__main__':
    tools.run(main)
