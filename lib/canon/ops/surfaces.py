"""Finds the first crossing of rays with a level set, differentiably.

Niemeyer, Mescheder, Oechsle & Geiger 2020, "Differentiable volumetric rendering" (DVR). A function f is evaluated at
even distances along each ray until it changes sign, and the secant method refines the crossing. The gradient does not
differentiate that search: f(p) = 0 at p = o + t d implies dt = -(df/dp . d)^-1 df, however t was found.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

Function = Callable[[Any, jax.Array], jax.Array]  # (params, points [..., 3]) -> [...]; negative in free space


class Crossing(NamedTuple):
    """The first crossing of each ray.

    t: distance [...] in units of the direction; `far` for rays that miss. hit: bool [...]. inside: bool [...], whether
    the ray starts where f >= 0.
    """

    t: jax.Array
    hit: jax.Array
    inside: jax.Array


def find_first_crossing(
    function: Function,
    params: Any,
    origins: jax.Array,
    directions: jax.Array,
    near: jax.Array,
    far: jax.Array,
    count: int,
    secant: int = 8,
    either: bool = False,
    block: int = 16,
    least: float = 1e-3,
) -> Crossing:
    """Finds where rays first pass from f < 0 to f >= 0: DVR, section 3.3.

    Differentiable in reverse mode with respect to params, origins and directions by the implicit function theorem, but
    not with respect to anything `function` closes over. The search stores nothing for the backward pass, so memory does
    not grow with `count`.

    Args:
      function: f(params, points), for points [..., 3] and [..., N, 3].
      params: its parameters.
      origins, directions: rays [..., 3].
      near, far: the search interval [...] of each ray.
      count: even intervals per ray. A crossing into and out of f >= 0 within one interval is missed.
      secant: refinement steps: regula falsi with the Illinois modification, which keeps either end from stagnating (the
        authors' code has plain regula falsi).
      either: also accepts the crossing from f >= 0 to f < 0, for rays that start inside. By default, as in the authors'
        code, a ray that starts inside never hits.
      block: intervals that are evaluated at once for all rays. The search ends once all rays have hit.
      least: lower bound on |df/dp . d| in the gradient, so that grazing rays do not blow up the update.

    Raises:
      UsageError: count, secant or block is out of range.
    """
    if count < 1 or block < 1 or secant < 0:
        raise UsageError(
            f'a crossing is searched in count={count} >= 1 intervals, block={block} >= 1, secant={secant} >= 0'
        )
    near, far = (jnp.broadcast_to(jnp.asarray(t, origins.dtype), origins.shape[:-1]) for t in (near, far))
    search = (count, secant, either, min(block, count))
    return Crossing(*_crossing(function, search, least, params, origins, directions, near, far))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _crossing(function, search, least, params, origins, directions, near, far):
    return _search(function, search, params, origins, directions, near, far)


def _forward(function, search, least, params, origins, directions, near, far):
    crossing = _search(function, search, params, origins, directions, near, far)
    return crossing, (params, origins, directions, crossing)


def _backward(function, search, least, residuals, cotangent):
    """Returns the gradients by DVR's eq. 7, dt / dtheta = -(df/dp . d)^-1 df/dtheta.

    Likewise for origins and directions, through p = o + t d.
    """
    params, origins, directions, (t, hit, _) = residuals

    def level(params, origins, directions, t):
        return function(params, _points_at(origins, directions, t))

    _, slope = jax.jvp(lambda t: level(params, origins, directions, t), (t,), (jnp.ones_like(t),))
    # Grazing rays have a slope near 0, and their depth an unbounded derivative.
    slope = jnp.where(jnp.abs(slope) < least, jnp.where(slope < 0, -least, least), slope)
    _, pull = jax.vjp(lambda *inputs: level(*inputs, t), params, origins, directions)
    # Rays that miss have the depth `far`, a constant; nothing is differentiated by near and far.
    return *pull(jnp.where(hit, -cotangent[0] / slope, 0)), jnp.zeros_like(t), jnp.zeros_like(t)


_crossing.defvjp(_forward, _backward)


def _search(function, search, params, origins, directions, near, far):
    """Returns (t, hit, inside), without a gradient."""
    count, secant, either, block = search

    def values(t):
        return function(params, _points_at(origins, directions, t))

    start = values(near)
    inside = start >= 0
    # Rays that miss the box have near = far; they count as done, so they do not prolong the search.
    excluded = (near >= far) | (inside & (not either))
    initial = (near, far, start, start)  # bracket (low, high, f(low), f(high)) around the crossing

    def body(state):
        number, done, bracket, last = state
        # Blocks overrun the last interval; `minimum` repeats the end of the ray there, where nothing can cross.
        index = jnp.minimum(number * block + jnp.arange(block + 1), count)
        t = near[..., None] + (far - near)[..., None] * (index / count).astype(near.dtype)
        points = origins[..., None, :] + t[..., 1:, None] * directions[..., None, :]
        f = jnp.concatenate((last[..., None], function(params, points)), -1)
        # f at the end of the last block is carried over, so a crossing between two blocks is found.
        crossed = (f[..., :-1] < 0) & (f[..., 1:] >= 0)
        if either:
            crossed |= (f[..., :-1] >= 0) & (f[..., 1:] < 0)
        first, found_now = crossed.argmax(-1)[..., None], crossed.any(-1) & ~done
        pick = lambda x, i: jnp.take_along_axis(x, i, -1)[..., 0]  # noqa: E731
        new = pick(t, first), pick(t, first + 1), pick(f, first), pick(f, first + 1)
        bracket = tuple(jnp.where(found_now, a, b) for a, b in zip(new, bracket, strict=True))
        return number + 1, done | found_now, bracket, f[..., -1]

    state = jax.lax.while_loop(
        lambda state: (state[0] * block < count) & ~state[1].all(), body, (0, excluded, initial, start)
    )
    hit = state[1] & ~excluded
    t = _refine(values, state[2], secant)
    return jnp.where(hit, t, far), hit, inside


def _refine(values, bracket, steps: int) -> jax.Array:
    """Refines the root within (low, high, f(low), f(high)) by regula falsi with the Illinois modification."""

    def guess(low, high, f_low, f_high):
        gap = f_high - f_low
        return low - f_low * (high - low) / jnp.where(gap == 0, 1, gap)

    def body(_, state):
        low, high, f_low, f_high, side = state
        t = guess(low, high, f_low, f_high)
        f = values(t)
        moves_low = (f < 0) == (f_low < 0)
        # An end that is kept twice in a row has its value halved, which pulls the next guess towards it.
        f_low, f_high = (
            jnp.where(moves_low, f, jnp.where(side == -1, f_low / 2, f_low)),
            jnp.where(moves_low, jnp.where(side == 1, f_high / 2, f_high), f),
        )
        return (
            jnp.where(moves_low, t, low),
            jnp.where(moves_low, high, t),
            f_low,
            f_high,
            jnp.where(moves_low, 1, -1).astype(side.dtype),
        )

    state = (*bracket, jnp.zeros(bracket[0].shape, jnp.int32))
    low, high, f_low, f_high, _ = jax.lax.fori_loop(0, steps, body, state)
    return guess(low, high, f_low, f_high)


def _points_at(origins, directions, t):
    return origins + t[..., None] * directions
