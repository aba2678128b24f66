"""Figures of sweeps over recognisers of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from canon import backend, named, plots
from canon.configuration import read_saved_config
from canon.tasks.text import TextAugmentation, fiducial_points, make_agent, make_grey_input, sample_warps
from canon.train import load_trained
from canon.train.runs import Run, finished_runs, format_settings, get_setting, read_curves
from experiments import text_recognition
from experiments.claims.detection import draw_scores

ACCURACY = {'test/word_accuracy': 'words read without an error'}
_CURVES = {
    'test/edits_random': 'warped at random/edits per text',
    'test/edits_agent': 'warped by the agent/edits per text',
    'test/edits': 'as they are/edits per text',
    'train/agent_entropy': 'agent/entropy of a decision, nats',
    'train/harder': '/share of texts that one switched move makes harder',
}


def draw_word_accuracy(runs: Sequence[Run], key: str, title: str = '') -> Figure:
    """Draws the word accuracy of the last evaluation for each value of a setting, with all seeds.

    Args:
      runs: of the sweep.
      key: dotted, of the setting.
      title: of the figure.
    """
    return draw_scores(runs, lambda config: format_settings(config, key), ACCURACY, title)


def draw_agent(runs: Sequence[Run]) -> Figure:
    """Draws what the agents of Learn to Augment learn over the steps, as the mean over the finished runs with one."""
    folders = [run.folder for run, config in finished_runs(runs) if get_setting(config, 'augment.mode') == 'learnt']
    series = {}
    for metric, name in _CURVES.items():
        steps, values = read_curves(folders, metric)
        if len(steps):
            series[name] = list(zip(steps.tolist(), values.mean(0).tolist(), strict=True))
    return plots.draw_curves(series)


def draw_word_sets(
    runs: Sequence[Run], name: Callable[[Mapping[str, Any]], str], sets: Mapping[str, str], title: str = ''
) -> Figure:
    """Draws the share of words that are read on several sets, for each form of a recogniser, with all seeds.

    Args:
      runs: of the sweep.
      name: of the form that a config is of, as for `draw_scores`.
      sets: {logged metric: text under its bars}; those that no run has measured, for want of a path, are left out.
      title: of the figure.
    """
    measured = {metric for run, _ in finished_runs(runs) for metric in run.metrics}
    return draw_scores(runs, name, {metric: text for metric, text in sets.items() if metric in measured}, title)


def draw_agent_warps(runs: Sequence[Run], name: str = 'test', count: int = 5, times: int = 5) -> dict[str, Figure]:
    """Draws what the agent of the first finished run with one has learnt, from the checkpoints that the run has kept.

    Args:
      runs: of the sweep.
      name: of the evaluator whose first words are shown.
      count: words.
      times: checkpoints, evenly spaced, the first and the last among them.

    Returns:
      'warps', the same words at each of these steps, and 'moves', how expected moves are distributed at the last one.
      {} if no run is of an agent and has its checkpoints.
    """
    for run, config in finished_runs(runs):
        steps = sorted(int(path.name) for path in (run.folder / 'checkpoints').glob('*') if path.name.isdigit())
        if get_setting(config, 'augment.mode') == 'learnt' and steps:
            chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, times).round().astype(int))]
            return _draw_checkpoints(run, chosen, name, count)
    return {}


def _draw_checkpoints(run: Run, steps: Sequence[int], name: str, count: int) -> dict[str, Figure]:
    config = read_saved_config(run.folder / 'config.json')
    experiment = text_recognition.make(config)
    settings = named.call(TextAugmentation, config.augment, 'augment')
    make_input = named.call(make_grey_input, config.input, 'input')
    batch = experiment.evals[name].data[0]
    rows = np.flatnonzero(batch['mask'])
    words, points, history = rows[:count], fiducial_points(batch['image'].shape[1:3], settings.patches), {}
    draw = backend.jit(partial(sample_warps, settings=settings, agent=make_agent(settings), make_input=make_input))
    for step in steps:
        trained = load_trained(experiment, config, run.folder, step)
        warps = jax.device_get(draw(trained.params, trained.mutable, batch))
        history[f'step {step:,}'] = warps.images[words], warps.moves[words]
    size = batch['image'].shape[1:3]
    return {
        'warps': plots.draw_warp_history(batch['image'][words], history, points),
        'moves': plots.draw_move_clouds(points, warps.moves[rows], size, settings.radius / 2),
    }
