"""Makes the state of an optimizer new at a given step, as for a loss that changes its scale there."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, GradientTransformationExtraArgs, with_extra_args_support

from canon.optim.core import next_count, require_params, to_integer, zero_count


class RestartState(NamedTuple):
    """Holds the number of updates of `restart`, and the state of its transform."""

    count: jax.Array  # int32: updates made
    inner: Any


def restart(tx: GradientTransformation, at: int) -> GradientTransformationExtraArgs:
    """Makes the state of `tx` new before update number `at`, counted from 0.

    The authors of DomainBed (Gulrajani & Lopez-Paz 2021) make a new Adam where the penalty of IRM or V-REx leaps to its
    full weight, since its moments are of gradients that were smaller by orders of magnitude. Schedules inside `tx`
    begin again, too.

    Args:
      tx: the optimizer.
      at: the number of updates after which its state is new.
    """
    tx, at = with_extra_args_support(tx), to_integer('at', at)

    def init(params):
        return RestartState(zero_count(), tx.init(params))

    def update(updates, state, params=None, **extra):
        fresh = tx.init(require_params(params, 'restart'))
        inner = jax.tree.map(lambda new, old: jnp.where(state.count == at, new, old), fresh, state.inner)
        updates, inner = tx.update(updates, inner, params, **extra)
        return updates, RestartState(next_count(state.count), inner)

    return GradientTransformationExtraArgs(init, update)
