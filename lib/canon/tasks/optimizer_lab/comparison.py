"""Several optimizers on one experiment in one run, from the same initialisation and on the same batches.

The parameters are a dict with one copy per optimizer, the loss is the sum of their losses, and the optimizer is a
partition of the parameters by copy. So everything that the training loop does for one optimizer holds for all of them:
gradients are taken at the look-ahead point, evaluation happens at the averaged parameters, runs resume and replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from canon import optim
from canon.errors import UsageError
from canon.metrics import Mean
from canon.optim.groups import partition_by
from canon.tasks.optimizer_lab.rates import effective_rate
from canon.train import At, Evaluator, Experiment, State, Task, step_key
from canon.train.step import mean_gradient

COPIES = 'optimizers'  # where `mutable` holds the batch statistics of each copy


def side_by_side(base: Experiment, specs: Mapping[str, Any], compare: tuple[str, ...] = ()) -> Experiment:
    """Trains a copy of the parameters of `base` with each optimizer; its metrics become 'OPTIMIZER/metric'.

    An optimizer that diverges stands still from then on (`optim.skip_nonfinite`) and does not stop the others.
    Patterns of parameters in an optimizer (`freeze`, `partition`) match paths that begin with its name. The figures of
    `base` are dropped, and `base.tx` and `base.step` are not used.

    Args:
      base: the experiment.
      specs: {name: arguments of `optim.make_optimizer`}, with lengths in any unit.
      compare: names of two optimizers; evaluators then report `ratio/loss`, the loss of the first over the second's.

    Returns:
      An experiment whose evaluators also report the worst optimizer (`worst/loss`, `worst/accuracy`).

    Raises:
      UsageError: `compare` does not name two optimizers; later, when training makes the optimizers, a spec is invalid.
    """
    names = list(specs)
    if len(compare) not in (0, 2) or not set(compare) <= set(names):
        raise UsageError(f'compare={compare} must be two of the optimizers, {", ".join(names)}')
    # A mapping, as a config has it: training makes the optimizer, once it knows how many steps an epoch has.
    tx = {'name': f'{__name__}:partition_copies', 'optimizers': tuple(specs.items())}
    evals = {name: _copy_evaluator(evaluator, names, compare) for name, evaluator in base.evals.items()}
    task, make_step = _copy_task(base.task, names), partial(make_copies_step, specs)
    return base._replace(task=task, tx=tx, evals=evals, make_step=make_step)


def partition_copies(optimizers: Sequence[tuple[str, Mapping[str, Any]]]) -> optax.GradientTransformation:
    """Makes the optimizer of all copies: that of each copy updates the parameters below the copy's name.

    optimizers: pairs (name, arguments of `optim.make_optimizer`), with lengths in steps.
    """
    transforms = {
        name: optim.skip_nonfinite(optim.make_optimizer(_unnamed_chain(spec), f'optimizers.{name}'))
        for name, spec in optimizers
    }
    return partition_by(lambda params: _find_owners(params, list(transforms)), transforms)


def _copy_task(base: Task, names: list[str]) -> Task:
    """Makes a task with params {name: those of `base`} and mutable {'optimizers': {name: that of `base`}, ...}."""

    def init(key, batch):
        variables = dict(base.init(key, batch))
        params = variables.pop('params')
        # All copies begin with the same parameters.
        return {'params': {name: params for name in names}, COPIES: {name: variables for name in names}}

    def loss(params, mutable, batch, at):
        total, weight, new, metrics = 0.0, 0.0, {}, {}
        for name in names:  # the same key for all: the same dropout masks, the same noise
            own, (new[name], more) = base.loss(params[name], mutable[COPIES][name], batch, at)
            total, weight = total + own.total, own.weight  # the weight is that of the batch, equal for all
            metrics |= {f'{name}/{k}': v for k, v in {'loss': own, **more}.items()}
        return Mean(total, weight), ({**mutable, COPIES: new}, metrics)

    def predict(params, mutable, batch):
        return {name: base.predict(params[name], mutable[COPIES][name], batch) for name in names}

    return Task(init, loss, predict)


def make_copies_step(
    specs: Mapping[str, Any], task: Task, tx: optax.GradientTransformation, seed: int
) -> Callable[[State, Any], tuple[State, dict[str, Mean]]]:
    """Makes a training step of copies, as `canon.train.make_step`, but skips and reports for each copy by itself.

    The loss is the mean of those that are finite. A copy that skips its update keeps its batch statistics, while those
    of the others change; `make_step` restores all or none.

    Args:
      specs: of `side_by_side`.
      task: the task of all copies.
      tx: of `partition_copies`.
      seed: of all randomness in training; each copy gets the same keys.
    """

    def step(state: State, batch):
        at = At(step_key(seed, state.step), state.step)
        point = optim.lookahead_params(state.params, state.opt)
        # One backward pass for all: the sum of the losses has the gradient of each in its own copy.
        grads, _, mutable, metrics = mean_gradient(task, point, state.mutable, batch, at)
        updates, opt = tx.update(grads, state.opt, state.params)
        groups = optim.find_state(opt, optim.PartitionState).groups
        mutable = {**mutable, COPIES: _revert_skipped(state, mutable[COPIES], groups)}
        for name, group in groups.items():
            metrics |= {f'{name}/{key}': _as_mean(value) for key, value in optim.hyperparams(group).items()}
            rate = effective_rate(specs[name], group)
            if rate is not None:
                metrics[f'{name}/effective_rate'] = _as_mean(rate)
        loss = _finite_mean([metrics[f'{name}/loss'] for name in specs])
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, params, mutable, opt), {'loss': loss, **metrics}

    return step


def _revert_skipped(state: State, copies: dict[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Restores the batch statistics of optimizers that skipped their update: those of a skipped batch may be NaN."""
    before = optim.find_state(state.opt, optim.PartitionState).groups
    reverted = {}
    for name, new in copies.items():
        skipped = groups[name].skipped_updates > before[name].skipped_updates
        old = state.mutable[COPIES][name]
        reverted[name] = jax.tree.map(lambda o, n, skipped=skipped: jnp.where(skipped, o, n), old, new)
    return reverted


def _copy_evaluator(base: Evaluator, names: list[str], compare: tuple[str, ...]) -> Evaluator:
    def measure(params, mutable, batch):
        return {name: base.measure(params[name], mutable[COPIES][name], batch) for name in names}

    def finish(sums):
        by_name = {name: base.finish(sums[name]) for name in names}
        values = {f'{name}/{key}': value for name, metrics in by_name.items() for key, value in metrics.items()}
        for key in by_name[names[0]]:
            column = [metrics[key] for metrics in by_name.values()]
            # A loss is better when lower; all other metrics here are accuracies.
            values[f'worst/{key}'] = max(column) if 'loss' in key else min(column)
        if compare:
            values['ratio/loss'] = by_name[compare[0]]['loss'] / by_name[compare[1]]['loss']
        return values

    return Evaluator(base.data, measure, finish)


def _find_owners(params, names: list[str]) -> list[int]:
    """Returns the place of each leaf's optimizer, whose name is the first key of its path."""
    return [names.index(path[0].key) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _finite_mean(losses: list[Mean]) -> Mean:
    """Returns the mean of the losses that are finite; not finite if none is, which stops the run."""
    values = jnp.stack([loss.value for loss in losses])
    finite = jnp.isfinite(values)
    return Mean(jnp.where(finite, values, 0).sum(), finite.sum().astype(values.dtype))


def _as_mean(value) -> Mean:
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def _unnamed_chain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the `name` of a chain: its links have names of their own."""
    return {key: value for key, value in spec.items() if key != 'name'} if 'chain' in spec else dict(spec)
