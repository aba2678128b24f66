"""Constant hyperparameters as arguments of a compiled program, so that another rate compiles nothing anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from canon.optim.core import scalar

# What `constant_scalar` asks for the array of a float; None outside of `lift_constants`.
_lookup: ContextVar[Callable[[float], jax.Array | None] | None] = ContextVar('lookup', default=None)


def constant_scalar(value: float | jax.Array) -> jax.Array:
    """A strongly typed scalar: of a float the argument that `lift_constants` made of it, else a literal."""
    lookup = _lookup.get()
    lifted = lookup(value) if lookup is not None and isinstance(value, float) else None
    return scalar(value if lifted is None else lifted)


def lift_constants(function: Callable, *args: Any) -> tuple[Callable, np.ndarray, Any]:
    """`(lifted, values, result)`: `lifted(values, *args)` is `function(*args)` with its constant rates in `values`.

    XLA compiles a constant into the program. `jax.jit(lifted)` is the same program for any learning rate, weight decay
    and momentum, so runs that differ in nothing else share one entry of the compilation cache. Constants are told
    apart by value: whether a transform is traced once or several times makes no difference. An update that is itself
    jitted keeps its literals, which are in JAX's trace of it.

    args: what `function` will be called with; `jax.ShapeDtypeStruct`s suffice. `result` is what it returns, abstract.
    """
    places: dict[float, int] = {}

    def collect(value: float) -> None:
        places.setdefault(value, len(places))

    def lifted(values, *args):
        with _set_lookup(lambda value: values[places[value]] if value in places else None):
            return function(*args)

    with _set_lookup(collect):
        result = jax.eval_shape(lambda *args: function(*args), *args)  # a new function: JAX has no trace of it yet
    return lifted, np.asarray(scalar(list(places))), result


@contextlib.contextmanager
def _set_lookup(lookup: Callable[[float], jax.Array | None]) -> Generator[None]:
    token = _lookup.set(lookup)
    try:
        yield
    finally:
        _lookup.reset(token)
