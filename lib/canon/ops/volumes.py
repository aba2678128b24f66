"""Pictures of voxels by casting rays, front to back: through a transfer function, as a maximum, an X-ray, a surface.

Levoy 1988; Drebin, Carpenter & Hanrahan 1988; Max 1995. A volume [X, Y, Z] has its values at the vertices of a grid
that spans the box [low, high] of the world, the first and the last on its walls; in between it is trilinear. Values
are interpolated first and looked up in the transfer function then. The light is gathered by `volume_rendering`, as
that of networks is. Everything is differentiable in the volume and in the transfer function.

Rays are origins and ways [.., 3], and near and far [..] as `rays.intersect_box` gives them: each has `count` even
intervals, asked in their middles, so that a ray's length within the box is always covered exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.ops import grids, surfaces
from canon.ops import volume_rendering as vr

Shade = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # points [.., N, 3] -> densities [.., N], colours [.., N, C]


class Beam(NamedTuple):
    """Rays, and where on them the box is: origins, ways [.., 3]; near, far [..] in lengths of ways."""

    origins: jax.Array
    ways: jax.Array
    near: jax.Array
    far: jax.Array


# --- a volume and its transfer function ---------------------------------------------------------------------------


def sample(volume: jax.Array, points: jax.Array, low=-1.0, high=1.0) -> jax.Array:
    """volume [X, Y, Z] at points [.., 3], trilinear -> [..]; beyond the box [low, high] as on its wall."""
    if volume.ndim != 3:
        raise UsageError(f'a volume is [X, Y, Z], not {volume.shape}')
    low, high = jnp.asarray(low, points.dtype), jnp.asarray(high, points.dtype)
    return grids.interpolate_trilinear(volume[..., None], (points - low) / (high - low))[..., 0]


def gradient(volume: jax.Array, points: jax.Array, low=-1.0, high=1.0) -> jax.Array:
    """Central differences over a voxel to each side, [.., 3]: continuous, as the derivative of `sample` is not."""
    low, high = (jnp.broadcast_to(jnp.asarray(wall, points.dtype), 3) for wall in (low, high))
    voxel = jnp.diag((high - low) / np.array([n - 1 for n in volume.shape], points.dtype))
    # At a wall one of both stands on it: the difference is one-sided then.
    points = jnp.clip(points, low, high)[..., None, :]
    there, back = jnp.clip(points + voxel, low, high), jnp.clip(points - voxel, low, high)
    gap = jnp.diagonal(there - back, axis1=-2, axis2=-1)
    return (sample(volume, there, low, high) - sample(volume, back, low, high)) / gap


def transfer(table: jax.Array, values: jax.Array, low: float = 0.0, high: float = 1.0) -> jax.Array:
    """table [K, C], rows for even values from low to high, interpolated at values [..] -> [.., C]; beyond, its ends."""
    if table.ndim != 2 or len(table) < 2:
        raise UsageError(f'a transfer function is a table [K, C] of at least two rows, not {table.shape}')
    place = jnp.clip((values - low) / (high - low), 0, 1) * (len(table) - 1)
    row = jnp.minimum(place.astype(jnp.int32), len(table) - 2)
    part = (place - row)[..., None]
    return (1 - part) * table[row] + part * table[row + 1]


def extinction(opacity: jax.Array, reference: float) -> jax.Array:
    """The density of what has `opacity` in [0, 1] over a length `reference`: infinite for 1.

    exp(-density delta) = (1 - opacity)^(delta / reference), as in `volume_rendering.correct_opacity`.
    """
    clear = opacity < 1
    return jnp.where(clear, -jnp.log1p(-jnp.where(clear, opacity, 0)) / reference, jnp.inf)


def medium(
    volume: jax.Array,
    table: jax.Array,
    reference: float,
    low=-1.0,
    high=1.0,
    window: tuple[float, float] = (0.0, 1.0),
    light: jax.Array | None = None,
) -> Shade:
    """What `gather` asks: densities and colours of a volume seen through a transfer function.

    table: [K, 4], red, green, blue and the opacity over a length `reference`. window: the values of its first and last
    row. light: [3], towards it; colours are then dimmed by the angle to the gradient, to a quarter at the least.
    """

    def shade(points):
        seen = transfer(table, sample(volume, points, low, high), *window)
        colours = seen[..., :3]
        if light is not None:
            slope = gradient(volume, points, low, high)
            size = jnp.sqrt((slope * slope).sum(-1) + 1e-12)
            colours = colours * (0.25 + 0.75 * jnp.abs((slope * light).sum(-1)) / size)[..., None]
        return extinction(seen[..., 3], reference), colours

    return shade


def total_variation(volume: jax.Array, width: float = 1e-2) -> jax.Array:
    """The mean over voxels of |gradient|, in values from voxel to voxel: Rudin, Osher & Fatemi 1992. A scalar.

    As sqrt(|gradient|^2 + width^2) - width, which is smooth where nothing changes.
    """
    x, y, z = (jnp.diff(volume, axis=axis) for axis in range(3))
    square = x[:, :-1, :-1] ** 2 + y[:-1, :, :-1] ** 2 + z[:-1, :-1] ** 2
    return (jnp.sqrt(square + width**2) - width).mean()


# --- what rays see ------------------------------------------------------------------------------------------------


def gather(
    shade: Shade, beam: Beam, count: int, stop: float | None = None, block: int = 16, background=None
) -> vr.Rendered:
    """Emission and absorption along rays, composited front to back in `count` intervals.

    Args:
      stop: None asks for all intervals at once, which is differentiable. A number ends when no ray lets more of its
        light through than that: `block` intervals at a time, shapes static. What is left out changes colours by at
        most `stop` times the largest colour; it has no gradient in reverse mode.
      background: as of `volume_rendering.composite`.
    """
    _check(count, block)
    if stop is not None:
        return _until(shade, beam, count, stop, min(block, count), background)
    t, delta = _middles(beam, count, jnp.arange(count))
    density, colours = shade(_points(beam, t))
    return vr.accumulate_along_rays(vr.weights(density, delta), colours, t, background)


def _until(shade, beam: Beam, count: int, stop: float, block: int, background) -> vr.Rendered:
    """`gather` in blocks: sums over blocks, each weighed by what those before it let through."""
    blocks = -(-count // block)

    def piece(number, thick):
        index = number * block + jnp.arange(block)
        t, delta = _middles(beam, count, index)
        density, colours = shade(_points(beam, t))
        delta = jnp.where(index < count, delta, 0)  # behind the last interval
        shares = vr.weights(density, delta) * jnp.exp(-thick)[..., None]
        return vr.accumulate_along_rays(shares, colours, t), thick + vr.optical_depths(density, delta).sum(-1)

    def body(state):
        number, thick, seen, shares = state
        new, thick = piece(number, thick)
        shares = jax.lax.dynamic_update_slice_in_dim(shares, new.weights, number * block, -1)
        return number + 1, thick, jax.tree.map(jnp.add, seen, new[:3]), shares

    shape = jax.eval_shape(piece, 0, beam.near)[0]
    nothing = tuple(jnp.zeros(x.shape, x.dtype) for x in shape[:3])
    shares = jnp.zeros((*beam.near.shape, blocks * block), shape.weights.dtype)
    thick = jnp.where(beam.far > beam.near, 0, jnp.inf).astype(shape.weights.dtype)  # rays that miss let no one wait
    _, _, (colour, depth, opacity), shares = jax.lax.while_loop(
        lambda state: (state[0] < blocks) & (jnp.exp(-state[1]) > stop).any(), body, (0, thick, nothing, shares)
    )
    if background is not None:
        colour = vr.over(colour, opacity, background)
    return vr.Rendered(colour, depth, opacity, shares[..., :count])


def maximum(volume: jax.Array, beam: Beam, count: int, low=-1.0, high=1.0) -> tuple[jax.Array, jax.Array]:
    """(the largest value on a ray [..], its distance t [..]): maximum intensity projection, of `count` samples."""
    _check(count)
    t, _ = _middles(beam, count, jnp.arange(count))
    values = sample(volume, _points(beam, t), low, high)
    where = values.argmax(-1)[..., None]
    return jnp.take_along_axis(values, where, -1)[..., 0], jnp.take_along_axis(t, where, -1)[..., 0]


def line_integral(volume: jax.Array, beam: Beam, count: int, low=-1.0, high=1.0) -> jax.Array:
    """The integral of a volume along rays [..], in the world's lengths: what an X-ray is weakened by."""
    _check(count)
    t, delta = _middles(beam, count, jnp.arange(count))
    return (sample(volume, _points(beam, t), low, high) * delta).sum(-1)


def transmitted(integral: jax.Array) -> jax.Array:
    """The share of the light that comes through: Beer and Lambert, I / I_0 = exp(-integral of mu)."""
    return jnp.exp(-integral)


class Surface(NamedTuple):
    """t [..], hit [..] as of `surfaces.Crossing`; normals [.., 3], of length 1, towards the eye; 0 where nothing is."""

    t: jax.Array
    hit: jax.Array
    normals: jax.Array


def iso_surface(
    volume: jax.Array, level: jax.Array | float, beam: Beam, count: int, low=-1.0, high=1.0, secant: int = 8
) -> Surface:
    """Where rays first meet the surface volume = level, from either side; differentiable in volume and level."""
    level = jnp.asarray(level, volume.dtype)

    def above(params, points):
        return sample(params[0], points, low, high) - params[1]

    found = surfaces.find_first_crossing(above, (volume, level), *beam, count, secant, either=True)
    points = beam.origins + found.t[..., None] * beam.ways
    slope = gradient(volume, points, low, high)
    square = (slope * slope).sum(-1, keepdims=True)
    known = found.hit[..., None] & (square > 0)
    normals = jnp.where(known, slope / jnp.sqrt(jnp.where(known, square, 1)), 0)
    away = (normals * beam.ways).sum(-1, keepdims=True) > 0
    return Surface(found.t, found.hit, jnp.where(away, -normals, normals))


def phong(
    normals: jax.Array,
    ways: jax.Array,
    light: jax.Array | None = None,
    colour=(1.0, 1.0, 1.0),
    ambient: float = 0.15,
    diffuse: float = 0.75,
    specular: float = 0.25,
    shininess: float = 20.0,
) -> jax.Array:
    """Light [.., 3] of surfaces with unit normals [.., 3] seen along ways [.., 3]: Phong 1975. specular=0 is Lambert's.

    I = (ambient + diffuse (n l)+) colour + specular (r v)+^shininess; light: [3], towards it; None is at the eye.
    """
    eye = -ways / jnp.linalg.norm(ways, axis=-1, keepdims=True)
    way = eye if light is None else jnp.broadcast_to(light / jnp.linalg.norm(light), normals.shape).astype(eye.dtype)
    facing = (normals * way).sum(-1, keepdims=True)
    mirrored = 2 * facing * normals - way
    along = jnp.maximum((mirrored * eye).sum(-1, keepdims=True), 0)
    shine = jnp.where((facing > 0) & (along > 0), jnp.where(along > 0, along, 1) ** shininess, 0)
    return (ambient + diffuse * jnp.maximum(facing, 0)) * jnp.asarray(colour, normals.dtype) + specular * shine


# --- where a volume is asked --------------------------------------------------------------------------------------


def _middles(beam: Beam, count: int, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances t [.., N] in the middles of the intervals `index` [N] of `count`, and their lengths in the world."""
    step = (beam.far - beam.near)[..., None] / count
    t = beam.near[..., None] + step * (index + 0.5).astype(step.dtype)
    length = step * jnp.linalg.norm(beam.ways, axis=-1, keepdims=True)
    return t, jnp.broadcast_to(length, t.shape)


def _points(beam: Beam, t: jax.Array) -> jax.Array:
    return beam.origins[..., None, :] + t[..., None] * beam.ways[..., None, :]


def _check(count: int, block: int = 1) -> None:
    if count < 1 or block < 1:
        raise UsageError(f'a ray has count={count} >= 1 intervals, block={block} >= 1 at a time')
