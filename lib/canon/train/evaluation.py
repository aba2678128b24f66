"""Exact evaluation: accumulators are added over all batches, with padding masked, on any number of devices."""

from __future__ import annotations

import functools
import itertools
import operator
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend
from canon.metrics import Rows, add
from canon.progress import make_bar
from canon.train import shard
from canon.train.statistics import evaluated_variables
from canon.train.types import CARRY, Evaluator, Mutable, Params, State

_AHEAD = 2  # batches in flight, so that the host reads while the device computes


class Evaluation(NamedTuple):
    """metrics: what `finish` returned. sums: the added accumulators as numpy; None if there was no batch."""

    metrics: dict[str, float]
    sums: Any


class Interrupted(Exception):
    """A long computation was stopped on request."""


def compile_measure(evaluator: Evaluator, mesh) -> Callable:
    """Jits `evaluator.measure` over the mesh, with its accumulators on every process; not one that is `on_host`."""
    if evaluator.on_host:
        return evaluator.measure
    # Each process ends with the sums over all of them: XLA adds over devices, since the result is replicated.
    sums = shard.replicated_sharding(mesh)
    out = sums if evaluator.start is None else (sums, shard.batch_sharding(mesh))
    return backend.jit(evaluator.measure, out_shardings=out)


def list_metric_names(evaluator: Evaluator, state: State, measure: Callable) -> set[str] | None:
    """Returns the names of the metrics of `evaluator`, from the shapes of an abstract state; None if they cannot tell.

    It reads one batch, and passes accumulators of zeros to `finish`.
    """
    if evaluator.on_host:  # it may compute with anything, and cannot be traced
        return None
    params, mutable = jax.eval_shape(evaluated_variables, state)
    try:
        batch = shard.abstract_batch(next(iter(evaluator.data.iterate())))
    except StopIteration:
        return None  # the evaluation itself reports that there are no data
    if evaluator.start is None:
        sums = jax.eval_shape(measure, params, mutable, batch)
    else:
        carry = jax.eval_shape(evaluator.start, params, batch)
        sums, _ = jax.eval_shape(measure, params, {**mutable, CARRY: carry}, batch)
    # `finish` is any Python code, so only calling it can list its metrics.
    zeros = _widen(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), sums))
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
    quiet: bool = False,
) -> Evaluation:
    """Runs `evaluator` over its data.

    Sums are kept in float64 on the host, so a large set loses nothing to rounding.

    Args:
      evaluator: the data and what is measured on them.
      params: the parameters.
      mutable: the mutable that belongs to them.
      mesh: the devices.
      measure: what `compile_measure` returned, if the evaluator runs more than once.
      on_batch: called with (batches done, batches in all) after each batch; returning True aborts the evaluation.
      quiet: shows no live line on a terminal.

    Raises:
      Interrupted: `on_batch` returned True.
    """
    measure = measure or compile_measure(evaluator, mesh)
    add_up = _add_on_host if evaluator.on_host else _add_on_devices
    sums = add_up(evaluator, shard.gather(params), mutable, mesh, measure, on_batch, quiet)
    metrics: Mapping[str, float] = {} if sums is None else evaluator.finish(sums)
    return Evaluation({name: float(value) for name, value in metrics.items()}, sums)


def _count(evaluator: Evaluator, quiet: bool) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, batch), under a live line with the time left."""
    with make_bar(len(evaluator.data), 'evaluation', 'batch', quiet=quiet or jax.process_index() > 0) as bar:
        for done, batch in enumerate(evaluator.data.iterate(), 1):
            yield done, batch
            bar.update()


def _add_on_devices(evaluator: Evaluator, params, mutable, mesh, measure, on_batch, quiet) -> Any:
    sharding = shard.batch_sharding(mesh)
    total, waiting, sums, carry = len(evaluator.data), deque(), None, None
    for done, batch in _count(evaluator, quiet):
        placed = shard.put(batch, sharding)
        if evaluator.start is None:
            accumulators = measure(params, mutable, placed)
        else:
            carry = jax.jit(evaluator.start, out_shardings=sharding)(params, placed) if carry is None else carry
            accumulators, carry = measure(params, {**mutable, CARRY: carry}, placed)
        # Adding would wait for the device; a few batches later the result is there.
        waiting.append(accumulators)
        if len(waiting) > _AHEAD:
            sums = _add(sums, waiting.popleft())
        if on_batch(done, total):
            raise Interrupted
    while waiting:
        sums = _add(sums, waiting.popleft())
    return sums


def _add_on_host(evaluator: Evaluator, params, mutable, mesh, measure, on_batch, quiet) -> Any:
    """Each process measures its own rows, with parameters on its own devices; sums are added over processes at last."""
    # A computation over the devices of all processes would wait for the others, which are at other rows.
    params, mutable = shard.to_local((params, mutable))
    total, sums, carry = len(evaluator.data), None, None
    for done, batch in _count(evaluator, quiet):
        batch = jax.tree.map(np.asarray, batch)
        if evaluator.start is None:
            accumulators = measure(params, mutable, batch)
        else:
            carry = evaluator.start(params, batch) if carry is None else carry
            accumulators, carry = measure(params, {**mutable, CARRY: carry}, batch)
        sums = _add(sums, accumulators)
        if on_batch(done, total):
            raise Interrupted
    return sums if jax.process_count() == 1 else join_sums(shard.gather_objects(sums))


def join_sums(parts: Sequence[Any]) -> Any:
    """Adds the accumulators of several processes; `Rows` come in the order of the batches, as one process has them."""

    def join(*leaves):
        if isinstance(leaves[0], Rows):
            # Batch by batch, and within a batch process by process: the order in which one process reads the rows.
            batches = itertools.zip_longest(*(rows.parts for rows in leaves))
            return Rows(tuple(part for batch in batches for part in batch if part is not None))
        return functools.reduce(operator.add, leaves)

    parts = [part for part in parts if part is not None]
    return jax.tree.map(join, *parts, is_leaf=lambda x: isinstance(x, Rows)) if parts else None


def _add(sums: Any, accumulators: Any) -> Any:
    accumulators = _widen(jax.device_get(accumulators))
    return accumulators if sums is None else add(sums, accumulators)


def _widen(accumulators: Any) -> Any:
    """Returns accumulators in which a sum of many loses nothing; `Rows`, which are not summed, stay narrow."""

    def widen(x):
        if isinstance(x, Rows):
            return jax.tree.map(np.asarray, x)
        x = np.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.floating):  # numpy calls the kind of bfloat16 and float8 'V', not 'f'
            return x.astype(np.float64, copy=False)
        return x.astype(np.int64) if x.dtype.kind in 'iub' and x.dtype.itemsize < 8 else x

    return jax.tree.map(widen, accumulators, is_leaf=lambda x: isinstance(x, Rows))
