"""Passing over gradients that are not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, GradientTransformationExtraArgs, with_extra_args_support

from canon.optim.core import next_count, zero_count


class SkipState(NamedTuple):
    skipped_updates: jax.Array  # int32, all of them; `hyperparams` reports it, so it stands in the log
    inner: Any


def skip_nonfinite(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """Where a gradient holds a NaN or an infinity nothing moves, neither parameters nor state, and a count grows.

    It never gives up: whether a hundred skipped updates are a reason to stop is for the host to say, which
    reads `skipped_updates`. `optax.apply_if_finite` lets the NaN in after a number of them.
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
