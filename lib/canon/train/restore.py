"""Restores a run: its state at a step, the weights that it hands on, their metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.train.checkpoint import Checkpoints
from canon.train.evaluation import evaluate
from canon.train.selection import select
from canon.train.setup import Setup, make_setup
from canon.train.statistics import evaluated_variables
from canon.train.types import Config, Experiment, Mutable, Params, State

_log = logging.getLogger('canon')


class Loaded(NamedTuple):
    """A state of a run, and the experiment on its mesh."""

    setup: Setup
    state: State


def load_state(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None, untrained: bool = False
) -> Loaded:
    """Returns the state saved at `step`; by default the best if the run kept it, else the newest.

    If there is no run, it is the state that `run.init_from` names, such as published weights.

    Args:
      experiment: what was trained.
      config: its config.
      workdir: the folder of the run.
      step: a saved step; None for the best or the newest.
      untrained: if there is no run, returns the initialisation.

    Raises:
      UsageError: there is none of these, or no checkpoint of `step`.
    """
    setup = make_setup(experiment, config)
    folder = Path(workdir).expanduser().absolute() / 'checkpoints'
    if not folder.is_dir():
        return Loaded(setup, _starting_state(setup, folder.parent, step, untrained))
    with Checkpoints(folder, setup.settings.checkpoint, read_only=True) as checkpoints:  # a run may be writing there
        # The state, not the selected weights: an average of several checkpoints has no optimizer state.
        if step is None:
            step = checkpoints.best_step()  # None, the newest, if the run keeps no best
        restored = checkpoints.restore(setup.target, step)
    if restored is None:
        raise _no_checkpoint(folder)
    return Loaded(setup, restored[0])


class Trained(NamedTuple):
    """Weights for use: parameters as the optimizer evaluates them, and the mutable that belongs to them.

    weights: 'last', 'best', 'average', 'chosen' (by its step) or 'untrained'.
    """

    setup: Setup
    step: int
    params: Params
    mutable: Mutable
    weights: str = 'last'


def load_trained(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None, untrained: bool = False
) -> Trained:
    """Returns the weights that a run hands on: see `canon.train.selection`.

    Args:
      experiment: what was trained.
      config: its config, which has `run.checkpoint.best` and `average`.
      workdir: the folder of the run.
      step: takes the weights of this step instead.
      untrained: if there is no run, returns the initialisation.

    Raises:
      UsageError: there is no run, nor published weights that `run.init_from` names.
    """
    setup = make_setup(experiment, config)
    folder = Path(workdir).expanduser().absolute() / 'checkpoints'
    if not folder.is_dir():
        state = _starting_state(setup, folder.parent, step, untrained)
        return Trained(setup, 0, *evaluated_variables(state), 'untrained')
    with Checkpoints(folder, setup.settings.checkpoint, read_only=True) as checkpoints:
        selected = select(setup, checkpoints, step)
    if selected is None:
        raise _no_checkpoint(folder)
    _log.info('%s', selected.choice)
    return Trained(setup, selected.choice.steps[-1], selected.params, selected.mutable, selected.choice.name)


def evaluate_run(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None
) -> dict[str, Any]:
    """Returns the metrics of all evaluators as `{'test/accuracy': ...}`, with the 'step' and the name of the 'weights'.

    Args:
      experiment: what was trained.
      config: its config.
      workdir: the folder of the run.
      step: evaluates the weights of this step instead of those that the run hands on.
    """
    run = load_trained(experiment, config, workdir, step)
    metrics: dict[str, Any] = {'step': run.step, 'weights': run.weights}
    for name, evaluator in run.setup.experiment.evals.items():
        result = evaluate(evaluator, run.params, run.mutable, run.setup.mesh)
        metrics |= {f'{name}/{key}': value for key, value in result.metrics.items()}
    return metrics


def _no_checkpoint(folder: Path) -> UsageError:
    return UsageError(
        f'{folder} holds no checkpoint yet; wait until the run saves its first one (run.checkpoint.every states the '
        f'steps between two), or continue it: run --workdir={folder.parent}'
    )


def _starting_state(setup: Setup, workdir: Path, step: int | None, untrained: bool) -> State:
    """Returns the state before any step, of a folder without checkpoints."""
    source, experiment = setup.settings.init_from, setup.experiment
    untrained = untrained or experiment.train is None  # which leaves no checkpoints
    if step is not None or (source is None and not untrained):
        what = 'holds no run' if step is None else f'has no checkpoint of step {step}'
        raise UsageError(f'{workdir} {what}; give the --workdir of a run')
    state = setup.starting_state(experiment.read)
    if experiment.train is not None:
        described = 'untrained' if source is None else f'from {source.path}'
        _log.info('%s holds no run: the model is %s', workdir, described)
    return state
