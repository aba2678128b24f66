"""The points that may differ from the loop's parameters: where the gradient is taken, what is evaluated."""

from __future__ import annotations

import jax
from optax import MaskedNode

from canon.optim.average import EmaState, LateAverageState
from canon.optim.core import Tree, times, wide
from canon.optim.descent import LookaheadState, NesterovState
from canon.optim.schedule_free import ScheduleFreeState, recover_average
from canon.optim.state import find_all


def lookahead_params(params: Tree, opt_state) -> Tree:
    """Where to take the gradient: theta + momentum v for `nesterov(stored='theta')`, else the parameters."""
    for state in find_all(opt_state, LookaheadState):
        params = _overlay(params, state.velocity, lambda p, v, s=state: wide(p) + times(s.momentum, wide(v)))
    return params


def eval_params(params: Tree, opt_state) -> Tree:
    """What to evaluate: an average (`ema`, `average_on_plateau`, `schedule_free`), `nesterov`'s theta, or these.

    Leaf by leaf: in a partition one group may have an average and another none.
    """
    for state in find_all(opt_state, ScheduleFreeState):
        params = _overlay(params, state.z, lambda y, z, s=state: recover_average(y, z, s.interpolation))
    for state in find_all(opt_state, NesterovState):
        params = _overlay(params, state.velocity, lambda p, v, s=state: wide(p) - times(s.momentum, wide(v)))
    for kind in (EmaState, LateAverageState):  # last: where there is an average, it is what counts
        for state in find_all(opt_state, kind):
            params = _overlay(params, state.average, lambda p, average: average)
    return params


def _overlay(params: Tree, tree: Tree, function) -> Tree:
    """`function(parameter, leaf)` where `tree` has a leaf; where a partition masks it, the parameter."""

    def one(leaf, p):
        return p if isinstance(leaf, MaskedNode) else function(p, leaf).astype(p.dtype)

    return jax.tree.map(one, tree, params, is_leaf=lambda x: isinstance(x, MaskedNode))
