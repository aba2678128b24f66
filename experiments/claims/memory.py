"""The figures of the claim that gates keep what plain recurrent networks forget (configs/claims/memory.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import Run, finished_runs


def draw_memory(all_runs: Sequence[Run], problem: str) -> Figure:
    """Draws the relative loss against the gap, and the gradient against the lag at the widest gap, a line per cell."""
    points: dict[str, dict[int, list[Mapping[str, float]]]] = {}  # {cell: {gap: metrics of its runs}}
    for run, config in finished_runs(all_runs):
        if config['data']['problem'] == problem:
            by_gap = points.setdefault(config['model']['name'], {})
            by_gap.setdefault(config['data']['gap'], []).append(run.metrics)
    figure = Figure(figsize=(9.2, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2)
    for i, (cell, by_gap) in enumerate(sorted(points.items(), reverse=True)):
        gaps = sorted(by_gap)
        medians = [plots.median_score([metrics['test/relative_loss'] for metrics in by_gap[gap]]) for gap in gaps]
        left.plot(gaps, medians, 'o-', color=f'C{i}', label=cell)
        for prefix, style in (('test/gradient_lag_', '-'), ('test/initial_gradient_lag_', ':')):
            # The widest gap, one run: the lags of all seeds would hide each other.
            metrics = by_gap[gaps[-1]][0]
            lags = sorted((int(key[len(prefix) :]), value) for key, value in metrics.items() if key.startswith(prefix))
            label = cell if style == '-' else f'{cell} before training'
            right.plot(*zip(*lags, strict=True), style, color=f'C{i}', label=label)
    left.axhline(1, color='k', linestyle=':', linewidth=1)
    left.set(xlabel='gap', ylabel='loss / loss without memory', xscale='log', yscale='log', title=problem)
    right.set(xlabel='time lag k', ylabel='|d h(T) / d s(T - k)|', xscale='log', yscale='log')
    right.set_title(f'gradient, gap {gaps[-1]}')
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    left.set_xticks(gaps, [str(gap) for gap in gaps])
    left.minorticks_off()
    return figure
