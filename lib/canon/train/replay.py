"""Looking at a finished or broken run again: its state at a step, its metrics, one step under the magnifier."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import tree_flatten_with_path

from canon import backend, optim
from canon.errors import CanonError, UsageError
from canon.train import shard
from canon.train.checkpoint import Checkpoints
from canon.train.evaluation import evaluate
from canon.train.selection import select
from canon.train.setup import Setup, prepare
from canon.train.statistics import drop_statistics, evaluated_variables
from canon.train.step import mean_gradient, step_key
from canon.train.types import At, Config, Experiment, Mutable, Params, State
from canon.train.workdir import read_mapping


class Loaded(NamedTuple):
    setup: Setup
    state: State


def load(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None, untrained: bool = False
) -> Loaded:
    """The state saved at `step`; without one the best where the run kept it, else the newest.

    Where there is no run: what `run.init_from` names, such as published weights; with `untrained`, the initialisation.
    Raises UsageError where there is none of these, or no such checkpoint.
    """
    setup = prepare(experiment, config)
    folder = Path(workdir).expanduser().absolute() / 'checkpoints'
    if not folder.is_dir():
        return Loaded(setup, _before_any_step(experiment, setup, folder.parent, step, untrained))
    with Checkpoints(folder, setup.settings.checkpoint, read_only=True) as checkpoints:
        if step is None:
            step = checkpoints.best_step()
        restored = checkpoints.restore(setup.target, step)
    if restored is None:
        raise UsageError(f'{folder} holds no checkpoint yet')
    return Loaded(setup, restored[0])


class Trained(NamedTuple):
    """The weights of a run, to be used: parameters as its optimizer evaluates them, and the mutable that fits them."""

    setup: Setup
    step: int
    params: Params
    mutable: Mutable
    weights: str = 'last'  # 'best', 'average', 'chosen' (by its step), 'untrained'


def trained(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None, untrained: bool = False
) -> Trained:
    """Returns the weights that a run hands on: see `canon.train.selection`.

    Args:
      experiment: what was trained.
      config: its config, which has `run.checkpoint.best` and `average`.
      workdir: the run's folder.
      step: takes the weights of this step instead.
      untrained: where there is no run, returns the initialisation.

    Raises:
      UsageError: there is no run, nor published weights that `run.init_from` names.
    """
    setup = prepare(experiment, config)
    folder = Path(workdir).expanduser().absolute() / 'checkpoints'
    if not folder.is_dir():
        state = _before_any_step(experiment, setup, folder.parent, step, untrained)
        return Trained(setup, 0, *evaluated_variables(state), 'untrained')
    with Checkpoints(folder, setup.settings.checkpoint, read_only=True) as checkpoints:
        selected = select(setup, checkpoints, step)
    if selected is None:
        raise UsageError(f'{folder} holds no checkpoint yet')
    logging.getLogger('canon').info('%s', selected.choice)
    return Trained(setup, selected.choice.steps[-1], selected.params, selected.mutable, selected.choice.name)


def evaluate_run(
    experiment: Experiment, config: Config, workdir: Path | str, step: int | None = None
) -> dict[str, Any]:
    """The metrics of all evaluators as `{'test/accuracy': ...}`, with the 'step' and the name of the 'weights'."""
    run = trained(experiment, config, workdir, step)
    metrics: dict[str, Any] = {'step': run.step, 'weights': run.weights}
    for name, evaluator in run.setup.experiment.evals.items():
        result = evaluate(evaluator, run.params, run.mutable, run.setup.mesh)
        metrics |= {f'{name}/{key}': value for key, value in result.metrics.items()}
    return metrics


class Replayed(NamedTuple):
    """One step again. leaves: (name, norm of the parameter, of its gradient, of its change, non-finite gradients)."""

    metrics: dict[str, float]
    leaves: list[tuple[str, float, float, float, int]]
    batch: Any


def replay(experiment: Experiment, config: Config, workdir: Path | str, step: int) -> Replayed:
    """Makes the step that ended as step `step` again, bit by bit, from the nearest checkpoint before it.

    Everything in a step is a function of (seed, step), so this is the step that happened, on as many devices.
    """
    setup, state = _state_before(experiment, config, Path(workdir).expanduser().absolute(), step)
    experiment = setup.experiment
    run = backend.jit(setup.step, out_shardings=(setup.layout, shard.replicated(setup.mesh)))
    rows = shard.batch_sharding(setup.mesh)
    for number in range(int(state.step), step - 1):
        state, _ = run(setup.constants, state, shard.put(experiment.train[number], rows))
    batch = experiment.train[step - 1]
    placed = shard.put(batch, rows)
    after, metrics = run(setup.constants, state, placed)
    grads = backend.jit(lambda s, b: _gradient_at(setup, s, b))(state, placed)
    before, after, grads = shard.to_host((state.params, after.params, grads))
    leaves = [
        (shard.path_name(path), _norm(p), _norm(g), _norm(q - p), int((~np.isfinite(g)).sum()))
        for (path, p), q, g in zip(
            tree_flatten_with_path(before)[0], jax.tree.leaves(after), jax.tree.leaves(grads), strict=True
        )
    ]
    return Replayed({name: float(mean.value) for name, mean in metrics.items()}, leaves, batch)


def _gradient_at(setup: Setup, state: State, batch: Any) -> Any:
    """Returns the gradient that the step of `setup` takes at a state."""
    point = optim.lookahead_params(state.params, state.opt)
    at = At(step_key(setup.seed, state.step), state.step)
    mutable = drop_statistics(state.mutable)
    return mean_gradient(setup.experiment.task, point, mutable, batch, at, setup.settings.accumulate)[0]


def _state_before(experiment: Experiment, config: Config, workdir: Path, step: int) -> Loaded:
    """The state of the newest sound checkpoint before `step`, or the initial one."""
    setup = prepare(experiment, config)
    last = _last_step(setup, workdir)
    if not 1 <= step <= last:
        raise UsageError(f'--step={step}: the run in {workdir} has steps 1 to {last}')
    folder = workdir / 'checkpoints'
    saved = (int(p.name) for p in folder.glob('*') if p.name.isdigit())
    for earlier in sorted((s for s in saved if s < step), reverse=True):
        try:
            return load(experiment, config, workdir, earlier)
        except UsageError:
            raise
        except CanonError as error:
            logging.getLogger('canon').warning('%s; an earlier state is used', error)
    if setup.settings.init_from is not None:
        raise UsageError(f'no checkpoint before step {step} in {folder}, and the run began from init_from')
    return Loaded(setup, setup.initial_state())


def _last_step(setup: Setup, workdir: Path) -> int:
    """The last step that a run makes; of one that is done, perhaps by an early stop, the last that it has made."""
    status = read_mapping(workdir / 'status.json')
    step = status.get('step')
    return step if status.get('state') == 'done' and isinstance(step, int) else setup.settings.steps


def _before_any_step(experiment: Experiment, setup: Setup, workdir: Path, step: int | None, untrained: bool) -> State:
    source = setup.settings.init_from
    if step is not None or (source is None and not untrained):
        what = 'holds no run' if step is None else f'has no checkpoint of step {step}'
        raise UsageError(f'{workdir} {what}; give the --workdir of a run')
    state = setup.starting_state(experiment.read)
    told = 'untrained' if source is None else f'from {source.path}'
    logging.getLogger('canon').info('%s holds no run: the model is %s', workdir, told)
    return state


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64).ravel()))
