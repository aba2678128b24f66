"""From a field to what rays see of it: where it is asked, coarse and then fine or where something is, and composed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from canon import named
from canon.camera import Camera
from canon.errors import UsageError
from canon.models.nerf import Samples
from canon.ops import frequencies as fq
from canon.ops import occupancy, rays
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
    background: 'white', 'black', or 'random' in training; None is 'random' for pictures with alpha, 'black' for others.
    density_noise: the deviation of what is added before the activation in training.
    jitter: stratified and random samples in training, or always the same.
    ndc: forward-facing captures. contract: scenes without bounds about the origin (`rays.contract`), the field within
      -2..2; samples are evenly spaced up to twice the camera's distance from the origin, and in disparity beyond.
    box: (low, high), the walls that near and far are cut to, beside the views' own.
    cells: with an occupancy grid of so many along an axis of the box; rays are asked once, in the `coarse` intervals
      that lie in cells with an optical depth above `thin`. budget: such samples a ray in the mean of a batch; rays for
      which there is no room are left out of the step. Each step a sixteenth of the cells is looked at anew, and the
      others keep what they had; a cell forgets by `decay` where less is found.
    """

    coarse: int = 64
    fine: int = 128
    shared: bool = False
    casting: str = 'points'
    background: str | None = 'white'
    density_noise: named.NonNegative = 0.0
    jitter: bool = True
    ndc: bool = False
    contract: bool = False
    box: tuple[float, float] | None = None
    cells: Annotated[int, named.Range(0, 1024)] = 0
    budget: Annotated[int, named.Range(0)] = 16
    thin: named.NonNegative = 0.01
    decay: named.Probability = 0.95

    def __post_init__(self):
        if self.casting not in CASTING:
            raise UsageError(f'render.casting={self.casting!r} is none of {", ".join(map(repr, CASTING))}')
        if self.coarse < 4 or self.fine < 0:
            raise UsageError(f'render.coarse={self.coarse} must be at least 4, render.fine={self.fine} at least 0')
        if self.cells and (self.fine or self.casting != 'intervals' or not self.box):
            raise UsageError("render.cells wants render.casting='intervals', render.fine=0 and a render.box")
        if self.cells and not (self.cells % 4 == 0 and self.budget > 0):
            raise UsageError(f'render.cells={self.cells} is wanted in fours, and render.budget={self.budget} above 0')
        if self.casting == 'cones' and (self.ndc or self.contract):
            raise UsageError(
                "render.casting='cones' has no Gaussians for render.ndc or render.contract, which bend rays and space; "
                "set them to False, or render.casting='intervals'"
            )
        if self.ndc and self.contract:
            raise UsageError('render.ndc and render.contract are two ways to bound a scene; set one of them to False')
        if self.contract and self.box and (self.box[0] > -2 or self.box[1] < 2):
            raise UsageError(f'render.contract wants render.box=(-2, 2) or larger, or none, not {tuple(self.box)}')
        if self.background is not None:
            vr.background_colour(None, self.background, ())

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks' parameters, by level."""
        if not self.fine:
            return ('coarse',)
        return ('coarse', 'coarse' if self.shared else 'fine')


def batch_camera(camera: Camera, batch: Any) -> Camera:
    """The camera of a batch's rays: `camera`, or one for each ray where the batch has 'intrinsics' [B, 4 or 8]."""
    return camera.with_intrinsics(batch['intrinsics']) if 'intrinsics' in batch else camera


def cast(camera: Camera, how: Rendering, near: float, far: float, batch: Any) -> Rays:
    """The rays of a batch with 'pose' [B, 3, 4] and 'at' [B, 2], and perhaps 'time' and 'progress' [B]."""
    camera = batch_camera(camera, batch)
    origins, ways = rays.generate_rays(camera, batch['pose'], batch['at'])
    radii = rays.cone_radii(camera, batch['at'])
    if how.ndc:
        origins, ways = rays.to_ndc(camera, origins, ways)
    start, stop = jnp.full(len(ways), near, ways.dtype), jnp.full(len(ways), far, ways.dtype)
    if how.box and not how.contract:  # a contracted space has no outside
        enter, leave = rays.intersect_box(origins, ways, *how.box)
        start, stop = jnp.clip(enter, near, far), jnp.clip(leave, near, far)
    times = batch['time'][:, None] if 'time' in batch else None
    progress = batch['progress'].max() if 'progress' in batch else None
    return Rays(origins, ways, start, stop, radii, times, progress)


class Seen(NamedTuple):
    """What one level gives, on black: colour [B, 3], distance and opacity [B], weights and density [B, N].

    whole [B]: the rays of which all was asked; None for all of them.
    """

    colour: jax.Array
    distance: jax.Array
    opacity: jax.Array
    weights: jax.Array
    density: jax.Array
    whole: jax.Array | None = None


def render(
    field: Any, params: Any, cone: Rays, how: Rendering, key: jax.Array | None, grid: jax.Array | None = None
) -> list[Seen]:
    """What rays see, coarse and then fine, on black. Without a key nothing is random: for pictures.

    grid: densities [cells, cells, cells] where `how` has an occupancy grid; then there is one level.
    """
    keys = [None] * 4 if key is None else [*jax.random.split(key, 4)]
    where = keys[:2] if how.jitter else [None] * 2
    apart = how.casting == 'points'
    knee = 2 * jnp.linalg.norm(cone.origins, axis=-1) if how.contract else None
    t = rays.sample_stratified(where[0], cone.near, cone.far, how.coarse + (not apart), knee=knee)
    if how.cells:
        return [_seen_where_occupied(field, params[how.networks[0]], cone, how, t, keys[2], grid)]
    found = [_seen(field, params[how.networks[0]], cone, how, t, keys[2])]
    if how.fine:
        shares = found[0].weights
        if apart:
            middles = (t[..., 1:] + t[..., :-1]) / 2
            drawn = rays.sample_pdf(where[1], middles, shares[..., 1:-1], how.fine)
            t = jnp.sort(jnp.concatenate((t, drawn), -1), -1)
        else:
            t = rays.sample_pdf(where[1], t, rays.blur_weights(shares), how.fine + 1, stratify=True, padding=0.0)
        found.append(_seen(field, params[how.networks[1]], cone, how, t, keys[3]))
    return found


def _seen(field, params, cone: Rays, how: Rendering, t: jax.Array, key) -> Seen:
    """One level: t are points [B, N], or edges [B, N + 1]."""
    variance = None
    if how.casting == 'points':
        delta, middles = vr.intervals(t, cone.ways), t
    else:
        delta, middles = _between(t, cone)
    points = _points(cone, middles, how)
    if how.casting == 'cones':
        points, variance = fq.conical_frustum_gaussians(t, cone.origins, cone.ways, cone.radii)
    at = Samples(points, cone.ways, variance, cone.times, cone.progress)
    density, colours = _asked(field, params, at, how, key)
    return _composed(density, colours, delta, middles)


def _points(cone: Rays, t: jax.Array, how: Rendering) -> jax.Array:
    """Returns the points [B, N, 3] at which the field is queried, at distances t [B, N]."""
    points = cone.origins[:, None] + t[..., None] * cone.ways[:, None]
    return rays.contract(points) if how.contract else points


def _between(t: jax.Array, cone: Rays) -> tuple[jax.Array, jax.Array]:
    """Lengths and middles [B, N] of the intervals between edges [B, N + 1]."""
    return vr.intervals(t, cone.ways, 0.0)[..., :-1], (t[..., 1:] + t[..., :-1]) / 2


def _asked(field, params, at: Samples, how: Rendering, key) -> tuple[jax.Array, jax.Array]:
    """Densities and colours of the samples, the former with noise where there is a key."""
    raw, colours = field.apply({'params': params}, at)
    if how.density_noise and key is not None:
        raw = raw + how.density_noise * jax.random.normal(key, raw.shape)
    return field.density(raw), colours


def _composed(density, colours, delta, middles, whole=None) -> Seen:
    shown = vr.accumulate_along_rays(vr.weights(density, delta), colours, middles)
    return Seen(shown.colour, shown.distance, shown.opacity, shown.weights, density, whole)


# --- what is empty is not asked -----------------------------------------------------------------------------------


def _seen_where_occupied(field, params, cone: Rays, how: Rendering, t: jax.Array, key, grid) -> Seen:
    """One level of intervals between edges t [B, N + 1], asked in the grid's occupied cells only.

    In training (with a key) what fits into the budget, so that a step has one size; for pictures all, in rounds.
    """
    delta, middles = _between(t, cone)
    shape = middles.shape
    points = _points(cone, middles, how)
    mask = occupancy.lookup_density(grid, _in_box(points, how)) >= _least(grid, how, delta)
    mask = mask & (delta > 0)  # rays that miss the box
    size = max(shape[0] * min(how.budget, shape[1]), shape[1])

    def ask(index):
        ray = jnp.minimum(index // shape[1], shape[0] - 1)
        place = jnp.minimum(index, shape[0] * shape[1] - 1)
        times = None if cone.times is None else cone.times[ray]
        at = Samples(points.reshape(-1, 1, 3)[place], cone.ways[ray], None, times, cone.progress)
        density, colours = _asked(field, params, at, how, key)
        return jnp.concatenate((density, colours[:, 0]), -1)  # [size, 4]

    if key is not None:
        index, whole = occupancy.pack(mask, size)
        found = occupancy.unpack(ask(index), index, shape)
        return _composed(found[..., 0], found[..., 1:], delta, middles, whole)
    index, _ = occupancy.pack(mask, -(-shape[0] * shape[1] // size) * size)

    def body(state):
        number, found = state
        now = jax.lax.dynamic_slice_in_dim(index, number * size, size)
        return number + 1, found + occupancy.unpack(ask(now), now, shape)

    empty = jnp.zeros((*shape, 4), middles.dtype)
    _, found = jax.lax.while_loop(lambda state: state[0] * size < mask.sum(), body, (0, empty))
    return _composed(found[..., 0], found[..., 1:], delta, middles)


def _in_box(points: jax.Array, how: Rendering) -> jax.Array:
    assert how.box
    return (points - how.box[0]) / (how.box[1] - how.box[0])


def _least(grid: jax.Array, how: Rendering, delta: jax.Array) -> jax.Array:
    """The density of what counts as occupied, for intervals of the mean length of a ray through the box.

    Intervals of a contracted scene grow with distance, so each counts by its own length delta [B, N].
    """
    assert how.box
    if how.contract:
        return occupancy.occupancy_threshold(grid, how.thin / jnp.maximum(delta, 1e-6))
    return occupancy.occupancy_threshold(grid, how.thin * how.coarse / (how.box[1] - how.box[0]))


_PARTS = 16  # steps in which all cells have been looked at, in the mean


def new_grid(how: Rendering) -> jax.Array:
    """All cells alike, so all of them occupied: nothing is left out before it has been seen to be empty."""
    return jnp.ones((how.cells,) * 3)


def looked_at(field, params, how: Rendering, grid: jax.Array, timed: bool, key: jax.Array) -> jax.Array:
    """The grid after a sixteenth of its cells was asked, each at a random place (and time)."""
    assert how.box
    inner, clock = jax.random.split(key)
    which, places = occupancy.sample_cells(inner, how.cells, _PARTS)
    points = how.box[0] + places * (how.box[1] - how.box[0])
    times = jax.random.uniform(clock, (len(points), 1)) if timed else None
    at = Samples(points[:, None], jnp.zeros_like(points).at[:, 2].set(1), None, times)
    raw, _ = field.apply({'params': jax.lax.stop_gradient(params[how.networks[0]])}, at)
    return occupancy.update_cells(grid, which, field.density(raw)[:, 0], how.decay)


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
            raise UsageError(f'microbatches of {rows} rays do not fill a batch of {size}; set loss.microbatch')

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
