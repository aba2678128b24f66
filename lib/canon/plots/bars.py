"""Bars: a classifier's accuracy class by class, and how it compares with its confidence."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_FEW = 40  # classes whose bars can all be read


def class_accuracy(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """counts [C, C] of (true row, predicted column) -> a bar a class, worst first; of many classes both ends."""
    counts = np.asarray(counts)
    sizes = counts.sum(1)
    known = np.flatnonzero(sizes)
    shares = np.diagonal(counts)[known] / sizes[known]
    order = np.argsort(shares, kind='stable')
    shown = order if len(order) <= _FEW else np.concatenate([order[: _FEW // 2], order[-_FEW // 2 :]])
    figure = Figure(figsize=(5, 1.1 + 0.24 * max(len(shown), 3)), layout='constrained')
    axes = figure.add_subplot()
    rows = np.arange(len(shown))
    axes.barh(rows, shares[shown], color='#4c78a8')
    labels = [f'{names[known[i]]} ({np.diagonal(counts)[known[i]]} of {sizes[known[i]]})' for i in shown]
    axes.set_yticks(rows, labels, fontsize=8)
    if len(shown) < len(order):
        axes.axhline(_FEW / 2 - 0.5, color='k', linewidth=0.8, linestyle='--')
    mean = float(shares.mean()) if len(shares) else float('nan')
    axes.axvline(mean, color='#f58518', linewidth=1.2, label=f'mean of {len(order)} classes {mean:.4f}')
    part = f': {_FEW // 2} worst, {_FEW // 2} best' if len(shown) < len(order) else ''
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), xlabel='share of the class that is right')
    axes.set_title(f'accuracy by class{part}', fontsize=10)
    _plain(axes)
    figure.legend(loc='outside lower right', frameon=False, fontsize=8)
    return figure


def reliability(count: np.ndarray, confidence: np.ndarray, right: np.ndarray, error: float) -> Figure:
    """The reliability diagram of Guo et al. 2017, figure 1, from sums in bins [M]; below it, how often each was said.

    error: the expected calibration error, which the title states.
    """
    count, confidence, right = (np.asarray(x, float) for x in (count, confidence, right))
    edges = np.linspace(0, 1, len(count) + 1)
    full = count > 0
    accuracy = np.divide(right, count, where=full, out=np.zeros_like(count))
    said = np.divide(confidence, count, where=full, out=np.zeros_like(count))
    figure = Figure(figsize=(4.4, 4.4), layout='constrained')
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    style = dict(width=np.diff(edges), align='edge', edgecolor='w', linewidth=0.5)
    upper.bar(edges[:-1], accuracy, color='#4c78a8', label='right', **style)
    gap = dict(color='#e45756', alpha=0.45, label='gap to what was said')
    upper.bar(edges[:-1], np.where(full, said - accuracy, 0), bottom=accuracy, **{**style, **gap})
    upper.plot([0, 1], [0, 1], color='k', linewidth=0.8, linestyle='--')
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel='share that is right')
    upper.set_title(f'expected calibration error {error:.4f}', fontsize=10)
    upper.legend(frameon=False, fontsize=8, loc='upper left')
    lower.bar(edges[:-1], count / max(count.sum(), 1), color='#9aa5b8', **style)
    lower.set(xlabel='confidence: the largest probability', ylabel='share of all')
    for axes in (upper, lower):
        _plain(axes)
    return figure


def _plain(axes) -> None:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
