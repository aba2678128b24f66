"""Figures of sweeps over detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from canon import plots
from canon.tasks.detection.timing import PARTS
from canon.train.runs import Run, finished_runs

PRECISION = {
    'test/map50': 'mAP at 0.5',
    'test/coco_ap': 'AP',
    'test/coco_ap_small': 'AP, small',
    'test/coco_ap_medium': 'AP, medium',
    'test/coco_ap_large': 'AP, large',
}
ERRORS = {
    'test/right': 'right',
    'test/badly_located': 'badly located',
    'test/confused': 'confused',
    'test/background': 'background',
    'test/missed': 'missed objects',
}


def draw_scores(
    runs: Sequence[Run], name: Callable[[Mapping[str, Any]], str], metrics: Mapping[str, str], title: str = ''
) -> Figure:
    """Draws metrics of the last evaluation side by side for each form of a detector, with all seeds.

    Args:
      runs: of the sweep.
      name: of the form that a config is of; its key 'overrides' has what the sweep set, which is all that there is of a
        run in stages.
      metrics: {logged name: text under its bars}, such as `PRECISION` and `ERRORS`.
      title: of the figure.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for run, config in finished_runs(runs):
        values = scores.setdefault(
            name({**config, 'overrides': run.overrides}), {text: [] for text in metrics.values()}
        )
        for metric, text in metrics.items():
            values[text].append(float(run.metrics.get(metric, float('nan'))))
    return plots.draw_form_scores(scores, title)


def draw_times(
    runs: Sequence[Run], name: Callable[[Mapping[str, Any]], str], forms: Sequence[str], title: str = ''
) -> Figure:
    """Draws the seconds per image of each form of a detector, part by part, next to its mAP.

    Args:
      runs: of the sweep, whose last stage is `experiments.detection_timing`.
      name: of the form, as for `draw_scores`.
      forms: all names, from top to bottom; a form without a finished run is left out.
      title: of the figure.
    """
    seconds: dict[str, dict[str, list[float]]] = {}
    scores: dict[str, list[float]] = {}
    for run, config in finished_runs(runs):
        form = name({**config, 'overrides': run.overrides})
        for part in PARTS:
            values = seconds.setdefault(form, {}).setdefault(part, [])
            values.append(float(run.metrics.get(f'test/seconds_{part}', float('nan'))))
        scores.setdefault(form, []).append(float(run.metrics.get('test/map50', float('nan'))))
    drawn = [form for form in forms if form in seconds]
    return plots.draw_cost_parts(
        {form: seconds[form] for form in drawn},
        {form: scores[form] for form in drawn},
        cost='seconds per image',
        score='mAP at 0.5',
        title=title,
    )
