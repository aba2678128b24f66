"""One update as a pure function of (state, batch): neither sharded nor jitted, and the same for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from canon import optim
from canon.metrics import Mean
from canon.train.types import CARRY, At, Batch, Mutable, Params, State, Task

SKIPPED = 'skipped'  # the metric of a step, 1 if `optim.skip_nonfinite` skipped its update: training then goes on
_INIT = 0xFFFFFFFF  # folded into the key of the initialisation; no step reaches it


def step_key(seed: int, step) -> jax.Array:
    """Returns the key of a step, from which everything random in it is drawn."""
    return jax.random.fold_in(jax.random.key(seed), step)


def init_state(task: Task, tx: optax.GradientTransformation, seed: int, batch: Batch) -> State:
    """Returns the state before the first step.

    `batch` is the first batch: it gives shapes, and data-dependent initialisations (LSUV) read its values.
    """
    variables = dict(task.init(step_key(seed, _INIT), batch))
    params = variables.pop('params')
    return State(jnp.zeros((), jnp.int32), params, variables, tx.init(params))


def make_step(
    task: Task, tx: optax.GradientTransformation, seed: int, accumulate: int = 1
) -> Callable[[State, Batch], tuple[State, Mapping[str, Mean]]]:
    """Makes the update of a task: (state, batch) -> (state, {name: Mean}).

    The metrics are those of the task, 'loss', 'grad_norm' and the hyperparameters in force ('learning_rate').

    Args:
      task: what is learnt.
      tx: the optimizer.
      seed: of all randomness in training.
      accumulate: number of microbatches that the batch is cut into. Their gradients are computed one after the other
        and added before the one update, which is the same as without accumulation but needs less memory. Batch
        normalisation is the exception: its statistics are those of a microbatch.
    """

    def step(state: State, batch: Batch):
        at = At(step_key(seed, state.step), state.step)
        # Nesterov's momentum and schedule-free methods take the gradient elsewhere than at the parameters.
        point = optim.lookahead_params(state.params, state.opt)
        grads, loss, mutable, metrics = mean_gradient(task, point, state.mutable, batch, at, accumulate)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        skipped = _compare_skips(state.opt, opt)
        if skipped is not None:  # the batch statistics of a bad batch would stay
            mutable = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), state.mutable, mutable)
        metrics = {'loss': loss, **metrics, 'grad_norm': _as_mean(optim.global_norm(grads))}
        metrics |= {name: _as_mean(value) for name, value in optim.hyperparams(opt).items()}
        metrics |= {} if skipped is None else {SKIPPED: _as_mean(skipped)}
        return State(state.step + 1, params, mutable, opt), metrics

    return step


def mean_gradient(
    task: Task, params: Params, mutable: Mutable, batch: Batch, at: At, accumulate: int = 1
) -> tuple[Params, Mean, Mutable, dict[str, Mean]]:
    """Returns the gradient of the mean loss, with the loss, the new mutable and the metrics.

    The gradient of the loss's sum is divided once, by the total weight, so masks and microbatches do not change it. It
    is zero if nothing has weight.

    Args:
      task: what is learnt.
      params: where the gradient is taken.
      mutable: the mutable before the batch.
      batch: rows whose number `accumulate` divides.
      at: the step and its key; a microbatch folds its index into the key.
      accumulate: number of microbatches.
    """
    if accumulate == 1:
        grads, loss, mutable, metrics = sum_gradient(task, params, mutable, batch, at)
    else:
        grads, loss, mutable, metrics = accumulate_gradient(task, params, mutable, batch, at, accumulate)

    def divide(gradient):
        total, weight = gradient if isinstance(gradient, Mean) else (gradient, loss.weight)
        # If nothing has weight (a batch of padding), the gradient is 0 instead of NaN.
        scale = jnp.where(weight > 0, 1 / jnp.maximum(weight, 1e-30), 0)
        return total * scale.astype(total.dtype)

    return jax.tree.map(divide, grads, is_leaf=lambda x: isinstance(x, Mean)), loss, mutable, metrics


def sum_gradient(
    task: Task, params: Params, mutable: Mutable, batch: Batch, at: At
) -> tuple[Any, Mean, Mutable, dict[str, Mean]]:
    """Returns the gradient of the loss's *sum*, with the loss, the new mutable and the metrics."""
    if task.gradient is not None:
        grads, loss, new, metrics = task.gradient(params, mutable, batch, at)
        return grads, loss, new, dict(metrics)

    def total(params):
        loss, (new, metrics) = task.loss(params, mutable, batch, at)
        return loss.total, (loss, new, metrics)

    # The gradient of the sum, not of the mean: sums add over microbatches and processes, means do not.
    grads, (loss, new, metrics) = jax.grad(total, has_aux=True)(params)
    return grads, loss, new, dict(metrics)


def accumulate_gradient(task: Task, params: Params, mutable: Mutable, batch: Batch, at: At, parts: int):
    """`sum_gradient` over `parts` microbatches in turn.

    `mutable` flows from one to the next, except for what rows carry: that is cut like the rows.
    """

    # Microbatch i takes rows i, i + parts, ...: with rows laid out over devices, each device cuts its own.
    def cut(x):
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def join(x):
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def split_carry(mutable):
        return {k: v for k, v in mutable.items() if k != CARRY}, {k: v for k, v in mutable.items() if k == CARRY}

    def part_gradient(mutable, index, part, carry):
        at_part = at._replace(key=jax.random.fold_in(at.key, index))
        return sum_gradient(task, params, {**mutable, **carry}, part, at_part)

    def body(carried, item):
        grads, mutable = carried
        new_grads, loss, mutable, metrics = part_gradient(mutable, *item)
        mutable, carry = split_carry(mutable)
        grads = jax.tree.map(lambda total, g: total + g.astype(total.dtype), grads, new_grads)
        return (grads, mutable), (loss, metrics, carry)

    mutable, carry = split_carry(mutable)
    items = (jnp.arange(parts), *jax.tree.map(cut, (batch, carry)))
    like = params  # of a game some leaves are Means, which only its own shapes can tell
    if task.gradient is not None:
        like = jax.eval_shape(lambda: part_gradient(mutable, *jax.tree.map(lambda x: x[0], items))[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _accumulator_dtype(x)), like)
    # A scan, so that one microbatch's activations are in memory at a time and the program does not grow with `parts`.
    (grads, mutable), (losses, metrics, carry) = jax.lax.scan(body, (zeros, mutable), items)
    grads = jax.tree.map(lambda g, x: g.astype(x.dtype), grads, like)
    loss, metrics = jax.tree.map(lambda x: x.sum(0), (losses, metrics))
    return grads, loss, {**mutable, **jax.tree.map(join, carry)}, metrics


def _accumulator_dtype(x):
    """float32 at least: a sum of many bfloat16 numbers stops growing at 256 times its terms."""
    return jnp.promote_types(x.dtype, jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype


def _compare_skips(before, after):
    """Whether an `optim.skip_nonfinite`, at any depth, skipped this update; None if there is none."""
    counts = [[s.skipped_updates for s in optim.find_states(opt, optim.SkipState)] for opt in (before, after)]
    if not counts[0]:
        return None
    return jnp.any(jnp.array([jnp.any(new > old) for old, new in zip(*counts, strict=True)]))


def _as_mean(value) -> Mean:
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))
