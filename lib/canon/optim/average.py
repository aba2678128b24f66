"""An average of the parameters, kept beside them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.errors import UsageError
from canon.optim.core import (
    Tree,
    check_params,
    check_range,
    need_params,
    next_count,
    one_minus_power,
    per_leaf,
    scalar,
    times,
    wide,
    wide_dtype,
    zero_count,
)


class EmaState(NamedTuple):
    count: jax.Array
    average: Tree


def ema(decay: float = 0.999, debias: bool = True) -> GradientTransformation:
    """a <- a + w_k (theta_k - a), an average of the parameters after each update. Stands last in a chain.

    w_k = (1 - decay) / (1 - decay^k): the exponential average without the memory of the initialisation,
    exactly Adam's corrected one. decay=1 is its limit, w_k = 1 / k, the plain mean (Polyak & Juditsky 1992).
    With `debias=False` w_k = 1 - decay, which after few steps is mostly the initialisation.

    `eval_params(params, opt_state)` gives the average, in the parameters' types; it is kept in float32.
    `optax.ema` averages updates, not parameters.
    """
    check_range('decay', decay)
    if decay > 1 or (decay == 1 and not debias):
        raise UsageError(f'decay={decay} must be below 1 (or 1 with debias, the plain mean)')

    def init(params):
        check_params(params)
        # a copy: an average that shares the parameters' buffer cannot be donated beside them
        return EmaState(zero_count(), jax.tree.map(lambda p: jnp.array(p, wide_dtype(p), copy=True), params))

    def update(updates, state, params=None):
        params = need_params(params, 'ema')
        count = next_count(state.count)
        weight = _weight(count, decay) if debias else scalar(1.0 - decay)

        def kernel(u, a, p):
            new = wide((wide(p) + u).astype(p.dtype))  # as optax.apply_updates will round it
            return u, a + times(weight, new - a)

        updates, average = per_leaf(kernel, updates, state.average, given=(params,))
        return updates, EmaState(count, average)

    return GradientTransformation(init, update)


def _weight(count: jax.Array, decay: float) -> jax.Array:
    return 1 / scalar(count) if decay == 1 else (1.0 - decay) / one_minus_power(decay, count)
