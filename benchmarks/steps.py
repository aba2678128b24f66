"""Compiled train steps that carry their state from call to call, for the benchmarks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from canon import backend
from canon.train import Task, make_step
from canon.train.step import init_state


def compile_step(task: Task, tx: Any, batch: Any, make: Callable = make_step) -> Callable[[], Any]:
    """Returns a call that makes one donated step on a batch that is on the device, and returns the metrics.

    Args:
      task: what is learned.
      tx: the optimizer.
      batch: of every step.
      make: (task, tx, seed) -> step; `make_step`, or that of an experiment with a step of its own.
    """
    batch = jax.device_put(batch)
    state = jax.jit(lambda batch: init_state(task, tx, 0, batch))(batch)
    return repeat(backend.jit(make(task, tx, 0), donate_argnums=0), [state], batch)


def repeat(step: Callable, carry: Sequence[Any], *arguments: Any) -> Callable[[], Any]:
    """Returns a call of step(*carry, *arguments) -> (*carry, result), compiled now, that returns the result.

    Donated buffers may not be used again: each call passes on what the one before returned.
    """
    held = list(carry)
    lower = getattr(step, 'lower', None)  # of a jitted function
    run = lower(*held, *arguments).compile() if lower else step

    def call():
        *held[:], result = run(*held, *arguments)
        return result

    return call
