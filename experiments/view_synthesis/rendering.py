"""From a field to what rays see of it: where it is asked, coarse and then fine, and the compositor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.camera import Camera
from canon.errors import UsageError
from canon.models.nerf import Samples
from canon.ops import frequencies as fq
from canon.ops import rays
from canon.ops import volume_rendering as vr

CASTING = ('points', 'intervals', 'cones')


class Rays(NamedTuple):
    """origins, ways [B, 3]; near, far [B] in t; radii [B, 1] of cones at t = 1; times [B, 1]; progress: see Samples."""

    origins: jax.Array
    ways: jax.Array
    near: jax.Array
    far: jax.Array
    radii: jax.Array
    times: jax.Array | None = None
    progress: jax.Array | None = None


@dataclass(frozen=True)
class Rendering:
    """config.render: how a field is asked.

    coarse, fine: samples of a ray; fine=0 renders once. shared: one network for both, else two.
    casting: 'points' as NeRF has it (the fine network is asked at the coarse places, too), 'intervals' by their middles
      with the fine ones in place of the coarse, 'cones' likewise with mip-NeRF's Gaussians.
    background: 'white', 'black', or 'random' in training. density_noise: the deviation of what is added before the
      activation in training. jitter: stratified and random samples in training, or always the same.
    ndc: forward-facing captures. box: (low, high), the walls that near and far are cut to, beside the views' own.
    """

    coarse: int = 64
    fine: int = 128
    shared: bool = False
    casting: str = 'points'
    background: str = 'white'
    density_noise: float = 0.0
    jitter: bool = True
    ndc: bool = False
    box: tuple[float, float] | None = None

    def __post_init__(self):
        if self.casting not in CASTING:
            raise UsageError(f'render.casting={self.casting!r} is none of {", ".join(map(repr, CASTING))}')
        if self.coarse < 4 or self.fine < 0:
            raise UsageError(f'render.coarse={self.coarse} must be at least 4, render.fine={self.fine} at least 0')
        vr.background(None, self.background, ())

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks' parameters, by level."""
        if not self.fine:
            return ('coarse',)
        return ('coarse', 'coarse' if self.shared else 'fine')


def cast(camera: Camera, how: Rendering, near: float, far: float, batch: Any) -> Rays:
    """The rays of a batch with 'pose' [B, 3, 4] and 'at' [B, 2], and perhaps 'time' and 'progress' [B]."""
    origins, ways = rays.through(camera, batch['pose'], batch['at'])
    radii = rays.radii(camera, batch['at'])
    if how.ndc:
        origins, ways = rays.ndc(camera, origins, ways)
    start, stop = jnp.full(len(ways), near, ways.dtype), jnp.full(len(ways), far, ways.dtype)
    if how.box:
        enter, leave = rays.box_interval(origins, ways, *how.box)
        start, stop = jnp.clip(enter, near, far), jnp.clip(leave, near, far)
    times = batch['time'][:, None] if 'time' in batch else None
    progress = batch['progress'].max() if 'progress' in batch else None
    return Rays(origins, ways, start, stop, radii, times, progress)


def render(field: Any, params: Any, cone: Rays, how: Rendering, key: jax.Array | None) -> list[vr.Rendered]:
    """What rays see, coarse and then fine, on black. Without a key nothing is random: for pictures."""
    keys = [None] * 4 if key is None else [*jax.random.split(key, 4)]
    where = keys[:2] if how.jitter else [None] * 2
    apart = how.casting == 'points'
    t = rays.stratified(where[0], cone.near, cone.far, how.coarse + (not apart))
    found = [_seen(field, params[how.networks[0]], cone, how, t, keys[2])]
    if how.fine:
        shares = found[0].weights
        if apart:
            middles = (t[..., 1:] + t[..., :-1]) / 2
            drawn = rays.resample(where[1], middles, shares[..., 1:-1], how.fine)
            t = jnp.sort(jnp.concatenate((t, drawn), -1), -1)
        else:
            t = rays.resample(where[1], t, rays.blurred(shares), how.fine + 1, even=True, padding=0.0)
        found.append(_seen(field, params[how.networks[1]], cone, how, t, keys[3]))
    return found


def _seen(field, params, cone: Rays, how: Rendering, t: jax.Array, key) -> vr.Rendered:
    """One level: t are points [B, N], or edges [B, N + 1]."""
    variance = None
    if how.casting == 'points':
        delta, middles = vr.intervals(t, cone.ways), t
    else:
        delta, middles = vr.intervals(t, cone.ways, 0.0)[..., :-1], (t[..., 1:] + t[..., :-1]) / 2
    points = cone.origins[:, None] + middles[..., None] * cone.ways[:, None]
    if how.casting == 'cones':
        points, variance = fq.conical_frustums(t, cone.origins, cone.ways, cone.radii)
    at = Samples(points, cone.ways, variance, cone.times, cone.progress)
    raw, colours = field.apply({'params': params}, at)
    if how.density_noise and key is not None:
        raw = raw + how.density_noise * jax.random.normal(key, raw.shape)
    return vr.composite(vr.weights(field.density(raw), delta), colours, middles)


def in_parts(total: Callable[..., tuple[jax.Array, Any]], rows: int) -> Callable[..., tuple[jax.Array, Any]]:
    """`total(params, batch, key) -> (sum, sums)` over microbatches of so many rows, one after the other.

    The gradient by params of the first sum is taken within each, so that what a microbatch holds stays in the
    processor's cache: a run's `accumulate` as a keyword of the loss. Nothing else is differentiated. Microbatch i has
    the key fold_in(key, i), so its draws are other ones than those without microbatches.
    """

    def cut(x):
        return x.reshape(rows, len(x) // rows, *x.shape[1:]).swapaxes(0, 1)

    def scanned(function, params, batch, key):
        size = len(jax.tree.leaves(batch)[0])
        if size % rows:
            raise UsageError(f'microbatches of {rows} rays do not fill a batch of {size}; set render.microbatch')

        def body(sums, item):
            index, part = item
            one = function(params, part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, one), None

        parts = jax.tree.map(cut, batch)
        first = jax.tree.map(lambda x: x[0], parts)
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, params, first, key))
        return jax.lax.scan(body, empty, (jnp.arange(size // rows), parts))[0]

    @jax.custom_vjp
    def summed(params, batch, key):
        return scanned(total, params, batch, key)

    def forward(params, batch, key):
        value, grads = scanned(jax.value_and_grad(total, has_aux=True), params, batch, key)
        return value, grads

    def backward(grads, change):
        return jax.tree.map(lambda g: g * change[0], grads), None, None

    summed.defvjp(forward, backward)
    return summed
