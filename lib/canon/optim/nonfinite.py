"""Skips updates whose gradients are not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, GradientTransformationExtraArgs, with_extra_args_support

from canon.optim.core import next_count, zero_count


class SkipState(NamedTuple):
    """Holds the number of updates that `skip_nonfinite` has skipped, and the state of its transform."""

    HYPERPARAMETERS = ('skipped_updates',)

    skipped_updates: jax.Array  # int32, in total; `hyperparams` reports it, so that it is logged
    inner: Any


def skip_nonfinite(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """Skips an update if a gradient has a NaN or an infinity: parameters and state stay, and a count grows.

    It never gives up: the training loop decides when too many updates are skipped, by `skipped_updates`.
    `optax.apply_if_finite` applies the NaN after a number of them.
    """
    tx = with_extra_args_support(tx)

    def init(params):
        return SkipState(zero_count(), tx.init(params))

    def update(updates, state, params=None, **extra):
        finite = jnp.array(True)
        for leaf in jax.tree.leaves(updates):
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):  # not the gradient of a frozen integer
                finite &= jnp.all(jnp.isfinite(leaf))
        move = lambda: tx.update(updates, state.inner, params, **extra)  # noqa: E731
        like = jax.eval_shape(move)[0]
        zeros = jax.tree.map(lambda u, g: jnp.zeros_like(g, dtype=u.dtype), like, updates)
        new, inner = jax.lax.cond(finite, move, lambda: (zeros, state.inner))
        skipped = jnp.where(finite, state.skipped_updates, next_count(state.skipped_updates))
        return new, SkipState(skipped, inner)

    return GradientTransformationExtraArgs(init, update)
