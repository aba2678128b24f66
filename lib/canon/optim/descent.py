"""Gradient descent, momentum and Nesterov's momentum.

The order of the links in a chain decides the rule: with the learning rate before the velocity, the rate is inside the
velocity (Sutskever et al. 2013); with the rate after it, the rate is outside (torch, optax). The two agree
as long as the rate is constant, and differ after every change of it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, chain

from canon.errors import UsageError
from canon.named import suggest
from canon.optim.constants import constant_scalar
from canon.optim.core import Tree, accept_names, per_leaf, times, to_number, wide, zeros
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule


class TraceState(NamedTuple):
    """Holds the velocity of `trace`, and its momentum."""

    HYPERPARAMETERS = ('momentum',)

    momentum: jax.Array  # of the last update
    pinned: jax.Array  # bool: `momentum` was set by `set_hyperparams` and overrides the argument
    velocity: Tree


class NesterovState(NamedTuple):
    """The parameters of the loop are the look-ahead point theta + momentum * velocity."""

    HYPERPARAMETERS = ('momentum',)

    momentum: jax.Array
    pinned: jax.Array
    velocity: Tree


class LookaheadState(NamedTuple):
    """The parameters of the loop are theta; the gradient must be taken at `lookahead_params`."""

    HYPERPARAMETERS = ('momentum',)

    momentum: jax.Array
    pinned: jax.Array
    velocity: Tree


@accept_names(accumulator_dtype='state_dtype')
def sgd(
    learning_rate: float | Schedule, momentum: float | None = None, nesterov: bool = False, state_dtype=None
) -> GradientTransformation:
    """theta <- theta - epsilon_k g; with momentum v <- momentum v + g; theta <- theta - epsilon_k v.

    Goodfellow et al. 2016, algorithm 8.1. As `optax.sgd` and `torch.optim.SGD`, with the rate outside
    of the velocity; `momentum` and `nesterov` are the rules of the papers, with the rate inside.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      momentum: share of the velocity that a step keeps; None has no velocity.
      nesterov: whether the step looks ahead along the velocity.
      state_dtype: a narrower type for the velocity, such as bfloat16.
    """
    # Without momentum no velocity is stored.
    if momentum is None:
        return scale_by_learning_rate(learning_rate)
    return chain(trace(momentum, nesterov, state_dtype), scale_by_learning_rate(learning_rate))


@accept_names(accumulator_dtype='state_dtype')
def momentum(
    learning_rate: float | Schedule, momentum: float = 0.9, *, rate_inside: bool = True, state_dtype=None
) -> GradientTransformation:
    """v <- momentum v - epsilon_k g; theta <- theta + v.

    Sutskever et al. 2013, eq. 1-2; also AlexNet's rule. A drop of the rate does not change the accumulated
    velocity. With `rate_inside=False` v <- momentum v + g; theta <- theta - epsilon_k v, which is
    `optax.sgd(momentum=)` and `torch.optim.SGD(momentum=)`: a drop scales the accumulated velocity down too. With a
    constant rate the two agree; after a drop to a tenth they differ by a few per cent.

    state_dtype: a narrower type for the velocity, such as bfloat16; the step uses the rounded velocity.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      momentum: share of the velocity that a step keeps.
      rate_inside: multiplies the gradient, and not the velocity, by the rate.
    """
    return _chain_rate(rate_inside, scale_by_learning_rate(learning_rate), trace(momentum, state_dtype=state_dtype))


@accept_names(accumulator_dtype='state_dtype')
def nesterov(
    learning_rate: float | Schedule,
    momentum: float = 0.9,
    *,
    rate_inside: bool = True,
    stored: str = 'lookahead',
    state_dtype=None,
) -> GradientTransformation:
    """v <- momentum v - epsilon_k grad f(theta + momentum v); theta <- theta + v.

    Sutskever et al. 2013, eq. 3-4. The trajectory is exact, also under a changing rate, in two forms.

    stored='lookahead': the loop's parameters are phi = theta + momentum v, where the gradient is taken anyway, so this
        works in any loop. `eval_params` returns theta. Weight decay before it decays phi, as the gradient of an L2 term
        at the look-ahead point does.
    stored='theta': the loop's parameters are theta, and the loop must take the gradient at
        `lookahead_params(params, opt_state)`, as Canon's step does. In another loop it would be plain momentum.

    optax and torch keep the rate outside and evaluate phi: `rate_inside=False` (then `eval_params` returns phi). A
    change of `momentum` acts from the next look-ahead on: each velocity decays by the momentum of the point at which
    its gradient was taken.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      momentum: share of the velocity that a step keeps.
      rate_inside: multiplies the gradient, and not the velocity, by the rate.
      stored: 'lookahead' or 'theta', the parameters of the loop.
      state_dtype: a narrower type for the velocity, such as bfloat16.
    """
    forms = {'lookahead': NesterovState, 'theta': LookaheadState}
    if stored not in forms:
        raise UsageError(f"stored={stored!r} must be 'lookahead' or 'theta'{suggest(stored, forms)}")
    if not rate_inside:
        if stored == 'theta':
            raise UsageError("stored='theta' needs rate_inside=True: theta is momentum * velocity away from phi")
        velocity = trace(momentum, nesterov=True, state_dtype=state_dtype)
    else:
        velocity = _accumulate_velocity(forms[stored], momentum, stored == 'lookahead', state_dtype)
    return _chain_rate(rate_inside, scale_by_learning_rate(learning_rate), velocity)


@accept_names(decay='momentum', accumulator_dtype='state_dtype')
def trace(momentum: float = 0.9, nesterov: bool = False, state_dtype=None) -> GradientTransformation:
    """v <- momentum v + u; u <- v, or u + momentum v with `nesterov`.

    v starts at 0. torch starts at the first gradient, which is the same without dampening. Not an average:
    the terminal velocity of a constant u is u / (1 - momentum).

    Args:
      momentum: share of the velocity that a step keeps.
      nesterov: whether the step looks ahead along the velocity.
      state_dtype: a narrower type for the velocity, such as bfloat16.
    """
    return _accumulate_velocity(TraceState, momentum, nesterov, state_dtype)


def _accumulate_velocity(state_type, momentum, nesterov: bool, state_dtype) -> GradientTransformation:
    momentum = to_number('momentum', momentum, below=1.0)

    def init(params):
        return state_type(constant_scalar(momentum), jnp.zeros((), bool), zeros(params, state_dtype))

    def update(updates, state, params=None):
        ahead = jnp.where(state.pinned, state.momentum, constant_scalar(momentum))
        decay = ahead if state_type is TraceState else state.momentum  # that of the point the gradient is of

        def kernel(u, v):
            u = wide(u)  # v is rounded to its stored type before the step uses it
            v = (times(decay, wide(v)) + u).astype(v.dtype)
            return (u + times(ahead, wide(v)) if nesterov else wide(v)), v

        updates, velocity = per_leaf(kernel, updates, state.velocity)
        return updates, state_type(ahead, state.pinned, velocity)

    return GradientTransformation(init, update)


def _chain_rate(rate_inside: bool, rate: GradientTransformation, velocity: GradientTransformation):
    # With the rate first the velocity accumulates steps; with the rate last it accumulates gradients.
    return chain(rate, velocity) if rate_inside else chain(velocity, rate)
