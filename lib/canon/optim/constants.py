"""Turns constant hyperparameters into arguments of a compiled program, so that another rate needs no compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from canon.optim.core import scalar

# Returns the array of a constant, for `constant_scalar`; None outside of `lift_constants`.
_lookup: ContextVar[Callable[[float], jax.Array | None] | None] = ContextVar('lookup', default=None)


def constant_scalar(value: float | jax.Array) -> jax.Array:
    """Returns a strongly typed scalar: for a float the argument that `lift_constants` made of it, else a literal."""
    lookup = _lookup.get()
    argument = lookup(value) if lookup is not None and isinstance(value, float) else None
    return scalar(value if argument is None else argument)


def lift_constants(function: Callable, *args: Any) -> tuple[Callable, np.ndarray, Any]:
    """Makes the constant rates, weight decays and momenta in a function its first argument.

    XLA compiles constants into the program. `jax.jit(call)` is the same program for any values, so runs that differ
    only in these share one entry of the compilation cache. Constants are identified by their values: whether a
    transform is traced once or several times makes no difference. An update that is itself jitted keeps its literals,
    which are in JAX's trace of it.

    Args:
      function: to lift.
      args: its arguments; `jax.ShapeDtypeStruct`s suffice.

    Returns:
      `call`, for which `call(values, *args)` equals `function(*args)`; the `values`; and the abstract result.
    """
    places: dict[float, int] = {}

    def collect(value: float) -> None:
        places.setdefault(value, len(places))

    def call(values, *args):
        with _set_lookup(lambda value: values[places[value]] if value in places else None):
            return function(*args)

    # Traced once without values, to collect the constants in the order of their first use.
    with _set_lookup(collect):
        result = jax.eval_shape(lambda *args: function(*args), *args)  # a new function: JAX has no trace of it yet
    return call, np.asarray(scalar(list(places))), result


@contextlib.contextmanager
def _set_lookup(lookup: Callable[[float], jax.Array | None]) -> Generator[None]:
    token = _lookup.set(lookup)
    try:
        yield
    finally:
        _lookup.reset(token)
