"""What a sweep over one value found, each method at its best."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from matplotlib.figure import Figure

Line = Mapping[float, Sequence[float]]  # the swept value -> what its seeds came to
Curve = tuple[np.ndarray, np.ndarray]  # steps [n], values [seeds, n]


def sweep(
    finals: Mapping[str, Line],
    curves: Mapping[str, Mapping[str, Curve]] = {},
    labels: Mapping[str, str] = {},
    xlabel: str = '',
    ylabel: str = '',
    title: str = '',
) -> Figure:
    """Left: what each method came to against the swept value; a dot a seed, a line through medians, the best ringed.

    To the right a panel for each of `curves`, {panel: {method: curve}}: the median of the seeds, in a band from the
    lowest to the highest. An axis of positive values that differ much is logarithmic. Left, what is 30 times worse
    than the best lies above the picture.
    """
    panels = 1 + len(curves)
    figure = Figure(figsize=(4.6 * panels, 4.2), layout='constrained')
    first, *rest = np.atleast_1d(figure.subplots(1, panels))
    styles = {name: dict(color=f'C{i % 10}', linestyle='-' if i < 10 else '--') for i, name in enumerate(finals)}
    for name, line in finals.items():
        xs, style = sorted(line), styles[name]
        first.plot(xs, [middle(line[x]) for x in xs], **style, label=labels.get(name, name))
        first.plot([x for x in xs for _ in line[x]], [y for x in xs for y in line[x]], '.', color=style['color'], ms=3)
        first.plot(best_of(line), middle(line[best_of(line)]), 'o', color=style['color'], fillstyle='none', ms=9)
    first.set(xlabel=xlabel, ylabel=ylabel)
    swept = sorted({x for line in finals.values() for x in line})
    if swept[0] > 0:
        first.set_xscale('log')
        if len(swept) <= 8:  # the values themselves, and no powers of ten between them
            first.set_xticks(swept, [f'{x:g}' for x in swept])
            first.minorticks_off()
    for axes, (panel, of) in zip(rest, curves.items(), strict=True):
        for name, (x, values) in of.items():
            if len(x):
                axes.plot(x, np.median(values, 0), **styles[name], linewidth=1.3)
                axes.fill_between(x, values.min(0), values.max(0), color=styles[name]['color'], alpha=0.15, lw=0)
        axes.set(xlabel='step', title=panel)
    for axes in (first, *rest):
        values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.zeros(1)])
        values = values[np.isfinite(values)]
        if len(values) and values.min() > 0 and values.max() > 5 * values.min():
            axes.set_yscale('log')
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.3)
    least = min(middle(line[best_of(line)]) for line in finals.values())
    if 0 < 30 * least < first.get_ylim()[1]:
        first.set_ylim(top=30 * least)
    longest = max(len(labels.get(name, name)) for name in finals)
    across = max(1, min(len(finals), 60 * panels // (longest + 8)))  # about 60 letters of this size to a panel
    figure.legend(loc='outside lower center', ncols=across, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def best_of(line: Line) -> float:
    """The swept value with the lowest median."""
    return min(sorted(line), key=lambda x: middle(line[x]))


def middle(values: Sequence[float]) -> float:
    """The median; a seed that diverged counts as worse than any."""
    return median(np.nan_to_num(np.asarray(values, float), nan=np.inf, posinf=np.inf).tolist())
