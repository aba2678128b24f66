"""Lists every network: its parameters, multiply-adds per image, receptive field and stride, and published figures.

    ./launch.sh models             # all of them; the deepest take seconds to trace
    ./launch.sh models resnet      # those whose name contains it
    ./launch.sh models --markdown

The networks are traced, not run. `=` means that the published number of parameters equals ours exactly. Networks for
other data than images, whose size depends on a vocabulary or a scene, follow by name, with their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as linen

from canon import models, named
from canon.errors import UsageError
from launch import tools

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


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('models', __doc__)
    parser.add_argument('match', metavar='FILTER', nargs='?', default='', help='a part of the name')
    parser.add_argument('--markdown', action='store_true', help='print a table of Markdown')
    options = parser.parse_args(argv)
    format_line = _format_markdown if options.markdown else _format_aligned
    heads = [format_line(list(_COLUMNS))]
    if options.markdown:
        heads.append(format_line(['---' if width < 0 else '---:' for width in _COLUMNS.values()]))
    others = other_networks(options.match)
    # A filter that matches no image network may still match one of the others.
    try:
        for row in models.tabulate(options.match):
            while heads:  # not before the first row, which may raise
                print(heads.pop(0))
            print(format_line(cells(row)), flush=True)
    except UsageError:
        if not others:
            raise
    if others and not options.markdown:
        print(('' if heads else '\n') + 'by name and arguments:')
        print('\n'.join(f'  {name}\n      {summary}' for name, summary in others.items()))
    return 0


def other_networks(match: str = '') -> dict[str, str]:
    """Returns {'module.function(arguments)': first docstring line} of the networks without published figures."""
    published = {row['name'] for row in models.list_citations()}
    networks = {}
    for name in named.public_functions(models.__name__):
        function = named.lookup(models.__name__, name, 'model')
        # By the type that it returns: other public functions of the package make no network.
        kind = named.get_return_type(function)
        if match in name and name not in published and isinstance(kind, type) and issubclass(kind, linen.Module):
            arguments = ', '.join(
                p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in named.list_parameters(function)
            )
            networks[f'{name}({arguments})'] = (function.__doc__ or '').partition('\n')[0]
    return networks


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


def _format_aligned(texts: Sequence[str]) -> str:
    padded = (t.ljust(-w) if w < 0 else t.rjust(w) for t, w in zip(texts, _COLUMNS.values(), strict=True))
    return '  '.join(padded).rstrip()


def _format_markdown(texts: Sequence[str]) -> str:
    return f'| {" | ".join(t.strip() for t in texts)} |'


if __name__ == '__main__':
    tools.run(main)
