"""Every network: parameters, multiply-adds of one image, receptive field and stride of its last map, and what is
published of it. Ours are counted, nothing is computed.

    ./launch.sh models             # all of them; a row appears when it is counted, the deepest take seconds
    ./launch.sh models resnet      # those whose name contains it
    ./launch.sh models --markdown

`=` stands where the published number of parameters is ours to the unit. Networks of other data than images, whose
size depends on a vocabulary or a scene, follow by name, with their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as linen

from canon import models, named
from canon.errors import UsageError
from launch import tools

_COLUMNS = {  # title: width, negative ones to the left
    'network': -56,
    'size': 4,
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
    parser = tools.parser('models', __doc__)
    parser.add_argument('match', metavar='FILTER', nargs='?', default='', help='a part of the name')
    parser.add_argument('--markdown', action='store_true', help='as a table of Markdown')
    options = parser.parse_args(argv)
    line = _markdown if options.markdown else _aligned
    heads = [line(list(_COLUMNS))]
    if options.markdown:
        heads.append(line(['---' if width < 0 else '---:' for width in _COLUMNS.values()]))
    others = other_networks(options.match)
    try:
        for row in models.rows(options.match):
            while heads:
                print(heads.pop(0))
            print(line(cells(row)), flush=True)
    except UsageError:
        if not others:
            raise
    if others and not options.markdown:
        print(('' if heads else '\n') + 'by name and arguments:')
        print('\n'.join(f'  {name}\n      {summary}' for name, summary in others.items()))
    return 0


def other_networks(match: str = '') -> dict[str, str]:
    """{'module.function(arguments)': its first line} of the networks that no table of published results lists."""
    published = {row['name'] for row in models.published_rows()}
    networks = {}
    for name in named.public_functions(models.__name__):
        function = named.lookup(models.__name__, name, 'model')
        kind = named.type_hints(function).get('return')
        if match in name and name not in published and isinstance(kind, type) and issubclass(kind, linen.Module):
            arguments = ', '.join(
                p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in named.parameters(function)
            )
            networks[f'{name}({arguments})'] = (function.__doc__ or '').partition('\n')[0]
    return networks


def cells(row: models.Row) -> list[str]:
    """The text of each column."""
    arguments = ' '.join(f'{key}={value}' for key, value in row.arguments.items())
    theirs = row.published_multiply_adds
    return [
        f'{row.name} {arguments}'.strip(),
        str(row.size),
        f'{row.parameters:,}',
        _parameters(row),
        f'{row.multiply_adds / 1e6:,.1f}',
        '' if theirs is None else f'{theirs / 1e6:,.0f}',
        _pair(row.field),
        _pair(row.stride),
        *('' if value is None else f'{value:.2f}' for value in (row.top1, row.top5)),
        row.source or '',
    ]


def _parameters(row: models.Row) -> str:
    if row.published_parameters is None:
        return ''
    return '=' if row.published_parameters == row.parameters else f'{row.published_parameters:,}'


def _pair(both: tuple[int, int]) -> str:
    return str(both[0]) if both[0] == both[1] else f'{both[0]}x{both[1]}'


def _aligned(texts: Sequence[str]) -> str:
    padded = (t.ljust(-w) if w < 0 else t.rjust(w) for t, w in zip(texts, _COLUMNS.values(), strict=True))
    return '  '.join(padded).rstrip()


def _markdown(texts: Sequence[str]) -> str:
    return f'| {" | ".join(t.strip() for t in texts)} |'


if __name__ == '__main__':
    tools.run(main)
