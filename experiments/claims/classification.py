"""Pictures of sweeps that put a claim of a paper to the test: several forms of a network, each at its best rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from canon import models, plots
from canon.errors import CanonError
from canon.nn.trace import trace_network
from canon.train.runs import Run, read_curves
from canon.train.workdir import read_json
from experiments.claims import sweeps

_FEW = 8  # points that have room for their names and values


def at_best(
    found: Sequence[Run],
    form: str | Sequence[str],
    over: str,
    metric: str,
    panels: Mapping[str, str] = {},
    title: str = '',
) -> Figure:
    """What each form came to against the swept value, and its curves at the best one.

    form: the keys of the config that tell the forms apart, 'model.activation'. over: the key of the swept value.
    metric: of the last evaluation, less is better; '1 - test/accuracy' is the error. panels: {title: the rows' metric}.
    Seeds of one form and value count by their median.
    """
    points = [
        (label(config, form), float(at(config, over)), _measured(run, metric), run.folder)
        for run, config in done(found)
    ]
    curves = {panel: lambda name, folders, row=row: _curve(folders, row) for panel, row in panels.items()}
    unit = f'{over.rpartition(".")[2]} '
    return sweeps.at_best(points, curves, unit, xlabel=over, ylabel=_error(metric), title=title)


def costs(
    found: Sequence[Run],
    form: str | Sequence[str],
    cost: Callable[[Mapping[str, Any]], float],
    metric: str,
    xlabel: str,
    title: str = '',
    line: str | Sequence[str] = (),
) -> Figure:
    """What each form came to against what it costs. cost: of a config. line: keys of forms that one line joins."""
    points: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for run, config in done(found):
        group = label(config, line) if line else ''
        name = label(config, [key for key in _keys(form) if key not in _keys(line)])
        price, values = points.setdefault(group, {}).setdefault(name, (cost(config), []))
        values.append(_measured(run, metric))
    prices = sorted(price for named in points.values() for price, _ in named.values())
    if len(prices) > _FEW:
        key = next(iter(next(iter(points.values())))).rpartition(' ')[0]
        title = f'{title}; at each point its {key}'
    figure = Figure(figsize=(6.4, 4.4), layout='constrained')
    axes = figure.add_subplot()
    # Lines in the order of what they cost, which is that of a width or a size.
    lines = sorted(points.items(), key=lambda item: min(price for price, _ in item[1].values()))
    for i, (group, named) in enumerate(lines):
        rows = sorted((price, plots.median_score(values), name, values) for name, (price, values) in named.items())
        axes.plot([r[0] for r in rows], [r[1] for r in rows], '-' if line else 'none', color=f'C{i}', label=group)
        for price, middle, name, values in rows:
            axes.plot([price] * len(values), values, '.', color=f'C{i}', ms=5)
            side = 'left' if price**2 < prices[0] * prices[-1] else 'right'  # towards the middle
            told = name.rpartition(' ')[2] if len(prices) > _FEW else f'{name}: {middle:.3g}'
            axes.annotate(
                told, (price, middle), xytext=(0, 5), textcoords='offset points', fontsize=8, ha=side
            ).set_in_layout(False)
    axes.set(xlabel=xlabel, ylabel=_error(metric), xscale='log', title=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    if line:
        axes.legend(frameon=False)
    return figure


def multiply_adds(config: Mapping[str, Any]) -> float:
    """Of the config's network for one of its test images."""
    size = at(config, 'data.evals.test.transforms.resize.size')
    model = {key: value for key, value in config['model'].items() if value is not None}
    return trace_network(models.make(**model), size, len(at(config, 'input.mean'))).multiply_adds


def label(config: Mapping[str, Any], keys: str | Sequence[str]) -> str:
    """`relu, batch`: the values of the keys, without the module of a model's name."""
    return ', '.join(_word(key, at(config, key)) for key in _keys(keys))


def _keys(keys: str | Sequence[str]) -> Sequence[str]:
    return (keys,) if isinstance(keys, str) else keys


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split('.'):
        config = config[part]
    return config


def _word(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key.rpartition('.')[2] if value else f'not {key.rpartition(".")[2]}'
    return value.rpartition('.')[2] if isinstance(value, str) else f'{key.rpartition(".")[2]} {value:g}'


def done(found: Sequence[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """The runs that are done, each with its config. Raises CanonError where there is none."""
    done = [(run, dict(read_json(run.folder / 'config.json') or {})) for run in found if run.state == 'done']
    if not done:
        raise CanonError('no run of this sweep is done, so there is nothing to draw')
    return done


def _measured(run: Run, metric: str) -> float:
    name = metric.removeprefix('1 - ')
    value = run.metrics.get(name, np.nan)
    return value if name == metric else 1 - value


def _curve(folders: Sequence[Any], metric: str) -> tuple[np.ndarray, np.ndarray]:
    name = metric.removeprefix('1 - ')
    steps, values = read_curves(folders, name)
    return steps, values if name == metric else 1 - values


def _error(metric: str) -> str:
    return metric.replace('1 - ', '').replace('accuracy', 'error') if metric.startswith('1 - ') else metric
