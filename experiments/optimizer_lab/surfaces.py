"""Paths of optimizers over a surface. config.surface: its `name`, and a `start` (x, y) in place of its own."""

from __future__ import annotations

from ml_collections import ConfigDict

from canon import named
from canon.errors import UsageError
from canon.tasks.optimizer_lab import SURFACES, Surface, record_paths, surface_experiment
from canon.train import Experiment, lengths


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment of a point that descends config.surface by config.tx."""
    return surface_experiment(_surface(config), config.tx)


def finish(experiment: Experiment, config: ConfigDict) -> Experiment:
    """Records and draws the path of each optimizer."""
    # The paths are arrays of the state, with a row per step, so their length is needed before training resolves it.
    steps = lengths.resolve({'run': {'steps': config.run.steps}}, None, None).run.steps
    title = f'{config.surface.name}, {steps} steps: optimizer and final loss'
    return record_paths(experiment, _surface(config), steps, title)


def _surface(config: ConfigDict) -> Surface:
    name = config.surface.name
    if name not in SURFACES:
        raise UsageError(f'surface.name={name!r} must be one of {", ".join(SURFACES)}{named.suggest(name, SURFACES)}')
    start = tuple(config.surface.get('start') or SURFACES[name].start)
    if len(start) != 2:
        raise UsageError(f'surface.start={start} must be a point (x, y)')
    return SURFACES[name]._replace(start=start)
