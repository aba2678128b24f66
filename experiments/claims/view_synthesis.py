"""Pictures of the sweeps that put the claims of the NeRF papers to the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from canon import plots
from canon.train.log import read_rows
from canon.train.runs import Run, read_curves
from experiments.claims.classification import at, done

PSNR = 'test/psnr'


def against(found: Sequence[Run], key: str, line: Callable[[Mapping[str, Any]], str], title: str) -> Figure:
    """Held-out PSNR against the number that `key` of the config says, a line for each answer of `line(config)`."""
    points: dict[str, dict[int, list[float]]] = {}
    for run, config in done(found):
        points.setdefault(line(config), {}).setdefault(at(config, key), []).append(run.metrics[PSNR])
    figure, axes = _axes(title)
    for name, values in sorted(points.items()):
        numbers = sorted(values)
        axes.plot(numbers, [plots.middle(values[n]) for n in numbers], 'o-', label=name)
    axes.set(xlabel=key.rpartition('.')[2], xscale='log')
    numbers = sorted({n for values in points.values() for n in values})
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def curves(found: Sequence[Run], line: Callable[[Mapping[str, Any]], str], title: str) -> Figure:
    """Held-out PSNR against steps, a line a run, with what it came to."""
    figure, axes = _axes(title)
    for run, config in done(found):
        steps, values = read_curves([run.folder], PSNR)
        axes.plot(steps, values[0], '.-', label=f'{line(config)}: {run.metrics[PSNR]:.2f} dB')
    axes.set(xlabel='step')
    axes.legend(frameon=False)
    return figure


def seconds_to(found: Sequence[Run], line: Callable[[Mapping[str, Any]], str], wanted: float) -> Figure:
    """Held-out PSNR against seconds of training, a line a run, with the seconds until it is `wanted`."""
    figure, axes = _axes(f'seconds to {wanted:g} dB')
    for run, config in done(found):
        seconds, values = clock(run.folder)
        first = reached(seconds, values, wanted)
        axes.plot(
            seconds, values, '.-', label=f'{line(config)}: ' + ('not reached' if first is None else f'{first:.1f} s')
        )
    axes.axhline(wanted, color='k', linestyle=':', linewidth=1)
    axes.set(xlabel='seconds of training', xscale='log')
    axes.legend(frameon=False)
    return figure


def clock(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that training had taken, evaluations and compilation apart, and the PSNR [n] of each evaluation."""
    seconds, before, told = 0.0, 0, []
    for row in read_rows(folder / 'metrics.jsonl'):
        if 'train/step_seconds' in row:
            seconds += (row['step'] - before) * row['train/step_seconds']
            before = row['step']
        if PSNR in row:
            told.append((seconds, row[PSNR]))
    return np.array([s for s, _ in told]), np.array([v for _, v in told])


def reached(seconds: np.ndarray, values: np.ndarray, wanted: float) -> float | None:
    """When `values` first are `wanted`, on straight lines between the evaluations; None where they never are."""
    above = np.flatnonzero(values >= wanted)
    if not len(above):
        return None
    i = above[0]
    if i == 0:
        return float(seconds[0])
    part = (wanted - values[i - 1]) / (values[i] - values[i - 1])
    return float(seconds[i - 1] + part * (seconds[i] - seconds[i - 1]))


def _axes(title: str):
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.add_subplot()
    axes.set(ylabel='held-out PSNR, dB', title=title)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes
