"""Figures of sweeps that test a claim of a paper: several forms of a network, each at its best learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from canon import models, plots
from canon.configuration import drop_placeholders
from canon.nn.trace import trace_network
from canon.train.runs import Run, finished_runs, format_settings, get_setting, read_curves


def draw_best_forms(
    runs: Sequence[Run],
    form: str | Sequence[str],
    over: str,
    metric: str,
    panels: Mapping[str, str] = {},
    title: str = '',
) -> Figure:
    """Draws the result of each form of a network against a swept setting, and its curves at the best one.

    Seeds of one form and setting count by their median.

    Args:
      runs: of the sweep.
      form: the config's keys that distinguish the forms, 'model.activation'.
      over: the key of the swept setting, 'tx.momentum.learning_rate'.
      metric: of the last evaluation, lower is better; '1 - test/accuracy' is the error.
      panels: {title: logged metric} of the curves.
      title: of the figure.
    """
    points = [
        (format_settings(config, form), float(get_setting(config, over)), _read_metric(run, metric), run.folder)
        for run, config in finished_runs(runs)
    ]
    # `row=row` binds the value of this turn: a closure would see the last one.
    curves = {panel: lambda name, folders, row=row: _read_curve(folders, row) for panel, row in panels.items()}
    unit = f'{over.rpartition(".")[2]} '
    return plots.draw_best(points, curves, unit, xlabel=over, ylabel=_metric_label(metric), title=title)


def draw_costs(
    runs: Sequence[Run],
    form: str | Sequence[str],
    cost: Callable[[Mapping[str, Any]], float],
    metric: str,
    xlabel: str,
    title: str = '',
    line: str | Sequence[str] = (),
) -> Figure:
    """Draws the result of each form of a network against its cost.

    Args:
      runs: of the sweep.
      form: the config's keys that distinguish the forms.
      cost: of a config, such as `count_multiply_adds`.
      metric: of the last evaluation, lower is better; '1 - test/accuracy' is the error.
      xlabel: name of the cost.
      title: of the figure.
      line: keys of `form` that share one line.
    """
    points: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for run, config in finished_runs(runs):
        group = format_settings(config, line) if line else ''
        name = format_settings(config, [key for key in _as_keys(form) if key not in _as_keys(line)])
        # Seeds of one form are one point: their scores are collected under its cost.
        _, scores = points.setdefault(group, {}).setdefault(name, (cost(config), []))
        scores.append(_read_metric(run, metric))
    labels = dict(xlabel=xlabel, ylabel=_metric_label(metric), title=title)
    return plots.draw_score_by_cost(points, **labels, legend=bool(line))


def count_multiply_adds(config: Mapping[str, Any]) -> float:
    """Counts the multiply-adds of a config's network for one test image."""
    size = get_setting(config, 'data.evals.test.transforms.resize.size')
    model = drop_placeholders(config['model'])
    return trace_network(models.make_model(**model), size, len(get_setting(config, 'input.mean'))).multiply_adds


def _as_keys(keys: str | Sequence[str]) -> Sequence[str]:
    return (keys,) if isinstance(keys, str) else keys


def _read_metric(run: Run, metric: str) -> float:
    name = metric.removeprefix('1 - ')
    value = run.metrics.get(name, np.nan)
    return value if name == metric else 1 - value


def _read_curve(folders: Sequence[Any], metric: str) -> tuple[np.ndarray, np.ndarray]:
    name = metric.removeprefix('1 - ')
    steps, values = read_curves(folders, name)
    return steps, values if name == metric else 1 - values


def _metric_label(metric: str) -> str:
    return metric.replace('1 - ', '').replace('accuracy', 'error') if metric.startswith('1 - ') else metric
