"""Makes one step of a run again, and looks at each parameter, its gradient and its change."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import tree_flatten_with_path

from canon import backend, optim
from canon.errors import CanonError, UsageError
from canon.optim.core import path_name
from canon.train import shard
from canon.train.restore import Loaded, load_state
from canon.train.setup import Setup, make_setup
from canon.train.statistics import drop_statistics
from canon.train.step import mean_gradient, step_key
from canon.train.types import At, Batch, Config, Experiment, State
from canon.train.workdir import read_mapping


class Leaf(NamedTuple):
    """One parameter in a step: L2 norms, and how many elements of the gradient are not finite."""

    name: str
    norm: float
    gradient: float
    change: float
    nonfinite: int


class Replayed(NamedTuple):
    """One step again: its metrics, what it did to every parameter, and its batch."""

    metrics: dict[str, float]
    leaves: list[Leaf]
    batch: Batch


def replay_step(experiment: Experiment, config: Config, workdir: Path | str, step: int) -> Replayed:
    """Makes the step that ended as step `step` again, bit by bit, from the nearest checkpoint before it.

    Everything in a step is a function of (seed, step), so this is the step that happened, on the same number of
    devices.

    Args:
      experiment: what was trained.
      config: its config.
      workdir: the folder of the run.
      step: from 1 to the last step of the run.

    Raises:
      UsageError: the run has no such step, or its state before cannot be found.
    """
    setup, state = _load_before(experiment, config, Path(workdir).expanduser().absolute(), step)
    # Unlike `fit` it donates nothing: the state before the step is compared with the one after it.
    run = backend.jit(setup.step, out_shardings=(setup.layout, shard.replicated_sharding(setup.mesh)))
    data, rows = setup.experiment.train, shard.batch_sharding(setup.mesh)
    for number in range(int(state.step), step - 1):
        state, _ = run(setup.constants, state, shard.put(data[number], rows))
    batch = data[step - 1]
    placed = shard.put(batch, rows)
    after, metrics = run(setup.constants, state, placed)
    # The step returns no gradient, so it is computed once more, at the same state and batch.
    grads = backend.jit(lambda s, b: _gradient_at(setup, s, b))(state, placed)
    before, after, grads = shard.to_host((state.params, after.params, grads))
    leaves = [
        Leaf(path_name(path), _norm(p), _norm(g), _norm(q - p), int((~np.isfinite(g)).sum()))
        for (path, p), q, g in zip(
            tree_flatten_with_path(before)[0], jax.tree.leaves(after), jax.tree.leaves(grads), strict=True
        )
    ]
    return Replayed({name: float(mean.value) for name, mean in metrics.items()}, leaves, batch)


def format_replayed(replayed: Replayed) -> str:
    """Returns a line of the step's metrics and a table of its parameters."""
    width = max(len(leaf.name) for leaf in replayed.leaves)
    lines = [
        '  '.join(f'{name} {value:.6g}' for name, value in replayed.metrics.items()),
        f'{"parameter":{width}}  {"norm":>10}  {"gradient":>10}  {"change":>10}  non-finite',
    ]
    for name, norm, gradient, change, nonfinite in replayed.leaves:
        lines.append(f'{name:{width}}  {norm:10.4g}  {gradient:10.4g}  {change:10.4g}  {nonfinite or ""}')
    return '\n'.join(lines)


def save_batch(batch: Batch, path: Path) -> None:
    """Saves a batch as .npz, with an array `a/b` for the leaf `batch['a']['b']`."""
    path.parent.mkdir(exist_ok=True)
    leaves = tree_flatten_with_path(batch)[0]
    np.savez_compressed(path, **{jax.tree_util.keystr(k, simple=True, separator='/'): v for k, v in leaves})


def _gradient_at(setup: Setup, state: State, batch: Batch) -> Any:
    """Returns the gradient that the step of `setup` takes at a state."""
    point = optim.lookahead_params(state.params, state.opt)
    at = At(step_key(setup.seed, state.step), state.step)
    mutable = drop_statistics(state.mutable)
    return mean_gradient(setup.experiment.task, point, mutable, batch, at, setup.settings.accumulate)[0]


def _load_before(experiment: Experiment, config: Config, workdir: Path, step: int) -> Loaded:
    """Returns the state of the newest sound checkpoint before `step`, or the initial one."""
    setup = make_setup(experiment, config)
    if setup.step is None:
        raise UsageError(f'{workdir}: nothing is trained, so there is no step to replay')
    last = _last_step(setup, workdir)
    if not 1 <= step <= last:
        raise UsageError(f'--step={step}: the run in {workdir} has steps 1 to {last}')
    folder = workdir / 'checkpoints'
    saved = (int(p.name) for p in folder.glob('*') if p.name.isdigit())
    for earlier in sorted((s for s in saved if s < step), reverse=True):
        try:
            return load_state(experiment, config, workdir, earlier)
        except UsageError:  # another model or optimizer: earlier checkpoints do not fit either
            raise
        except CanonError as error:
            logging.getLogger('canon').warning('%s; an earlier state is used', error)
    # What init_from names may have changed since: that run may have been trained further.
    if setup.settings.init_from is not None:
        raise UsageError(f'no checkpoint before step {step} in {folder}, and the run began from init_from')
    return Loaded(setup, setup.initial_state())


def _last_step(setup: Setup, workdir: Path) -> int:
    """Returns the last step of a run; if it is done, perhaps by an early stop, the last that it has made."""
    status = read_mapping(workdir / 'status.json')
    step = status.get('step')
    return step if status.get('state') == 'done' and isinstance(step, int) else setup.settings.steps


def _norm(x: np.ndarray) -> float:
    # In float32 the squares of a diverging gradient overflow.
    return float(np.linalg.norm(np.asarray(x, np.float64).ravel()))
