"""L2-SP: a weight decay toward the parameters that fine-tuning starts from."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path
from optax import GradientTransformation

from canon.optim.constants import constant_scalar
from canon.optim.core import (
    Tree,
    check_params,
    path_name,
    per_leaf,
    refuse_buckets,
    require_params,
    times,
    to_number,
    wide,
    wide_copy,
)
from canon.optim.decay import select_paths


class StartingPointState(NamedTuple):
    """Holds what `add_starting_point_decay` pulls the parameters towards."""

    start: Tree  # the parameters before the first update, in at least float32


def add_starting_point_decay(alpha: float = 0.1, beta: float = 0.01, new: str | None = None) -> GradientTransformation:
    """u <- u + alpha (theta - theta_0), and u + beta theta for new parameters: Li et al. 2018 (L2-SP).

    Before a scaler it is the gradient of alpha / 2 |theta - theta_0|^2 + beta / 2 |theta_new|^2. theta_0 are the
    parameters when training starts, after `run.init_from` has replaced them.

    Args:
      alpha: of the distance from the start.
      beta: of the parameters without a starting point, such as those of a new classifier.
      new: regex of their paths; None if all parameters have a starting point.

    Raises:
      UsageError: the regex matches no parameter.
    """
    alpha, beta = to_number('alpha', alpha), to_number('beta', beta)

    def new_paths(params):
        return set() if new is None else select_paths(new, params)

    def init(params):
        check_params(params)
        if new is not None:
            refuse_buckets(params, 'new')
        fresh = new_paths(params)
        # A new parameter starts at 0, so that one formula serves both.
        start = [
            jnp.zeros_like(leaf) if path_name(path) in fresh else leaf
            for path, leaf in tree_flatten_with_path(wide_copy(params))[0]
        ]
        return StartingPointState(jax.tree.structure(params).unflatten(start))

    def update(updates, state, params=None):
        params = require_params(params, 'add_starting_point_decay')
        fresh = new_paths(params)

        def kernel(path, u, p, start):
            rate = constant_scalar(beta if path in fresh else alpha)
            return (wide(u) + times(rate, wide(p) - start),)

        (updates,) = per_leaf(kernel, updates, given=(params, state.start), paths=True)
        return updates, state

    return GradientTransformation(init, update)
