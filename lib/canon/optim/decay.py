"""Weight decay: one link; its place in the chain says which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path
from optax import GradientTransformation

from canon.errors import UsageError
from canon.named import suggest
from canon.optim.constants import constant_scalar
from canon.optim.core import (
    Tree,
    check_params,
    compile_pattern,
    path_name,
    per_leaf,
    refuse_buckets,
    require_params,
    times,
    to_number,
    wide,
)


class DecayState(NamedTuple):
    weight_decay: jax.Array  # of the last update
    pinned: jax.Array  # bool: `weight_decay` was set by `set_hyperparams` and overrides the argument


def add_decayed_weights(
    weight_decay: float, where: str | None = None, mask: Tree | Callable[[Tree], Tree] | None = None
) -> GradientTransformation:
    """u <- u + weight_decay theta for the parameters whose path (`Conv_0/kernel`) the regex `where` finds.

    Before a scaler this is the gradient of the L2 term (weight_decay / 2) ||theta||^2, coupled: AlexNet, and
    torch's `weight_decay` of SGD and Adam. Behind the scaler it is decoupled: AdamW. For plain SGD the two
    are the same. A regex that finds no parameter raises UsageError.

    mask: optax's way to choose: a tree of booleans, or a function from the parameters to one. It may be a prefix of the
        parameters' tree.
    """
    weight_decay = to_number('weight_decay', weight_decay)
    if where is not None and mask is not None:
        raise UsageError(f'where={where!r} and mask choose the same parameters; give one of them')

    def decayed_paths(params):
        return select_paths(where, params) if mask is None else _masked_paths(mask, params)

    def init(params):
        check_params(params)
        if where is not None or mask is not None:
            refuse_buckets(params, 'where')
        decayed_paths(params)
        return DecayState(constant_scalar(weight_decay), jnp.zeros((), bool))

    def update(updates, state, params=None):
        params = require_params(params, 'add_decayed_weights')
        decayed = decayed_paths(params)
        decay = jnp.where(state.pinned, state.weight_decay, constant_scalar(weight_decay))

        def kernel(path, u, p):
            return (wide(u) + times(decay, wide(p)) if path in decayed else u,)

        (updates,) = per_leaf(kernel, updates, given=(params,), paths=True)
        return updates, DecayState(decay, state.pinned)

    return GradientTransformation(init, update)


def _masked_paths(mask: Tree | Callable[[Tree], Tree], params: Tree) -> set[str]:
    """The paths of the parameters where the mask is true."""
    try:
        chosen = jax.tree.broadcast(mask(params) if callable(mask) else mask, params)
    except ValueError as error:
        raise UsageError(f'mask is another tree than the parameters: {error}') from error
    return {path_name(path) for path, yes in tree_flatten_with_path(chosen)[0] if yes}


def select_paths(where: str | None, params: Tree) -> set[str]:
    """The paths of the parameters that the regex finds; all for None. Raises UsageError where it finds none."""
    names = [path_name(path) for path, _ in tree_flatten_with_path(params)[0]]
    found = {name for name in names if where is None or compile_pattern(where).search(name)}
    if names and not found:
        raise UsageError(f'where={where!r} finds no parameter{suggest(str(where), names)}')
    return found
