"""Results of networks against what they cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from canon.plots.bars import style_axes
from canon.plots.sweeps import median_score

_LABELLED_POINTS = 8  # points that have room for their names and scores


def draw_score_by_cost(
    points: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]],
    xlabel: str = '',
    ylabel: str = '',
    title: str = '',
    legend: bool = False,
) -> Figure:
    """Draws final scores against costs, on a logarithmic axis, with a point per seed.

    Args:
      points: {line: {network: (cost, final scores of its seeds)}}, lower is better.
      xlabel: name of the cost.
      ylabel: name of the score.
      title: of the figure.
      legend: joins the medians of each line and lists the lines.
    """
    costs = sorted(cost for networks in points.values() for cost, _ in networks.values())
    crowded = len(costs) > _LABELLED_POINTS
    if crowded:  # 'width 0.5' and 'width 1' are labelled 0.5 and 1, and the title has the rest
        key = next(iter(next(iter(points.values())))).rpartition(' ')[0]
        title = f'{title}; at each point its {key}'
    figure = Figure(figsize=(6.4, 4.4), layout='constrained')
    axes = figure.add_subplot()
    # The legend lists lines by their lowest cost, which is the order of a width or a size.
    lines = sorted(points.items(), key=lambda item: min(cost for cost, _ in item[1].values()))
    for i, (line, networks) in enumerate(lines):
        rows = sorted((cost, median_score(scores), name, scores) for name, (cost, scores) in networks.items())
        axes.plot([r[0] for r in rows], [r[1] for r in rows], '-' if legend else 'none', color=f'C{i}', label=line)
        for cost, median, name, scores in rows:
            axes.plot([cost] * len(scores), scores, '.', color=f'C{i}', ms=5)
            side = 'left' if cost**2 < costs[0] * costs[-1] else 'right'  # towards the middle
            label = name.rpartition(' ')[2] if crowded else f'{name}: {median:.3g}'
            axes.annotate(
                label, (cost, median), xytext=(0, 5), textcoords='offset points', fontsize=8, ha=side
            ).set_in_layout(False)
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale='log', title=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(frameon=False)
    return figure


def draw_cost_parts(
    costs: Mapping[str, Mapping[str, Sequence[float]]],
    scores: Mapping[str, Sequence[float]],
    cost: str = '',
    score: str = '',
    title: str = '',
) -> Figure:
    """Draws the costs of systems as stacked bars of their parts, and their scores next to them.

    Bars end at medians over seeds; a score has a dot per seed. The numbers are written next to the bars, because parts
    of a cheap system are too short to be read where another one is expensive.

    Args:
      costs: {system: {part: costs of its seeds}}, from top to bottom; all systems have the same parts.
      scores: {system: scores of its seeds}, in 0..1.
      cost: name of the costs.
      score: name of the scores.
      title: of the figure.
    """
    systems, parts = list(costs), list(next(iter(costs.values()), {}))
    medians = np.array([[np.median(costs[system][part]) for part in parts] for system in systems])
    rows, ends = np.arange(len(systems)), medians.cumsum(1)
    figure = Figure(figsize=(9, 1.5 + 0.5 * len(systems)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for i, part in enumerate(parts):
        left.barh(rows, medians[:, i], left=ends[:, i] - medians[:, i], height=0.6, color=f'C{i}', label=part)
    for row, own, end in zip(rows, medians, ends[:, -1], strict=True):
        text = f'{end:.3g} = ' + ' + '.join(f'{value:.2g}' for value in own)
        left.annotate(text, (end, row), xytext=(4, 0), textcoords='offset points', va='center', fontsize=8)
    left.margins(x=0.5)  # room for the numbers
    for row, system in zip(rows, systems, strict=True):
        median = float(np.median(scores[system]))
        right.barh(row, median, height=0.6, color='#9aa5b8')
        right.plot(scores[system], [row] * len(scores[system]), '.', color='k', ms=4)
        best = max(scores[system])  # the number is beyond all dots, or within the bar where there is no room
        place, side = (best + 0.04, 'left') if best < 0.75 else (min(scores[system]) - 0.04, 'right')
        right.text(place, row, f'{median:.3f}', va='center', ha=side, fontsize=8)
    left.set_yticks(rows, systems)
    left.set(xlabel=cost, ylim=(len(systems) - 0.5, -0.5))
    right.set(xlabel=score, xlim=(0, 1))
    for axes in (left, right):
        style_axes(axes)
    figure.suptitle(title, fontsize=10)
    figure.legend(loc='outside lower left', ncols=len(parts), frameon=False, fontsize=8)
    return figure
