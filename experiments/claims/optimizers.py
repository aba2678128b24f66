"""The figure of a sweep over learning rates: the final loss of each optimizer, and its curves at its best rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon import plots
from canon.train.runs import Run, read_curves
from canon.train.workdir import read_json
from experiments.optimizer_lab import select_optimizers


def draw_best_rates(all_runs: Sequence[Run], metric: str, panels: Mapping[str, str], title: str = '') -> dict[str, Any]:
    """Draws {'best rates': Figure} from the runs of a sweep over `scale`, and perhaps over `seed`.

    Args:
      all_runs: of the sweep; those that are not done are ignored.
      metric: of the last evaluation, with a star for the optimizer, such as 'test/*/loss'. Less is better, and the
        median of the seeds counts.
      panels: {title: metric of the log}, drawn at each optimizer's best rate, such as {'loss': 'train/*/loss'}.
      title: of the figure.
    """
    points = [
        # Rounded, so that 3 * 0.1 is the rate 0.3.
        (name, float(f'{spec["learning_rate"]:.6g}'), run.metrics.get(metric.replace('*', name), np.nan), run.folder)
        for run in all_runs
        if run.state == 'done'
        for name, spec in select_optimizers(read_json(run.folder / 'config.json') or {}).items()
    ]
    if not points:
        return {}
    curves = {panel: lambda name, folders, row=row: _curve(folders, row, name) for panel, row in panels.items()}
    axes = dict(xlabel='learning rate', ylabel=metric.replace('/*', ''))
    return {'best rates': plots.draw_best(points, curves, **axes, title=title)}


def _curve(folders: Sequence[Any], row: str, name: str):
    return read_curves(folders, row.replace('*', name))
