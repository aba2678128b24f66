"""The picture of a sweep of rivals: what each came to at each rate, and how it went at its best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon.train.runs import Run, read_curves
from canon.train.workdir import read_json
from experiments.claims.sweeps import at_best
from experiments.optimizer_lab import chosen


def best_rates(found: Sequence[Run], metric: str, panels: Mapping[str, str], title: str = '') -> dict[str, Any]:
    """{'best rates': Figure} from the runs of a sweep over `scale`, perhaps over `seed` too.

    metric: of the last evaluation, with a star for the rival: 'test/*/loss'. Less is better, and the median of the
    seeds counts. panels: {title: metric of the log's rows}, drawn at each rival's best rate: {'loss': 'train/*/loss'}.
    """
    points = [
        # 3 * 0.1 is 0.3
        (name, float(f'{spec["learning_rate"]:.6g}'), run.metrics.get(metric.replace('*', name), np.nan), run.folder)
        for run in found
        if run.state == 'done'
        for name, spec in chosen(read_json(run.folder / 'config.json') or {}).items()
    ]
    if not points:
        return {}
    curves = {panel: lambda name, folders, row=row: _curve(folders, row, name) for panel, row in panels.items()}
    axes = dict(xlabel='learning rate', ylabel=metric.replace('/*', ''))
    return {'best rates': at_best(points, curves, **axes, title=title)}


def _curve(folders: Sequence[Any], row: str, name: str):
    return read_curves(folders, row.replace('*', name))
