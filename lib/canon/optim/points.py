"""Points that may differ from the parameters of the loop: where the gradient is taken, and what is evaluated."""

from __future__ import annotations

import jax
from optax import MaskedNode

from canon.optim.average import EmaState, LateAverageState
from canon.optim.core import Tree, times, wide
from canon.optim.descent import LookaheadState, NesterovState
from canon.optim.schedule_free import ScheduleFreeState, recover_average
from canon.optim.state import find_states
from canon.optim.valley import ValleyState


def lookahead_params(params: Tree, opt_state) -> Tree:
    """Returns where to take the gradient: theta + momentum v for `nesterov(stored='theta')`, else the parameters."""
    for state in find_states(opt_state, LookaheadState):
        params = _overlay(params, state.velocity, lambda p, v, s=state: wide(p) + times(s.momentum, wide(v)))
    return params


def eval_params(params: Tree, opt_state) -> Tree:
    """Returns what to evaluate: an average (`ema`, `average_on_plateau`, `average_in_valley`, `schedule_free`),
    theta of `nesterov`, or the parameters.

    It is decided per leaf: in a partition one group may have an average and another none.
    """
    for state in find_states(opt_state, ScheduleFreeState):
        params = _overlay(params, state.z, lambda y, z, s=state: recover_average(y, z, s.interpolation))
    # The loop's parameters are phi = theta + momentum v.
    for state in find_states(opt_state, NesterovState):
        params = _overlay(params, state.velocity, lambda p, v, s=state: wide(p) - times(s.momentum, wide(v)))
    for kind in (EmaState, LateAverageState, ValleyState):  # last, since an average takes precedence
        for state in find_states(opt_state, kind):
            params = _overlay(params, state.average, lambda p, average: average)
    return params


def _overlay(params: Tree, tree: Tree, function) -> Tree:
    """Returns `function(parameter, leaf)` for each leaf of `tree`, and the parameter where a partition masks it."""

    def overlay_leaf(leaf, p):
        return p if isinstance(leaf, MaskedNode) else function(p, leaf).astype(p.dtype)

    return jax.tree.map(overlay_leaf, tree, params, is_leaf=lambda x: isinstance(x, MaskedNode))
