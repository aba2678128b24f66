"""The runs below a folder as a sorted table, and `table.png`: the metric against the value that was swept.

    ./launch.sh table runs/classification/lenet_digits --metric=test/accuracy --sort=tx.learning_rate

Sorted by the metric, best first, unless --sort names a column. Runs that are not done are listed as what they are.
Where all runs are of one config file that defines `pictures(runs) -> {name: matplotlib Figure}`, these are drawn too,
as NAME.png beside the table: what a sweep is meant to show, next to its `sweep()`. It gets `experiments.Run`s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canon.configuration import split
from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.train.runs import Run, find_runs
from experiments import configs
from launch import tools
from launch.flags import label


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.parser('table', __doc__)
    parser.add_argument('folder', metavar='DIR', type=Path)
    parser.add_argument('--metric', help="what to sort by and draw; the config's target without")
    parser.add_argument('--sort', metavar='COLUMN', help='a metric, a swept key, step, seconds, state or run')
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise UsageError(f'no folder {options.folder}; runs are in runs/TASK/NAME')
    found = find_runs(options.folder)
    if not found:
        raise CanonError(f'no runs below {options.folder}')
    metric = choose_metric(found, options.metric)
    names, rows = tabulate(found, metric, options.folder)
    column, backwards = (options.sort, False) if options.sort else (metric, not less_is_better(found, metric))
    if column and column not in names:
        raise UsageError(f'--sort={column}: no such column{suggest(column, names)}')
    if column:
        rows.sort(key=lambda row: _order(row[names.index(column)], backwards))
    print(layout(names, rows))
    if metric:
        path = draw(found, metric, options.folder / 'table.png')
        print(f'\n{path}' if path else '\nno picture: no swept value, or no run has measured yet')
    for path in draw_own(found, options.folder):
        print(path)
    return 0


def choose_metric(found: Sequence[Run], wanted: str | None) -> str | None:
    """The one asked for, or the target of the first run that states one, or the first one measured."""
    measured = _columns(run.metrics for run in found)
    if wanted and wanted not in measured:
        raise UsageError(f'--metric={wanted}: no run has it{suggest(wanted, measured)}')
    targets = [run.target['metric'] for run in found if run.target.get('metric') in measured]
    return wanted or next(iter([*targets, *measured]), None)


def less_is_better(found: Sequence[Run], metric: str | None) -> bool:
    targets = [run.target for run in found if run.target.get('metric') == metric]
    return any('at_most' in target for target in targets) or (not targets and 'loss' in str(metric))


def tabulate(found: Sequence[Run], metric: str | None, folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Column names, and a row of values (None where there is none) for each run."""
    keys = _columns(run.overrides for run in found)
    several = len({run.config for run in found}) > 1
    metrics = sorted(_columns(run.metrics for run in found), key=lambda name: name != metric)
    names = [*(['config'] if several else []), *keys, *metrics, 'step', 'seconds', 'state', 'run']
    rows = []
    for run in found:
        overrides, measured = map(run.overrides.get, keys), map(run.metrics.get, metrics)
        config = [run.config] if several else []
        where = str(run.folder.relative_to(folder))
        rows.append([*config, *overrides, *measured, run.step, run.seconds, _state(run), where])
    return names, rows


def layout(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned: numbers to the right, words to the left."""
    cells = [list(names), *([_text(value) for value in row] for row in rows)]
    numeric = [all(_number(row[i]) or row[i] is None for row in rows) for i in range(len(names))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = []
    for row in cells:
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append('  '.join(aligned).rstrip())
    return '\n'.join(lines)


def draw(found: Sequence[Run], metric: str, path: Path) -> Path | None:
    """A line for each value of the other swept keys; runs that differ in the seed alone share a point, their mean.

    A run that does not override a key has the value of its config; one whose config has no such key is left out.
    """
    measured = [run for run in found if math.isfinite(run.metrics.get(metric, math.nan))]
    keys = [key for key in _columns(run.overrides for run in measured) if _distinct(measured, key) > 1]
    if not keys:
        return None
    swept = max(keys, key=lambda key: (key != 'seed', _distinct(measured, key)))
    others = [key for key in keys if key not in (swept, 'seed')]
    measured = [run for run in measured if _value(run, swept) is not None]
    values: list[Any] = [_value(run, swept) for run in measured]
    numeric = all(map(_number, values))
    words = sorted({_text(value) for value in values})
    places = [float(v) for v in values] if numeric else [float(words.index(_text(v))) for v in values]
    lines: dict[str, dict[float, list[float]]] = {}
    for run, place in zip(measured, places, strict=True):
        line = lines.setdefault(label({k: _value(run, k) for k in others if _value(run, k) is not None}), {})
        line.setdefault(place, []).append(run.metrics[metric])

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for i, (name, line) in enumerate(sorted(lines.items())):
        xs, colour = sorted(line), f'C{i % 10}'
        axes.plot(xs, [sum(line[x]) / len(line[x]) for x in xs], '-', color=colour, label=name)
        axes.plot([x for x in xs for _ in line[x]], [y for x in xs for y in line[x]], 'o', color=colour, markersize=4)
    for target in [run.target for run in measured if run.target.get('metric') == metric][:1]:
        for bound in ('at_least', 'at_most'):
            if bound in target:
                axes.axhline(target[bound], color='0.6', linestyle=':')
    if not numeric:
        axes.set_xticks(range(len(words)), words)
    elif min(places) > 0 and max(places) / min(places) >= 30:
        axes.set_xscale('log')
    if others:
        axes.legend(frameon=False, fontsize='small')
    axes.set(xlabel=swept, ylabel=metric)
    axes.spines[['top', 'right']].set_visible(False)
    return _save(figure, path)


def draw_own(found: Sequence[Run], folder: Path) -> list[Path]:
    """The pictures that the config of all these runs defines, saved in `folder`; none where it defines none."""
    files = {split(run.config)[0] for run in found}
    file = files.pop()
    pictures = getattr(configs.load_module(str(file)), 'pictures', None) if not files and file.is_file() else None
    return [_save(figure, folder / f'{name}.png') for name, figure in (pictures(found) if pictures else {}).items()]


def _save(figure: Any, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CanonError(f'{path} cannot be written: {error.strerror}') from error
    return path


def _columns(mappings) -> list[str]:
    """The keys of all, in the order of their first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _distinct(found: Sequence[Run], key: str) -> int:
    return len({_text(_value(run, key)) for run in found})


def _value(run: Run, key: str) -> Any:
    """The value of a key in a run, whether it was overridden or stands in its config."""
    return run.overrides.get(key, run.values.get(key))


def _state(run: Run) -> str:
    """`done`; `running 20/60`; `failed 20/60: what went wrong`."""
    progress = f' {run.step}/{run.steps}' if run.state != 'done' and run.step is not None else ''
    return run.state + progress + (f': {run.error.splitlines()[0][:60]}' if run.error else '')


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, bool):
        return str(value).lower()
    return f'{value:.5g}' if isinstance(value, float) else str(value)


def _order(value: Any, backwards: bool) -> tuple:
    """A key to sort by: numbers, then words, then what is missing or not finite."""
    if _number(value) and math.isfinite(value):
        return 0, -value if backwards else value, ''
    return (2 if value is None or _number(value) else 1), 0, _text(value)


if __name__ == '__main__':
    tools.run(main)
