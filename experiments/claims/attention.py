"""The figure of the claim about the scale 1 / sqrt(d_k) of attention (configs/claims/attention_scale.py)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from canon import plots
from canon.tasks.attention_retrieval import CLASSES, SCORES
from canon.train.runs import Run, finished_runs


def draw_attention_scale(all_runs: Sequence[Run]) -> Figure:
    """Draws, against d_k, the softmax's Jacobian before training and the accuracy at the best rate, a line per form."""
    points: dict[str, dict[int, list]] = {}  # {form: {d_k: metrics of its runs}}
    for run, config in finished_runs(all_runs):
        model = config['model']
        points.setdefault(model['form'], {}).setdefault(model['d_k'], []).append(run.metrics)
    figure = Figure(figsize=(9.2, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2)
    for i, form in enumerate(form for form in SCORES if form in points):
        widths = sorted(points[form])
        jacobian = [plots.median_score([m['test/jacobian'] for m in points[form][width]]) for width in widths]
        left.plot(widths, jacobian, 'o-', color=f'C{i}', label=form.replace('_', ' '))
        # The best rate of each width: one rate for all would favour the scores that are scaled for it.
        best = [max(m['test/accuracy'] for m in points[form][width]) for width in widths]
        right.plot(widths, best, 'o-', color=f'C{i}', label=form.replace('_', ' '))
    left.set(ylabel="norm of the softmax's Jacobian before training", yscale='log')
    right.set(ylabel='accuracy at the best rate', ylim=(0, 1.05))
    right.axhline(1 / CLASSES, color='k', linestyle=':', linewidth=1)
    for axes in (left, right):
        axes.set(xlabel='d_k', xscale='log')
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    return figure
