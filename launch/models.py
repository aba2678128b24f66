"""Lists every network by family: its parameters and multiply-adds at a stated input, next to published figures.

    ./launch.sh models             # all of them; the deepest take seconds to trace
    ./launch.sh models resnet      # those whose name contains it
    ./launch.sh models --markdown  # the tables of docs/networks.md

The networks are traced, not run. The first table has the networks of images whose papers state figures, with receptive
field and stride; `=` means that the published number of parameters equals ours exactly. The second has all others, for
scenes, shapes, text and tracks, each at the input that it names (launch/network_inputs.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import flax.linen as linen

from canon import models, named
from canon.errors import UsageError
from launch import tools
from launch.network_inputs import INPUTS, count_network

_COLUMNS = {  # title: width; columns of negative width are aligned to the left
    'network': -56,
    'size': 6,
    'parameters': 11,
    'published': 11,
    'M mult-adds': 11,
    'published ': 10,
    'field': 5,
    'stride': 6,
    'top-1': 6,
    'top-5': 6,
    'source': -1,
}


_OTHER_COLUMNS = {'network': -36, 'parameters': 11, 'M mult-adds': 11, 'input': -38, 'published': -1}


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('models', __doc__)
    parser.add_argument('match', metavar='FILTER', nargs='?', default='', help='a part of the name')
    parser.add_argument('--markdown', action='store_true', help='print tables of Markdown')
    options = parser.parse_args(argv)
    others = [name for name in list_others() if options.match in name]
    rows = map(cells, models.tabulate(options.match))
    # A filter that matches no image network may still match one of the others.
    try:
        first = [next(rows)]
    except UsageError:
        if not others:
            raise
        first = []
    if first:
        print_table(_COLUMNS, itertools.chain(first, rows), options.markdown)
    if others:
        print('\n' if first else '', end='')
        print_table(_OTHER_COLUMNS, map(other_cells, others), options.markdown)
    return 0


def print_table(columns: Mapping[str, int], rows: Iterable[Sequence[str]], markdown: bool) -> None:
    """Prints rows as they come; columns of negative width are aligned to the left."""
    print(_format_markdown(list(columns)) if markdown else _format_aligned(list(columns), columns))
    if markdown:
        print(_format_markdown(['---' if width < 0 else '---:' for width in columns.values()]))
    for row in rows:
        print(_format_markdown(row) if markdown else _format_aligned(row, columns), flush=True)


def list_others() -> list[str]:
    """Returns the names of all networks without published figures in a `TABLE`, by family."""
    published = {row['name'] for row in models.list_citations()}
    networks = []
    for name in named.public_functions(models.__name__):
        # By the type that it returns: other public functions of the package make no network.
        kind = named.get_return_type(named.lookup(models.__name__, name, 'model'))
        if name not in published and isinstance(kind, type) and issubclass(kind, linen.Module):
            networks.append(name)
    return networks


def other_cells(name: str) -> list[str]:
    """Returns the text of each column for a network of `INPUTS`."""
    row, costs = INPUTS[name], count_network(name)
    arguments = ' '.join(f'{k}={v["name"] if isinstance(v, Mapping) else v}' for k, v in row.arguments.items())
    title = f'{name} {arguments}'.strip() if 'vocab' not in row.arguments else name
    return [title, f'{costs.parameters:,}', f'{costs.multiply_adds / 1e6:,.3f}', row.text, row.published]


def cells(row: models.NetworkRow) -> list[str]:
    """Returns the text of each column."""
    arguments = ' '.join(f'{key}={value}' for key, value in row.arguments.items())
    published = row.published_multiply_adds
    return [
        f'{row.name} {arguments}'.strip(),
        str(row.size) if isinstance(row.size, int) else _format_pair(row.size),
        f'{row.parameters:,}',
        _published_parameters(row),
        f'{row.multiply_adds / 1e6:,.1f}',
        '' if published is None else f'{published / 1e6:,.0f}',
        _format_pair(row.field),
        _format_pair(row.stride),
        *('' if value is None else f'{value:.2f}' for value in (row.top1, row.top5)),
        row.source or '',
    ]


def _published_parameters(row: models.NetworkRow) -> str:
    if row.published_parameters is None:
        return ''
    return '=' if row.published_parameters == row.parameters else f'{row.published_parameters:,}'


def _format_pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f'{pair[0]}x{pair[1]}'


def _format_aligned(texts: Sequence[str], columns: Mapping[str, int]) -> str:
    padded = (t.ljust(-w) if w < 0 else t.rjust(w) for t, w in zip(texts, columns.values(), strict=True))
    return '  '.join(padded).rstrip()


def _format_markdown(texts: Sequence[str]) -> str:
    return f'| {" | ".join(t.strip() for t in texts)} |'


if __name__ == '__main__':
    tools.run(main)
