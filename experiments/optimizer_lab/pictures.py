"""The picture of a sweep of rivals: what each came to at each rate, and how it went at its best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon import draw
from canon.train.workdir import read_json
from experiments import runs
from experiments.optimizer_lab import chosen


def best_rates(found: Sequence[runs.Run], metric: str, panels: Mapping[str, str], title: str = '') -> dict[str, Any]:
    """{'best rates': Figure} from the runs of a sweep over `scale`, perhaps over `seed` too.

    metric: of the last evaluation, with a star for the rival: 'test/*/loss'. Less is better, and the median of the
    seeds counts. panels: {title: metric of the log's rows}, drawn at each rival's best rate: {'loss': 'train/*/loss'}.
    """
    finals: dict[str, dict[float, list[float]]] = {}
    folders: dict[tuple[str, float], list] = {}
    for run in found:
        if run.state == 'done':
            for name, spec in chosen(read_json(run.folder / 'config.json') or {}).items():
                rate = float(f'{spec["learning_rate"]:.6g}')  # 3 * 0.1 is 0.3
                value = run.metrics.get(metric.replace('*', name), np.nan)
                finals.setdefault(name, {}).setdefault(rate, []).append(value)
                folders.setdefault((name, rate), []).append(run.folder)
    if not finals:
        return {}
    best = {name: draw.best_of(line) for name, line in finals.items()}
    curves = {
        panel: {name: runs.curve(folders[name, rate], row.replace('*', name)) for name, rate in best.items()}
        for panel, row in panels.items()
    }
    labels = {n: f'{n}  {rate:g}: {draw.middle(finals[n][rate]):.3g}' for n, rate in best.items()}
    axes = dict(xlabel='learning rate', ylabel=metric.replace('/*', ''))
    return {'best rates': draw.sweep(finals, curves, labels, **axes, title=title)}
