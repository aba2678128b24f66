"""Figures of sweeps over recognisers of text."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from canon import plots
from canon.train.runs import Run, finished_runs, format_settings, get_setting, read_curves
from experiments.claims.detection import draw_scores

ACCURACY = {'test/word_accuracy': 'words read without an error'}
_CURVES = {
    'test/edits_random': 'warped at random/edits per text',
    'test/edits_agent': 'warped by the agent/edits per text',
    'test/edits': 'as they are/edits per text',
    'train/agent_entropy': 'agent/entropy of a decision, nats',
    'train/harder': 'texts that one switched point makes harder/share',
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
