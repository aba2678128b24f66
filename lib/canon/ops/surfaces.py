"""Where rays first meet a surface that is a level of a function, and how that place moves with the function.

Niemeyer, Mescheder, Oechsle & Geiger 2020, "Differentiable volumetric rendering" (DVR): a ray is asked at even
distances until the function changes its sign, the secant method refines the place, and its gradient needs none of
that: f(p) = 0 at p = o + t w says that d t = -(df/dp w)^-1 df, whatever found t.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

Function = Callable[[Any, jax.Array], jax.Array]  # (params, points [.., 3]) -> [..]; negative where space is free


class Crossing(NamedTuple):
    """t [..]: the distance to the surface, in lengths of `ways`; `far` where none was met.

    hit [..]: whether one was. inside [..]: whether the ray begins within what is not free.
    """

    t: jax.Array
    hit: jax.Array
    inside: jax.Array


def first_crossing(
    function: Function,
    params: Any,
    origins: jax.Array,
    ways: jax.Array,
    near: jax.Array,
    far: jax.Array,
    count: int,
    secant: int = 8,
    either: bool = False,
    block: int = 16,
    least: float = 1e-3,
) -> Crossing:
    """Where rays [.., 3] first come from f < 0 to f >= 0 between near and far [..]: DVR, section 3.3.

    Differentiable, in reverse mode, in params, origins and ways by the implicit function theorem; in nothing that
    `function` closes over. Nothing is kept of the search, so memory does not grow with `count`.

    Args:
      function: (params, points [.., 3]) -> [..]; for points [.., N, 3] too.
      count: even intervals of a ray. What lies within one and leaves it again is not seen.
      secant: refinements of the interval that was found: by regula falsi with Illinois' halving, which lets no end
        stay; the authors' code is without that.
      either: the way out of what is not free is a crossing, too, as for rays that begin inside. Without it, and as in
        the authors' code, a ray that begins inside hits nothing.
      block: intervals that all rays are asked at together; when all have hit, no more are.
      least: |df/dp w| is not taken to be smaller, so that a surface that is only grazed throws no step far.
    """
    if count < 1 or block < 1 or secant < 0:
        raise UsageError(
            f'a surface is found in count={count} >= 1 intervals, block={block} >= 1, secant={secant} >= 0'
        )
    near, far = (jnp.broadcast_to(jnp.asarray(t, origins.dtype), origins.shape[:-1]) for t in (near, far))
    search = (count, secant, either, min(block, count))
    return Crossing(*_crossing(function, search, least, params, origins, ways, near, far))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _crossing(function, search, least, params, origins, ways, near, far):
    return _found(function, search, params, origins, ways, near, far)


def _forward(function, search, least, params, origins, ways, near, far):
    found = _found(function, search, params, origins, ways, near, far)
    return found, (params, origins, ways, found)


def _backward(function, search, least, kept, change):
    """DVR, eq. 7: d t / d theta = -(df/dp w)^-1 df/d theta, and so for the ray, through p = o + t w."""
    params, origins, ways, (t, hit, _) = kept

    def level(params, origins, ways, t):
        return function(params, _at(origins, ways, t))

    _, slope = jax.jvp(lambda t: level(params, origins, ways, t), (t,), (jnp.ones_like(t),))
    slope = jnp.where(jnp.abs(slope) < least, jnp.where(slope < 0, -least, least), slope)
    _, pull = jax.vjp(lambda *given: level(*given, t), params, origins, ways)
    return *pull(jnp.where(hit, -change[0] / slope, 0)), jnp.zeros_like(t), jnp.zeros_like(t)


_crossing.defvjp(_forward, _backward)


def _found(function, search, params, origins, ways, near, far):
    """(t, hit, inside), without a gradient."""
    count, secant, either, block = search

    def values(t):
        return function(params, _at(origins, ways, t))

    start = values(near)
    inside = start >= 0
    hopeless = (near >= far) | (inside & (not either))
    blank = (near, far, start, start)  # the interval about the crossing, and the function at its ends

    def body(state):
        number, done, bracket, last = state
        # Behind the last interval all are empty: what is asked there is the end of the ray again.
        index = jnp.minimum(number * block + jnp.arange(block + 1), count)
        t = near[..., None] + (far - near)[..., None] * (index / count).astype(near.dtype)
        here = jnp.concatenate((last[..., None], _several(function, params, origins, ways, t[..., 1:])), -1)
        crossed = (here[..., :-1] < 0) & (here[..., 1:] >= 0)
        if either:
            crossed |= (here[..., :-1] >= 0) & (here[..., 1:] < 0)
        first, news = crossed.argmax(-1)[..., None], crossed.any(-1) & ~done
        pick = lambda x, i: jnp.take_along_axis(x, i, -1)[..., 0]  # noqa: E731
        new = pick(t, first), pick(t, first + 1), pick(here, first), pick(here, first + 1)
        bracket = tuple(jnp.where(news, a, b) for a, b in zip(new, bracket, strict=True))
        return number + 1, done | news, bracket, here[..., -1]

    state = jax.lax.while_loop(
        lambda state: (state[0] * block < count) & ~state[1].all(), body, (0, hopeless, blank, start)
    )
    hit = state[1] & ~hopeless
    t = _refined(values, state[2], secant)
    return jnp.where(hit, t, far), hit, inside


def _refined(values, bracket, steps: int) -> jax.Array:
    """The root within (low, high, f(low), f(high)): regula falsi; an end that stays twice counts for half."""

    def guess(low, high, f_low, f_high):
        gap = f_high - f_low
        return low - f_low * (high - low) / jnp.where(gap == 0, 1, gap)

    def body(_, state):
        low, high, f_low, f_high, side = state
        t = guess(low, high, f_low, f_high)
        f = values(t)
        lower = (f < 0) == (f_low < 0)
        f_low, f_high = (
            jnp.where(lower, f, jnp.where(side == -1, f_low / 2, f_low)),
            jnp.where(lower, jnp.where(side == 1, f_high / 2, f_high), f),
        )
        return (
            jnp.where(lower, t, low),
            jnp.where(lower, high, t),
            f_low,
            f_high,
            jnp.where(lower, 1, -1).astype(side.dtype),
        )

    state = (*bracket, jnp.zeros(bracket[0].shape, jnp.int32))
    low, high, f_low, f_high, _ = jax.lax.fori_loop(0, steps, body, state)
    return guess(low, high, f_low, f_high)


def _at(origins, ways, t):
    return origins + t[..., None] * ways


def _several(function, params, origins, ways, t):
    return function(params, origins[..., None, :] + t[..., None] * ways[..., None, :])
