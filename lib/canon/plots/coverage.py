"""Objects by their size: how well prior boxes cover them, and which a detector finds."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from canon.plots.bars import style_axes

_BINS = 10


def draw_prior_coverage(sides: np.ndarray, best_iou: np.ndarray, threshold: float = 0.5) -> Figure:
    """Draws the best IoU that each object has with any prior against its size, and the share above the threshold.

    Args:
      sides: roots of the areas of the objects in pixels, [Q].
      best_iou: [Q].
      threshold: of matching.
    """
    figure = Figure(figsize=(8, 3.4), layout='constrained')
    left, right = figure.subplots(1, 2)
    left.scatter(sides, best_iou, s=5, alpha=0.35, color='#4c78a8', linewidths=0)
    left.axhline(threshold, color='#e45756', linewidth=1.2, label=f'matched from {threshold:g}')
    left.set(ylim=(0, 1), xlabel='side of the object in pixels', ylabel='best IoU with a prior')
    left.legend(frameon=False, fontsize=8, loc='lower right')
    _draw_shares(right, sides, best_iou >= threshold, '#4c78a8')
    mean = float(np.mean(best_iou)) if len(best_iou) else float('nan')
    right.set(ylabel=f'share with an IoU of at least {threshold:g}')
    figure.suptitle(f'{len(sides)} objects and the priors: mean of the best IoU {mean:.3f}', fontsize=10)
    for axes in (left, right):
        style_axes(axes)
    return figure


def draw_recall_by_size(sides: np.ndarray, found: np.ndarray) -> Figure:
    """Draws the share of the objects of each size that a detector finds.

    Args:
      sides: roots of the areas of the objects in pixels, [Q].
      found: bool [Q].
    """
    figure = Figure(figsize=(4.8, 3.4), layout='constrained')
    axes = figure.add_subplot()
    _draw_shares(axes, sides, found, '#54a24b')
    share = float(np.mean(found)) if len(found) else float('nan')
    axes.set(ylabel='share that is found')
    axes.set_title(f'{share:.3f} of {len(sides)} objects are found', fontsize=10)
    style_axes(axes)
    return figure


def _draw_shares(axes, sides: np.ndarray, chosen: np.ndarray, colour: str) -> None:
    """Draws the share of objects that are chosen, in bins of size with equal numbers of objects."""
    axes.set(ylim=(0, 1), xlabel='side in pixels (bins of equal numbers)')
    if not len(sides):
        return
    # Quantiles, so that every bar rests on as many objects; those that coincide, where many objects have one size, are
    # one bin.
    edges = np.unique(np.quantile(sides, np.linspace(0, 1, _BINS + 1)))
    # The largest object is on the last edge, which belongs to the last bin.
    places = np.clip(np.searchsorted(edges, sides, 'right') - 1, 0, max(len(edges) - 2, 0))
    counts = np.bincount(places, minlength=max(len(edges) - 1, 1))
    shares = np.bincount(places, chosen, minlength=len(counts)) / np.maximum(counts, 1)
    rows = np.arange(len(counts))
    axes.bar(rows, shares, color=colour, width=0.85)
    for row, share in zip(rows, shares, strict=True):
        # A full bar has its number inside: the axis ends at 1.
        axes.text(row, min(share + 0.02, 0.95), f'{share:.2f}', ha='center', fontsize=7)
    low, high = edges[:-1] if len(edges) > 1 else edges, edges[1:] if len(edges) > 1 else edges
    labels = [f'{a:.0f}-{b:.0f}' for a, b in zip(low, high, strict=True)]
    axes.set_xticks(rows, labels, fontsize=7, rotation=45)
