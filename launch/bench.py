"""Measures Canon next to other libraries, each side in a process of its own, and keeps runs/benchmarks.md.

    ./launch.sh bench                                        # all, next to what is installed here
    ./launch.sh bench recurrence backbones.resnet50_train    # a module of benchmarks/, or a work of one
    ./launch.sh bench --torch=PYTHON --save                  # next to another interpreter's torch; into docs/
    ./launch.sh bench --list

A ratio is Canon's time divided by the other side's, below 1 is faster: the median of the rounds, the smallest and the
largest. Each side runs with the settings that are best for it, chosen by trial, and is stopped while others have their
turn. A round in which other processes took more than 5 % of the machine is repeated; a row that stays noisy says so.
The exit status is 1 if a ratio is above its aim.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Row
from canon.errors import UsageError
from canon.named import suggest
from experiments import configs
from launch import tools
from launch.pages import TablePage
from launch.table import layout

HEAD = ('work', 'Canon, ms', 'next to', 'ratio of wall time', 'of CPU time', 'aim', 'settings of both', 'measured')
TITLE = """# Benchmarks

Canon next to other libraries, by `./launch.sh bench`: Canon's time divided by the other side's, so that below 1 Canon
is faster. The median over the rounds, and the smallest and the largest of them. Each side runs in a process of its own,
stopped while others have their turn, with the settings that are best for it, chosen by trial in the same run:
`allocator` keeps large buffers, `huge` does so in pages of 2 MB (`launch.sh` sets it for all runs), `passive` lets
threads of OpenMP sleep, `both` is both, and `compiled` is `torch.compile` with `huge`. [Performance](performance.md)
explains the figures.

"""


def main(argv: Sequence[str] | None = None) -> int:
    benchmarks = load_benchmarks()
    parser = tools.make_parser('bench', __doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='MODULE or MODULE.WORK; all without')
    parser.add_argument('--rounds', type=int, default=5, help='turns of every side that count (5)')
    parser.add_argument('--trials', type=int, default=2, help='turns per setting before the best is chosen (2)')
    parser.add_argument('--save', action='store_true', help='write docs/benchmarks.md instead of runs/benchmarks.md')
    parser.add_argument('--list', action='store_true', help='print the works and their aims')
    for peer in sorted({b.peer.name for b in benchmarks.values() if b.peer}):
        parser.add_argument(f'--{peer}', metavar='PYTHON', help=f'an interpreter that has {peer}')
    options = parser.parse_args(argv)
    works = choose_works(options.names, benchmarks)
    if options.list:
        print(layout(('work', 'aims'), [(f'{m}.{w}', _list_aims(benchmarks[m], w)) for m, w in works]))
        return 0
    page = configs.ROOT / ('docs' if options.save else 'runs') / 'benchmarks.md'
    missed = []
    for module, work in works:
        peer = benchmarks[module].peer
        interpreter = (getattr(options, peer.name) or comparison.find_interpreter(peer)) if peer else None
        rows = comparison.measure(benchmarks[module], work, interpreter, options.rounds, options.trials)
        comparison.print_table(rows)
        print()
        missed += [f'{module}.{work}' for row in rows if misses(row)]
        # At once, so that what was measured remains if the rest is interrupted.
        make_page(benchmarks, {f'{module}.{work}'} if len(rows) > 1 else ()).write(page, describe(module, rows))
    print(f'{len(works)} measured, written to {page.relative_to(configs.ROOT)}')
    if missed:
        print(f'above their aims: {", ".join(missed)}')
    return 1 if missed else 0


def load_benchmarks() -> dict[str, Benchmark]:
    """Returns {name: benchmark} of the modules of benchmarks/ that have one."""
    files = sorted(Path(comparison.__file__).parent.glob('*.py'))
    modules = {file.stem: importlib.import_module(f'benchmarks.{file.stem}') for file in files if _offers_works(file)}
    return {name: module.BENCHMARK for name, module in modules.items()}


def _offers_works(file: Path) -> bool:
    return any(line.startswith('BENCHMARK =') for line in file.read_text().splitlines())


def choose_works(names: Sequence[str], benchmarks: dict[str, Benchmark]) -> list[tuple[str, str]]:
    """Returns (module, work) of the names, in the order of the modules; raises UsageError for an unknown name."""
    every = [(module, work) for module, benchmark in benchmarks.items() for work in benchmark.works]
    known = {f'{module}.{work}' for module, work in every} | set(benchmarks)
    for name in names:
        if name not in known:
            raise UsageError(f'bench: there is no {name!r}{suggest(name, known)}; ./launch.sh bench --list has all')
    return [(m, w) for m, w in every if not names or m in names or f'{m}.{w}' in names]


def misses(row: Row) -> bool:
    """Returns whether a ratio is above its aim."""
    return row.side != 'canon' and row.aim is not None and statistics.median(row.ratios('wall')) > row.aim


def make_page(benchmarks: dict[str, Benchmark], compared: Collection[str] = ()) -> TablePage:
    """Returns the page, without what no longer exists and without earlier rows of `compared` works alone."""
    known = {f'{module}.{work}' for module, benchmark in benchmarks.items() for work in benchmark.works}

    def stays(row: Sequence[str]) -> bool:
        return row[0] in known and not (row[2] == 'alone' and row[0] in compared)

    return TablePage(TITLE, HEAD, lambda row: (row[0], row[2].split(' ')[0]), stays)


def describe(module: str, rows: Sequence[Row]) -> list[list[str]]:
    """Returns the cells of the page: a row per side that Canon is compared with."""
    canon, *others = rows
    milliseconds = 1e3 * statistics.median(turn.wall for turn in canon.turns)
    cells = []
    for row in others or [canon]:
        alone = row is canon
        ratios = ['', ''] if alone else [comparison.describe(row.ratios(clock)) for clock in ('wall', 'cpu')]
        settings = canon.settings if alone else f'{canon.settings}; {row.settings}'
        noise = f', noisy: others took {row.noise:.0%}' if row.noise > comparison.NOISY else ''
        cells.append([
            f'{module}.{row.work}', _round(milliseconds), 'alone' if alone else f'{row.side} ({row.banner})', *ratios,
            '' if row.aim is None else f'{row.aim:g}', settings, time.strftime('%Y-%m-%d') + noise,
        ])  # fmt: skip
    return cells


def _round(milliseconds: float) -> str:
    return f'{milliseconds:,.0f}' if milliseconds >= 20 else f'{milliseconds:.2g}'


def _list_aims(benchmark: Benchmark, work: str) -> str:
    return ', '.join(f'{side} {aim:g}' for side, aim in benchmark.works[work].aims.items())


if __name__ == '__main__':
    tools.run(main)
