"""Batch-normalisation statistics of averaged weights.

The running means and variances of a step belong to the weights that were trained. Other weights that are evaluated in
their place, such as an average, have activations with another distribution: their statistics are measured again over
batches of the training data (Izmailov et al. 2018, section 3.2), saved with the state, and used wherever these weights
are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, optim
from canon.nn import reestimate
from canon.train import shard
from canon.train.step import step_key, sum_gradient
from canon.train.types import At, Batch, Mutable, Params, State, Task

TRAINED, AVERAGED = 'batch_stats', 'averaged_batch_stats'


def needs_statistics(state: State) -> bool:
    """Returns whether a state has batch statistics and its optimizer evaluates other weights than it trains."""
    if TRAINED not in state.mutable:
        return False
    differ = []

    def compare(params, opt):
        # By identity under tracing: an optimizer that averages nothing returns the very arrays that it is given.
        evaluated = optim.eval_params(params, opt)
        differ.extend(a is not b for a, b in zip(*map(jax.tree.leaves, (params, evaluated)), strict=True))
        return 0

    jax.eval_shape(compare, state.params, state.opt)
    return any(differ)


def add_statistics(state: State) -> State:
    """Adds the statistics of the averaged weights to a state; at first they are those of the trained weights."""
    copy = jax.tree.map(lambda x: x.copy(), state.mutable[TRAINED])  # the step donates its state: no buffer twice
    return state._replace(mutable={**state.mutable, AVERAGED: copy})


def drop_statistics(mutable: Mutable) -> Mutable:
    """Returns `mutable` as the task sees it."""
    if AVERAGED not in mutable:
        return mutable
    return {name: value for name, value in mutable.items() if name != AVERAGED}


def carry_statistics(step: Callable) -> Callable:
    """Makes of `step` one over states that also hold the statistics of averaged weights, which it does not change."""

    def carrying(state: State, batch: Batch):
        new, metrics = step(state._replace(mutable=drop_statistics(state.mutable)), batch)
        return new._replace(mutable={**new.mutable, AVERAGED: state.mutable[AVERAGED]}), metrics

    return carrying


def evaluated_variables(state: State) -> tuple[Params, Mutable]:
    """Returns the parameters that are evaluated, with the mutable that belongs to them."""
    mutable = drop_statistics(state.mutable)
    if AVERAGED in state.mutable:
        mutable = {**mutable, TRAINED: state.mutable[AVERAGED]}
    return optim.eval_params(state.params, state.opt), mutable


def average_variables(variables: Iterable[tuple[Params, Mutable]]) -> tuple[Params, Mutable]:
    """Returns the means of parameters and batch statistics; the rest of mutable is that of the last pair.

    Floating-point leaves are added in float32 at least, one pair at a time; of other leaves the last one is returned.
    """
    total, count, mutable, newest = None, 0, {}, {}
    # One at a time: `variables` may be read from disk as they are needed.
    for params, mutable in variables:
        newest = {'params': params, **{name: value for name, value in mutable.items() if name == TRAINED}}
        widened = jax.tree.map(_widen, newest)
        total = widened if total is None else jax.tree.map(operator.add, total, widened)
        count += 1
    means = jax.tree.map(lambda t, x: (t / count).astype(x.dtype) if _is_floating(x) else x, total, newest)
    return means.pop('params'), {**mutable, **means}


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _widen(x: Any) -> Any:
    return x.astype(np.promote_types(x.dtype, np.float32)) if _is_floating(x) else x


def make_forward(task: Task, seed: int, **options: Any) -> Callable:
    """Compiles (params, mutable, statistics, (number, batch)) -> the statistics after that training batch.

    Args:
      task: what is learnt.
      seed: of the run; a batch is seen with the key of its step.
      **options: of `backend.jit`.
    """

    def forward(params, mutable, statistics, numbered):
        number, batch = numbered
        at = At(step_key(seed, number), number)
        _, _, new, _ = sum_gradient(task, params, {**mutable, TRAINED: statistics}, batch, at)
        return new[TRAINED]  # XLA removes the gradient, which nothing reads

    return backend.jit(forward, **options)


def measure_statistics(forward: Callable, state: State, batches: Iterable[tuple[Any, Batch]]) -> State:
    """Returns `state` with the statistics of its evaluated parameters over (number, batch) pairs of training data."""
    params, mutable = evaluated_variables(state)
    params = shard.gather(params)
    measured: Mapping = reestimate(
        lambda statistics, numbered: forward(params, mutable, statistics, numbered), mutable[TRAINED], batches
    )
    return state._replace(mutable={**state.mutable, AVERAGED: measured})
