"""The learning rate, the link of a chain that turns a direction into a step of descent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.constants import constant_scalar
from canon.optim.core import check_params, next_count, per_leaf, scalar, times, to_number, wide, zero_count
from canon.optim.schedules import Schedule


class LearningRateState(NamedTuple):
    """Holds the number of updates and the rate of `scale_by_learning_rate`."""

    HYPERPARAMETERS = ('learning_rate',)

    count: jax.Array  # int32: updates made
    learning_rate: jax.Array  # the rate of the last update; before the first, the rate it will have
    pinned: jax.Array  # bool: `learning_rate` was set by `set_hyperparams` and overrides the argument


def scale_by_learning_rate(learning_rate: float | Schedule) -> GradientTransformation:
    """u <- -epsilon_k u.

    The rate is a float, a tracer (`jax.vmap` over a rate, `optax.inject_hyperparams`), or a schedule, which is called
    with the number of updates made, so that the first update uses schedule(0). The state records the rate of the last
    update, for `hyperparams` and checkpoints; `set_hyperparams` overrides the argument.

    optax's transform of this name keeps no rate in the state, and is the identity for `learning_rate=None`.
    """
    argument = learning_rate if callable(learning_rate) else to_number('learning_rate', learning_rate)

    def rate_at(count):
        return scalar(argument(count)) if callable(argument) else constant_scalar(argument)

    def init(params):
        check_params(params)
        return LearningRateState(zero_count(), rate_at(zero_count()), jnp.zeros((), bool))

    def update(updates, state, params=None):
        rate = jnp.where(state.pinned, state.learning_rate, rate_at(state.count))
        given = () if params is None else (params,)
        (updates,) = per_leaf(lambda u, *_: (times(-rate, wide(u)),), updates, given=given)
        return updates, LearningRateState(next_count(state.count), rate, state.pinned)

    return GradientTransformation(init, update)
