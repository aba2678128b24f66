"""Figures of claims about translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import finished_runs, format_settings, get_setting


def plot_chrf_by_length(runs: Sequence[Any], form: str, over: str) -> Figure:
    """Plots chrF against the words of the source, one line per form, through the medians of its seeds.

    Each form is shown at its best swept value: the one with the highest median of chrF over all sentences.

    Args:
      runs: of a sweep.
      form: the key of the config by which the forms differ, 'model.name'.
      over: the key of the swept value.
    """
    scores: dict[str, dict[float, dict[str, list[float]]]] = {}  # {form: {swept value: {bin: chrF of each seed}}}
    for run, config in finished_runs(runs):
        bins = scores.setdefault(format_settings(config, form), {}).setdefault(get_setting(config, over), {})
        for name, value in run.metrics.items():
            if name.startswith('test/chrf'):
                bins.setdefault(name.removeprefix('test/chrf').removeprefix('_'), []).append(value)
    lines = {}
    for name, by_value in scores.items():
        # Each form at its own best value: one that suits all would favour one of them.
        best = max(by_value, key=lambda value: plots.median_score(by_value[value]['']))
        lines[f'{name}, {best:g}'] = by_value[best]
    bounds = sorted(int(name[3:]) for name in next(iter(lines.values())) if name.startswith('to_'))
    names = [*(f'to_{bound}' for bound in bounds), 'beyond']
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.add_subplot()
    for i, (name, bins) in enumerate(lines.items()):
        axes.plot(range(len(names)), [plots.median_score(bins[n]) for n in names], color=f'C{i}', label=name)
        for x, n in enumerate(names):
            axes.plot([x] * len(bins[n]), bins[n], '.', color=f'C{i}', ms=5)
    axes.set_xticks(range(len(names)), [n.replace('to_', 'to ') for n in names])
    axes.set(xlabel='words of the source', ylabel='chrF', title='translations by the length of the sentence')
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return figure
