"""Averages of the parameters over training: exponential, or from a plateau on."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.core import (
    Tree,
    check_params,
    next_count,
    one_minus_power,
    per_leaf,
    require_params,
    scalar,
    times,
    to_integer,
    to_mode,
    to_number,
    wide,
    wide_copy,
    zero_count,
)


class EmaState(NamedTuple):
    """Holds the average of `ema`, and the number of updates in it."""

    count: jax.Array
    average: Tree


def ema(decay: float = 0.999, debias: bool = True) -> GradientTransformation:
    """a <- a + w_k (theta_k - a), an average of the parameters after each update. It must be last in a chain.

    w_k = (1 - decay) / (1 - decay^k): the exponential average without a bias to the initialisation, corrected as Adam's
    are. decay=1 is its limit, w_k = 1 / k, the plain mean (Polyak & Juditsky 1992). With `debias=False` w_k = 1 -
    decay, which after a few steps is mostly the initialisation.

    `eval_params(params, opt_state)` returns the average in the types of the parameters; it is kept in float32.
    `optax.ema` averages updates, not parameters.

    Args:
      decay: of the average; 0.999 averages about the newest thousand updates.
      debias: corrects the bias to the initialisation.
    """
    below = math.nextafter(1.0, 2.0) if debias else 1.0  # with debias 1 is allowed, the plain mean
    decay = to_number('decay', decay, below=below)

    def init(params):
        check_params(params)
        return EmaState(zero_count(), wide_copy(params))

    def update(updates, state, params=None):
        params = require_params(params, 'ema')
        count = next_count(state.count)
        weight = _average_weight(count, decay) if debias else scalar(1.0 - decay)

        def kernel(u, a, p):
            return u, a + times(weight, advance_parameter(p, u) - a)

        updates, average = per_leaf(kernel, updates, state.average, given=(params,))
        return updates, EmaState(count, average)

    return GradientTransformation(init, update)


def advance_parameter(param: jax.Array, update: jax.Array) -> jax.Array:
    """Returns the parameter after the update, rounded as by optax.apply_updates."""
    return wide((wide(param) + update).astype(param.dtype))


def _average_weight(count: jax.Array, decay: float | jax.Array) -> jax.Array:
    mean = 1 / scalar(count)
    if not isinstance(decay, jax.Array):
        return mean if decay == 1 else (1.0 - decay) / one_minus_power(decay, count)
    short = jnp.where(decay < 1, decay, 0.5)  # not 0 / 0 for the plain mean
    return jnp.where(decay < 1, (1.0 - short) / one_minus_power(short, count), mean)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LateAverageState:
    """Holds the average that `average_on_plateau` begins late, and what it has observed."""

    count: jax.Array  # int32: parameters in the average; 0 before it begins, when it equals the parameters
    average: Tree
    best: jax.Array  # of all evaluations before the last `patience`
    recent: jax.Array  # [patience], oldest first
    metric: str = dataclasses.field(metadata=dict(static=True))
    mode: str = dataclasses.field(metadata=dict(static=True))

    def observe(self, value: jax.Array) -> LateAverageState:
        """Returns the state after an evaluation that measured `value`."""
        value = jnp.asarray(value, self.best.dtype)
        lesser, worse = (jnp.fmin, jnp.greater) if self.mode == 'min' else (jnp.fmax, jnp.less)
        begins = (self.count == 0) & worse(value, self.best)  # False for NaN
        return dataclasses.replace(
            self,
            count=jnp.where(begins, 1, self.count),
            best=lesser(self.best, self.recent[0]),
            recent=jnp.append(self.recent[1:], value),
        )


def average_on_plateau(metric: str, patience: int = 5, mode: str | None = None) -> GradientTransformation:
    """Averages the parameters from the first evaluation that is worse than the best one before the last `patience`.

    The trigger is that of NT-ASGD (Merity, Keskar & Socher 2018, algorithm 1, where n is `patience`); the average is
    the plain mean (Polyak & Juditsky 1992), beginning with the parameters of that evaluation. It must be last in a
    chain, in the paper after `sgd`. `eval_params(params, opt_state)` returns the mean, and before it begins the
    parameters. The authors' code evaluates once per epoch, and switches to torch's `ASGD` at the trigger.

    Args:
      metric: the key of `observe`'s mapping, such as 'valid/loss'. Evaluations without it are ignored, and NaN never
        triggers the average.
      patience: n, the most recent evaluations that are not compared with.
      mode: 'min' if less is better, or 'max'; it has no default.
    """
    patience = to_integer('patience', patience)
    direction = to_mode(mode, metric)

    def init(params):
        check_params(params)
        worst = scalar(float('inf') if direction == 'min' else float('-inf'))
        return LateAverageState(zero_count(), wide_copy(params), worst, jnp.full((patience,), worst), metric, direction)

    def update(updates, state, params=None):
        params = require_params(params, 'average_on_plateau')
        begun = state.count > 0
        count = jnp.where(begun, next_count(state.count), 0)
        weight = 1 / scalar(jnp.maximum(count, 1))

        def kernel(u, a, p):
            new = advance_parameter(p, u)
            return u, jnp.where(begun, a + times(weight, new - a), new)

        updates, average = per_leaf(kernel, updates, state.average, given=(params,))
        return updates, dataclasses.replace(state, count=count, average=average)

    return GradientTransformation(init, update)
