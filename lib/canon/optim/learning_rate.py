"""The learning rate: the link that turns a direction of ascent into a step of descent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.core import check_params, check_range, next_count, per_leaf, scalar, times, wide, zero_count
from canon.optim.schedules import Schedule


class LearningRateState(NamedTuple):
    count: jax.Array  # int32: updates made
    learning_rate: jax.Array  # the rate of the last update; before the first, the rate it will have
    pinned: jax.Array  # bool: `learning_rate` rules, not the schedule (see set_hyperparams)


def scale_by_learning_rate(learning_rate: float | Schedule) -> GradientTransformation:
    """u <- -epsilon_k u.

    The rate is a leaf of the state: logged by `hyperparams`, saved with the run, changed by
    `set_hyperparams`, swept by `vmap`, and no constant of the compiled program, so another rate compiles
    nothing anew. Where `learning_rate` is a schedule, it is called with the number of updates made: the
    first update uses schedule(0).

    optax's link of this name keeps the rate out of the state, and is the identity for `learning_rate=None`.
    """
    check_range('learning_rate', learning_rate)
    schedule = learning_rate if callable(learning_rate) else None

    def init(params):
        check_params(params)
        rate = scalar(schedule(zero_count()) if schedule else learning_rate)
        return LearningRateState(zero_count(), rate, jnp.asarray(schedule is None))

    def update(updates, state, params=None):
        rate = state.learning_rate
        if schedule:
            rate = jnp.where(state.pinned, rate, scalar(schedule(state.count)))
        given = () if params is None else (params,)
        (updates,) = per_leaf(lambda u, *_: (times(-rate, wide(u)),), updates, given=given)
        return updates, LearningRateState(next_count(state.count), rate, state.pinned)

    return GradientTransformation(init, update)
