"""Exact evaluation: accumulators added over all batches, padding masked, on however many devices."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend
from canon.metrics import add
from canon.train.shard import abstract_batch, batch_sharding, put, replicated
from canon.train.statistics import evaluated_variables
from canon.train.types import CARRY, Evaluator, Mutable, Params, State

_AHEAD = 2  # batches in flight, so that the host reads while the device computes


class Evaluation(NamedTuple):
    metrics: dict[str, float]
    sums: Any  # the added accumulators, as numpy


class Interrupted(Exception):
    """An evaluation was asked to stop before its end."""


def compile_measure(evaluator: Evaluator, mesh) -> Callable:
    """`evaluator.measure`, jitted over the mesh; its accumulators come back whole on every process."""
    sums = replicated(mesh)
    out = sums if evaluator.start is None else (sums, batch_sharding(mesh))
    return backend.jit(evaluator.measure, out_shardings=out)


def metric_names(evaluator: Evaluator, state: State, measure: Callable) -> set[str] | None:
    """The names of what `evaluator` measures on an abstract state, from shapes alone; None where zeros cannot tell.

    It reads one batch, and `finish` gets accumulators of zeros.
    """
    params, mutable = jax.eval_shape(evaluated_variables, state)
    try:
        batch = abstract_batch(next(iter(evaluator.data.iterate())))
    except StopIteration:
        return None  # the evaluation itself reports that there are no data
    if evaluator.start is None:
        sums = jax.eval_shape(measure, params, mutable, batch)
    else:
        carry = jax.eval_shape(evaluator.start, params, batch)
        sums, _ = jax.eval_shape(measure, params, {**mutable, CARRY: carry}, batch)
    zeros = jax.tree.map(lambda x: _widened(np.zeros(x.shape, x.dtype)), sums)
    try:
        with np.errstate(all='ignore'), warnings.catch_warnings(action='ignore'):
            return set(evaluator.finish(zeros))
    except Exception:
        return None  # a set of nothing but zeros may have no metrics


def evaluate(
    evaluator: Evaluator,
    params: Params,
    mutable: Mutable,
    mesh,
    measure: Callable | None = None,
    on_batch: Callable[[int, int], bool | None] = lambda done, of: None,
) -> Evaluation:
    """Runs `evaluator` over its data.

    `on_batch(done, of)` is called after each batch; returning True aborts the evaluation with `Interrupted`. The sums
    are kept in float64 on the host, so a large set loses nothing to rounding.
    """
    measure = measure or compile_measure(evaluator, mesh)
    sharding = batch_sharding(mesh)
    of, waiting, sums, carry = len(evaluator.data), deque(), None, None
    for done, batch in enumerate(evaluator.data.iterate(), 1):
        placed = put(batch, sharding)
        if evaluator.start is None:
            one = measure(params, mutable, placed)
        else:
            carry = jax.jit(evaluator.start, out_shardings=sharding)(params, placed) if carry is None else carry
            one, carry = measure(params, {**mutable, CARRY: carry}, placed)
        waiting.append(one)
        if len(waiting) > _AHEAD:
            sums = _added(sums, waiting.popleft())
        if on_batch(done, of):
            raise Interrupted
    while waiting:
        sums = _added(sums, waiting.popleft())
    metrics: Mapping[str, float] = {} if sums is None else evaluator.finish(sums)
    return Evaluation({name: float(value) for name, value in metrics.items()}, sums)


def _added(sums: Any, one: Any) -> Any:
    one = jax.tree.map(_widened, jax.device_get(one))
    return one if sums is None else add(sums, one)


def _widened(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.floating):  # numpy's own kind of bfloat16 and float8 is 'V', not 'f'
        return x.astype(np.float64, copy=False)
    kind = {'i': np.int64, 'u': np.int64, 'b': np.int64}.get(x.dtype.kind)
    return x.astype(kind) if kind and x.dtype.itemsize < 8 else x
