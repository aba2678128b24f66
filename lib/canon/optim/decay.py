"""Weight decay: one link; its place in the chain says which kind."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax.tree_util import tree_flatten_with_path
from optax import GradientTransformation

from canon.errors import UsageError
from canon.named import near
from canon.optim.core import (
    Tree,
    check_params,
    check_range,
    need_params,
    path_name,
    per_leaf,
    refuse_buckets,
    regex,
    scalar,
    times,
    wide,
)


class DecayState(NamedTuple):
    weight_decay: jax.Array


def add_decayed_weights(weight_decay: float, where: str | None = None) -> GradientTransformation:
    """u <- u + weight_decay theta for the parameters whose path (`Conv_0/kernel`) the regex `where` finds.

    Before a scaler this is the gradient of the L2 term (weight_decay / 2) ||theta||^2, coupled: AlexNet, and
    torch's `weight_decay` of SGD and Adam. Behind the scaler it is decoupled: AdamW. For plain SGD the two
    are the same. A regex that finds no parameter raises UsageError; optax takes a mask instead.
    """
    check_range('weight_decay', weight_decay)

    def init(params):
        check_params(params)
        if where is not None:
            refuse_buckets(params, 'where')
        selected(where, params)
        return DecayState(scalar(weight_decay))

    def update(updates, state, params=None):
        params = need_params(params, 'add_decayed_weights')
        decayed = selected(where, params)

        def kernel(path, u, p):
            return (wide(u) + times(state.weight_decay, wide(p)) if path in decayed else u,)

        (updates,) = per_leaf(kernel, updates, given=(params,), paths=True)
        return updates, state

    return GradientTransformation(init, update)


def selected(where: str | None, params: Tree) -> set[str]:
    """The paths of the parameters that the regex finds; all for None. Raises UsageError where it finds none."""
    names = [path_name(path) for path, _ in tree_flatten_with_path(params)[0]]
    found = {name for name in names if where is None or regex(where).search(name)}
    if names and not found:
        raise UsageError(f'where={where!r} finds no parameter{near(str(where), names)}')
    return found
