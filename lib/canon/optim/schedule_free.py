"""Schedule-free learning: averages iterates in place of a schedule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, GradientTransformationExtraArgs, with_extra_args_support

from canon.errors import UsageError
from canon.optim.constants import constant_scalar
from canon.optim.core import (
    Tree,
    accept_names,
    check_params,
    per_leaf,
    require_params,
    scalar,
    times,
    to_number,
    wide,
    wide_copy,
)
from canon.optim.state import hyperparams


class ScheduleFreeState(NamedTuple):
    """Holds the point z of `schedule_free`, the weights of its average, and the state of its transform."""

    interpolation: jax.Array  # of the current y
    total_weight: jax.Array
    largest_rate: jax.Array
    z: Tree
    inner: Any


@accept_names(b1='interpolation', weight_lr_power='weight_power')
def schedule_free(
    tx: GradientTransformation, *, interpolation: float = 0.9, weight_power: float = 2.0
) -> GradientTransformationExtraArgs:
    """z <- z + tx(grad f(y)); x <- (1 - c) x + c z; y <- (1 - interpolation) z + interpolation x.

    Defazio et al. 2024, algorithm 1. c = w / (sum of all w) with w = (the largest rate so far)^weight_power, so that a
    warm-up has less weight. The loop's parameters are y, where the gradient is taken; `eval_params` returns x. Only z
    is stored. `tx` has its own rate, constant or with a warm-up, and should have no momentum: `sgd(1.0)`,
    `adamw(warmup(500, constant(3e-3)), b1=0.0)`. Its decay acts on y, as in the authors' code.

    `optax.contrib.schedule_free` takes the rate a second time and ignores schedule(0).

    Args:
      interpolation: share of the average x in y.
      weight_power: of the rate in the weight of x.
    """
    interpolation = to_number('interpolation', interpolation, below=1.0, above=0)  # x is recovered from y
    weight_power = to_number('weight_power', weight_power)
    tx = with_extra_args_support(tx)

    def init(params):
        check_params(params)
        z = wide_copy(params)
        inner = tx.init(params)
        _rate(inner)
        return ScheduleFreeState(constant_scalar(interpolation), scalar(0.0), scalar(0.0), z, inner)

    def update(updates, state, params=None, **extra):
        params = require_params(params, 'schedule_free')
        updates, inner = tx.update(updates, state.inner, params, **extra)
        largest = jnp.maximum(state.largest_rate, _rate(inner))
        weight = largest**weight_power
        total = state.total_weight + weight
        ahead = constant_scalar(interpolation)  # of the next y; that of this y is in the state
        c = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 0)

        def kernel(u, z, y):
            y, u = wide(y), u.astype(z.dtype)
            z = z + u
            x = recover_average(y, z - u, state.interpolation)  # from the new z, so that z is written in place
            return (1 - c).astype(z.dtype) * times(ahead, x - z) + (z - y), z

        updates, z = per_leaf(kernel, updates, state.z, given=(params,))
        return updates, ScheduleFreeState(ahead, total, largest, z, inner)

    return GradientTransformationExtraArgs(init, update)


def recover_average(y, z, interpolation):
    """Solves y = (1 - interpolation) z + interpolation x for x."""
    return z + (wide(y) - z) / interpolation.astype(z.dtype)


def _rate(state) -> jax.Array:
    rates = {k: v for k, v in hyperparams(state).items() if k.rpartition('/')[2] == 'learning_rate'}
    if len(rates) != 1:
        raise UsageError(f'schedule_free needs a transform with one learning rate of its own; it has {sorted(rates)}')
    return next(iter(rates.values()))
