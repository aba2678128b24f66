"""Weight decay, coupled or decoupled by its place in the chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path
from optax import GradientTransformation

from canon.errors import UsageError
from canon.named import compile_pattern, suggest
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
)


class DecayState(NamedTuple):
    """Holds the weight decay of `add_decayed_weights`."""

    HYPERPARAMETERS = ('weight_decay',)

    weight_decay: jax.Array  # of the last update
    pinned: jax.Array  # bool: `weight_decay` was set by `set_hyperparams` and overrides the argument


def add_decayed_weights(
    weight_decay: float, *, where: str | None = None, mask: Tree | Callable[[Tree], Tree] | None = None
) -> GradientTransformation:
    """u <- u + weight_decay theta for the selected parameters.

    Before a scaler this is the gradient of the L2 term (weight_decay / 2) ||theta||^2, coupled weight decay, as in
    AlexNet and in torch's SGD and Adam. After the scaler it is decoupled, as in AdamW. For plain SGD the two are the
    same.

    Args:
      weight_decay: the coefficient.
      where: regex of the paths of the parameters to decay, such as 'kernel$'; all if None.
      mask: the parameters to decay as in optax: a tree of booleans, or a function from the parameters to one. It may be
        a prefix of the parameters' tree.

    Raises:
      UsageError: the regex matches no parameter, or both `where` and `mask` are given.
    """
    weight_decay = to_number('weight_decay', weight_decay)
    if where is not None and mask is not None:
        raise UsageError(f'where={where!r} and mask both select parameters; give one of them')

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
        # What `set_hyperparams` has set overrides the argument.
        decay = jnp.where(state.pinned, state.weight_decay, constant_scalar(weight_decay))

        # Which leaves decay is decided by their names while tracing: the compiled update has no branches.
        def kernel(path, u, p):
            return (wide(u) + times(decay, wide(p)) if path in decayed else u,)

        (updates,) = per_leaf(kernel, updates, given=(params,), paths=True)
        return updates, DecayState(decay, state.pinned)

    return GradientTransformation(init, update)


def _masked_paths(mask: Tree | Callable[[Tree], Tree], params: Tree) -> set[str]:
    """Returns the paths of the parameters for which the mask is true."""
    try:
        chosen = jax.tree.broadcast(mask(params) if callable(mask) else mask, params)
    except ValueError as error:
        raise UsageError(f'the tree of the mask differs from that of the parameters: {error}') from error
    return {path_name(path) for path, yes in tree_flatten_with_path(chosen)[0] if yes}


def select_paths(where: str | None, params: Tree) -> set[str]:
    """Returns the paths of the parameters that the regex matches; all for None. Raises UsageError if there are none."""
    names = [path_name(path) for path, _ in tree_flatten_with_path(params)[0]]
    selected = {name for name in names if where is None or compile_pattern(where).search(name)}
    if names and not selected:
        raise UsageError(f'where={where!r} matches no parameter{suggest(str(where), names)}')
    return selected
