"""Figures of the sweeps that test claims of the NeRF papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import (
    Run,
    finished_runs,
    get_setting,
    interpolate_crossing,
    read_curves,
    read_training_seconds,
)

PSNR = 'test/psnr'
Label = Callable[[Mapping[str, Any]], str]  # the legend of a run, from its config


def plot_against_setting(runs: Sequence[Run], key: str, label: Label, title: str) -> Figure:
    """Plots held-out PSNR against a number of the config, one line per label; seeds count by their median.

    Args:
      runs: of the sweep.
      key: dotted key of the number, such as 'data.train.views'.
      label: of a run, from its config.
      title: of the figure.
    """
    lines: dict[str, dict[int, list[float]]] = {}
    for run, config in finished_runs(runs):
        lines.setdefault(label(config), {}).setdefault(get_setting(config, key), []).append(run.metrics[PSNR])
    figure, axes = _psnr_axes(title)
    for name, values in sorted(lines.items()):
        numbers = sorted(values)
        axes.plot(numbers, [plots.median_score(values[n]) for n in numbers], 'o-', label=name)
    axes.set(xlabel=key.rpartition('.')[2], xscale='log')
    numbers = sorted({n for values in lines.values() for n in values})
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def plot_against_steps(runs: Sequence[Run], label: Label, title: str) -> Figure:
    """Plots held-out PSNR against steps, one line per run, with its final value in the legend."""
    figure, axes = _psnr_axes(title)
    for run, config in finished_runs(runs):
        steps, values = read_curves([run.folder], PSNR)
        axes.plot(steps, values[0], '.-', label=f'{label(config)}: {run.metrics[PSNR]:.2f} dB')
    axes.set(xlabel='step')
    axes.legend(frameon=False)
    return figure


def plot_against_seconds(runs: Sequence[Run], label: Label, threshold: float) -> Figure:
    """Plots held-out PSNR against seconds of training, with the seconds until each run reaches `threshold` dB."""
    figure, axes = _psnr_axes(f'seconds to {threshold:g} dB')
    for run, config in finished_runs(runs):
        seconds, values = read_training_seconds(run.folder, PSNR)
        first = interpolate_crossing(seconds, values, threshold)
        result = 'not reached' if first is None else f'{first:.1f} s'
        axes.plot(seconds, values, '.-', label=f'{label(config)}: {result}')
    axes.axhline(threshold, color='k', linestyle=':', linewidth=1)
    axes.set(xlabel='seconds of training', xscale='log')
    axes.legend(frameon=False)
    return figure


def _psnr_axes(title: str):
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.add_subplot()
    axes.set(ylabel='held-out PSNR, dB', title=title)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes
