"""Figures of the claims about tracking (configs/claims/online_batch_tracking.py and others)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import Run, finished_runs

ACCURACY = ('MOTA', 'IDF1', 'HOTA')
PARTS = ('HOTA', 'DetA', 'AssA')


def average_metrics(
    all_runs: Sequence[Run], place: Callable[[Mapping[str, Any]], tuple[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[Any, dict[str, float]]]:
    """Averages metrics of the evaluator 'test' over the runs of each place: {group: {form: {metric: mean}}}.

    place: from a config to (group, form); forms that are numbers are sorted, others by the last metric.
    """
    values: dict[str, dict[Any, list[Run]]] = {}
    for run, config in finished_runs(all_runs):
        group, form = place(config)
        values.setdefault(group, {}).setdefault(form, []).append(run)
    means = {
        group: {
            form: {name: float(np.mean([run.metrics[f'test/{name}'] for run in of_form])) for name in metrics}
            for form, of_form in forms.items()
        }
        for group, forms in values.items()
    }

    def rank(item):
        form, own = item
        return form if isinstance(form, int | float) else own[metrics[-1]]

    return {group: dict(sorted(forms.items(), key=rank)) for group, forms in means.items()}


def draw_forms(runs: Sequence[Run], metrics: Sequence[str] = ACCURACY, title: str = '') -> Figure:
    """Draws the mean metrics of each form side by side."""
    return plots.draw_track_scores(
        average_metrics(runs, lambda c: (title, c['form'].replace('_', ' ')), metrics), metrics
    )


def draw_latency(runs: Sequence[Run]) -> Figure:
    """Draws milliseconds per frame of each form."""
    scores = average_metrics(
        runs, lambda c: ('computing, per frame', c['form'].replace('_', ' ')), ('frames_per_second',)
    )
    for forms in scores.values():
        for own in forms.values():
            own['milliseconds'] = 1000 / own.pop('frames_per_second')
    return plots.draw_track_scores(scores, ('milliseconds',))


def draw_against(runs: Sequence[Run], key: str, group: Callable[[Mapping[str, Any]], str], metrics=ACCURACY) -> Figure:
    """Draws metrics against a number of config.data.source, in a panel per group."""
    scores = average_metrics(runs, lambda c: (group(c), c['data']['source'][key]), metrics)
    return plots.draw_track_scores(scores, metrics, key)


def draw_changes(runs: Sequence[Run], base: Mapping[str, float], metrics: Sequence[str] = ACCURACY) -> Figure:
    """Draws metrics against each number of config.data.source that a sweep changes alone, in a panel per number.

    base: the value of each where another one is changed.
    """
    scores: dict[str, dict[float, dict[str, float]]] = {}
    for key in base:
        chosen = [
            pair[0]
            for pair in finished_runs(runs)
            if all(pair[1]['data']['source'][other] == value for other, value in base.items() if other != key)
        ]
        scores |= average_metrics(chosen, lambda c, key=key: (key, c['data']['source'][key]), metrics)
    return plots.draw_track_scores(scores, metrics, 'value')
