"""Prints the runs below a folder as a sorted table and draws `table.png`: the metric against the swept value.

    ./launch.sh table runs/classification/lenet_digits --metric=test/accuracy --sort=tx.learning_rate
    ./launch.sh table runs/claims/label_shift --mean     # seeds as one row, with standard errors

Rows are sorted by the metric, best first, unless --sort names a column. Keys whose value is the same in all runs, and
metrics after the first six, are columns with --all. If all runs are of one config file that defines
`pictures(runs) -> {name: matplotlib Figure}`, these figures are saved too, as NAME.png next to the table. The function
receives a list of `canon.train.runs.Run`; it draws what the `sweep()` of the same file is meant to show.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from canon import plots
from canon.configuration import split_source
from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.train.log import SUMMARY
from canon.train.runs import Run, find_runs
from experiments import configs
from launch import tools
from launch.flags import label

_METRICS = 6  # columns of metrics; detection alone has twenty


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('table', __doc__)
    parser.add_argument('folder', metavar='DIR', type=Path)
    parser.add_argument('--metric', help="what to sort by and draw (default: the config's target)")
    parser.add_argument('--sort', metavar='COLUMN', help='a metric, a swept key, step, seconds, state or run')
    parser.add_argument(
        '--mean', action='store_true', help='one row for all seeds of a setting: the mean and its standard error, +-'
    )
    parser.add_argument('--all', action='store_true', help='all keys and metrics as columns')
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise UsageError(f'no folder {options.folder}; runs are in runs/TASK/NAME')
    absl_logging.set_verbosity(absl_logging.FATAL)  # a config's pictures may read weights, of which Orbax says much
    runs = find_runs(options.folder)
    if not runs:
        raise CanonError(f'no runs below {options.folder}')
    metric = choose_metric(runs, options.metric)
    names, rows = average_seeds(runs, metric) if options.mean else tabulate(runs, metric, options.folder)
    hidden = set() if options.mean or options.all else list_hidden(runs, metric) - {options.sort}
    # A column that the user chose is sorted upwards, the metric with its best value first.
    column, descending = (options.sort, False) if options.sort else (metric, not is_minimised(runs, metric))
    if column and column not in names:
        raise UsageError(f'--sort={column}: no such column{suggest(column, names)}')
    if column:
        rows.sort(key=lambda row: _sort_key(row[names.index(column)], descending))
    shown = [i for i, name in enumerate(names) if name not in hidden]
    print(layout([names[i] for i in shown], [[row[i] for i in shown] for row in rows]))
    if hidden:
        print('\n' + textwrap.fill(f'--all adds {", ".join(sorted(hidden))}', 120, break_long_words=False))
    if metric:
        path = draw(runs, metric, options.folder / 'table.png')
        print(f'\n{path}' if path else '\nno picture: no value was swept, or no run has been evaluated yet')
    for path in draw_own(runs, options.folder):
        print(path)
    return 0


def choose_metric(runs: Sequence[Run], requested: str | None) -> str | None:
    """Returns the requested metric, or the target of the first run that states one, or the first metric measured."""
    measured = _union_of_keys(run.metrics for run in runs)
    if requested and requested not in measured:
        raise UsageError(f'--metric={requested}: no run has it{suggest(requested, measured)}')
    targets = [run.target['metric'] for run in runs if run.target.get('metric') in measured]
    return requested or next(iter([*targets, *measured]), None)


def is_minimised(runs: Sequence[Run], metric: str | None) -> bool:
    """Returns whether less of the metric is better: as the target states, or by its name."""
    targets = [run.target for run in runs if run.target.get('metric') == metric]
    return any('at_most' in target for target in targets) or (not targets and 'loss' in str(metric))


def sort_runs(runs: Sequence[Run], metric: str | None) -> list[Run]:
    """Returns the runs with the best value of the metric first, and last those that lack it."""
    descending = not is_minimised(runs, metric)
    return sorted(runs, key=lambda run: _sort_key(run.metrics.get(str(metric)), descending))


def tabulate(runs: Sequence[Run], metric: str | None, folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Returns the names of the columns and a row for each run; None marks a missing value."""
    keys = _union_of_keys(run.overrides for run in runs)
    several = len({run.config for run in runs}) > 1  # otherwise the column would repeat one name
    metrics = sorted(_union_of_keys(run.metrics for run in runs), key=lambda name: name != metric)
    names = [*(['config'] if several else []), *keys, *metrics, 'step', 'seconds', 'state', 'run']
    rows = []
    for run in runs:
        overrides, measured = map(run.overrides.get, keys), map(run.metrics.get, metrics)
        config = [run.config] if several else []
        path = str(run.folder.relative_to(folder))
        rows.append([*config, *overrides, *measured, run.step, run.seconds, _describe_state(run), path])
    return names, rows


def list_hidden(runs: Sequence[Run], metric: str | None) -> set[str]:
    """Returns the columns that are left out by default: keys that all runs share, and metrics after the first ones."""
    # A single run is described by its keys.
    keys = _union_of_keys(run.overrides for run in runs) if len(runs) > 1 else []
    shared = [key for key in keys if len({format_cell(run.overrides.get(key)) for run in runs}) == 1]
    metrics = sorted(_union_of_keys(run.metrics for run in runs), key=lambda name: name != metric)
    return {*shared, *metrics[_METRICS:]}


def average_seeds(runs: Sequence[Run], metric: str | None) -> tuple[list[str], list[list[Any]]]:
    """Returns the names of the columns and a row for each setting: means over finished runs that differ in the seed.

    A metric's column is followed by its standard error s / sqrt(n), which a single run does not have. Where runs have
    metrics of the run as a whole ('summary/...'), these are shown alone, with the metric that was chosen.
    """
    done = [run for run in runs if run.state == 'done']
    keys = [key for key in _union_of_keys(run.overrides for run in done) if key.rpartition('.')[2] != 'seed']
    measured = _union_of_keys(run.metrics for run in done)
    summaries = [name for name in measured if name.startswith(f'{SUMMARY}/')]
    chosen = [name for name in (metric, *(summaries or sorted(measured))) if name]
    chosen = list(dict.fromkeys(chosen))
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in done:
        groups.setdefault(tuple(format_cell(run.overrides.get(key)) for key in keys), []).append(run)
    rows = []
    for setting, of_setting in groups.items():
        cells: list[Any] = []
        for name in chosen:
            values = [run.metrics[name] for run in of_setting if name in run.metrics]
            cells += _summarise(values)
        rows.append([*setting, *cells, len(of_setting)])
    return [*keys, *(column for name in chosen for column in (name, '+-')), 'runs'], rows


def _summarise(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the mean and its standard error; None for what the values do not give."""
    if not values:
        return None, None
    mean, error = plots.mean_and_error(values)
    return mean, error if len(values) > 1 else None


def layout(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns an aligned table: numbers to the right, words to the left."""
    # Columns are as wide as their widest cell, which is known only when all are formatted.
    cells = [list(names), *([format_cell(value) for value in row] for row in rows)]
    numeric = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(names))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = []
    for row in cells:
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append('  '.join(aligned).rstrip())
    return '\n'.join(lines)


def draw(runs: Sequence[Run], metric: str, path: Path) -> Path | None:
    """Draws the metric against the key with the most values, with a line for each combination of the other keys.

    Runs that differ only in their seed are drawn as points about their mean. A run that does not override a key has the
    value of its config; a run whose config has no such key is left out. Returns None if there is nothing to draw.
    """
    measured = [run for run in runs if math.isfinite(run.metrics.get(metric, math.nan))]
    keys = [key for key in _union_of_keys(run.overrides for run in measured) if _count_values(measured, key) > 1]
    if not keys:
        return None
    # The seed is the swept key only if nothing else was swept.
    swept = max(keys, key=lambda key: (key != 'seed', _count_values(measured, key)))
    others = _drop_dependent(measured, [key for key in keys if key not in (swept, 'seed')])
    measured = [run for run in measured if _get_value(run, swept) is not None]
    values: list[Any] = [_get_value(run, swept) for run in measured]
    numeric = all(map(_is_number, values))
    words = sorted({format_cell(value) for value in values})
    positions = [float(v) for v in values] if numeric else [float(words.index(format_cell(v))) for v in values]
    lines: dict[str, dict[float, list[float]]] = {}
    for run, x in zip(measured, positions, strict=True):
        line = lines.setdefault(label({k: _get_value(run, k) for k in others if _get_value(run, k) is not None}), {})
        # Several values at one place are seeds.
        line.setdefault(x, []).append(run.metrics[metric])

    from matplotlib.figure import Figure  # takes a second, which a table does not need

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for i, (name, line) in enumerate(sorted(lines.items())):
        xs, colour = sorted(line), f'C{i % 10}'
        axes.plot(xs, [sum(line[x]) / len(line[x]) for x in xs], '-', color=colour, label=name)
        axes.plot([x for x in xs for _ in line[x]], [y for x in xs for y in line[x]], 'o', color=colour, markersize=4)
    # The target of the config as a dotted line; the runs of one sweep share it.
    for target in [run.target for run in measured if run.target.get('metric') == metric][:1]:
        for bound in ('at_least', 'at_most'):
            if bound in target:
                axes.axhline(target[bound], color='0.6', linestyle=':')
    if not numeric:
        axes.set_xticks(range(len(words)), words)
        if sum(map(len, words)) > 50:  # characters on an axis of five inches
            axes.tick_params('x', labelrotation=20)
    elif min(positions) > 0 and max(positions) / min(positions) >= 30:  # spread over more than a decade
        axes.set_xscale('log')
    if others:
        figure.legend(loc='outside lower center', frameon=False, fontsize='small')
    axes.set(xlabel=swept, ylabel=metric)
    axes.spines[['top', 'right']].set_visible(False)
    return _save(figure, path)


def draw_own(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Saves the figures of `pictures(runs)` of the runs' common config file; returns their paths."""
    # Runs of `FILE` and `FILE:smoke` are of one file.
    files = {split_source(run.config)[0] for run in runs}
    file = files.pop()
    pictures = getattr(configs.load_module(str(file)), 'pictures', None) if not files and file.is_file() else None
    return [_save(figure, folder / f'{name}.png') for name, figure in (pictures(runs) if pictures else {}).items()]


def _save(figure: Any, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CanonError(f'{path} cannot be written: {error.strerror}') from error
    return path


def _union_of_keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the keys of all mappings in the order of their first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _drop_dependent(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Drops keys whose values follow from those of the keys before them, such as two keys that change together."""
    kept: list[str] = []
    for key in keys:
        before, after = (
            {tuple(format_cell(_get_value(run, k)) for k in chosen) for run in runs} for chosen in (kept, [*kept, key])
        )
        kept += [key] if len(after) > len(before) else []
    return kept


def _count_values(runs: Sequence[Run], key: str) -> int:
    return len({format_cell(_get_value(run, key)) for run in runs})


def _get_value(run: Run, key: str) -> Any:
    """Returns the value of a key in a run, whether overridden or not."""
    return run.overrides.get(key, run.values.get(key))


def _describe_state(run: Run) -> str:
    """Returns `done`, `running 20/60` or `failed 20/60: what went wrong`."""
    progress = f' {run.step}/{run.steps}' if run.state != 'done' and run.step is not None else ''
    return run.state + progress + (f': {run.error.splitlines()[0][:60]}' if run.error else '')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def format_cell(value: Any) -> str:
    """Returns a value as a cell of a table shows it: five digits, and `-` for a missing one."""
    if value is None:
        return '-'
    if isinstance(value, bool):
        return str(value).lower()
    return f'{value:.5g}' if isinstance(value, float) else str(value)


def _sort_key(value: Any, descending: bool) -> tuple:
    """Sorts finite numbers first, then words, then what is missing or not finite."""
    if _is_number(value) and math.isfinite(value):
        return 0, -value if descending else value, ''
    return (2 if value is None or _is_number(value) else 1), 0, format_cell(value)


if __name__ == '__main__':
    tools.run(main)
