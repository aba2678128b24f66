"""Ray casting of voxel volumes: emission and absorption, maximum intensity projection, X-rays and iso-surfaces.

Levoy 1988; Drebin, Carpenter & Hanrahan 1988; Max 1995. The values of a volume [X, Y, Z] lie at the vertices of a grid
over the box [low, high], the first and the last on its walls, and are trilinear in between. Values are interpolated
before they are looked up in the transfer function (post-classification). Light is accumulated by
`canon.ops.volume_rendering`, as for neural fields. Everything is differentiable with respect to the volume and the
transfer function.

Rays are sampled at the midpoints of `count` even intervals of their segment within the box (`RaySegments`), so the
intervals cover that segment exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.ops import grids, rays, surfaces
from canon.ops import volume_rendering as vr

# Points [..., N, 3] -> densities [..., N] and colours [..., N, C].
Shader = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class RaySegments(NamedTuple):
    """Rays and the part of each that is sampled.

    Attributes:
      origins, directions: [..., 3], directions of any length.
      near, far: [...], ends of the segment in units of the direction; near = far for rays that miss.
    """

    origins: jax.Array
    directions: jax.Array
    near: jax.Array
    far: jax.Array


def clip_rays(origins: jax.Array, directions: jax.Array, low=-1.0, high=1.0) -> RaySegments:
    """Returns the segments of rays [..., 3] within the box [low, high]."""
    return RaySegments(origins, directions, *rays.intersect_box(origins, directions, low, high))


# --- a volume and its transfer function ---------------------------------------------------------------------------


def sample_volume(volume: jax.Array, points: jax.Array, low=-1.0, high=1.0) -> jax.Array:
    """Interpolates a volume [X, Y, Z] at points [..., 3] -> [...]; beyond the box it continues the values on the wall.

    Args:
      volume: [X, Y, Z].
      points: in world units.
      low, high: corners of the box, numbers or [3].
    """
    if volume.ndim != 3:
        raise UsageError(f'expected a volume [X, Y, Z], got shape {volume.shape}')
    low, high = jnp.asarray(low, points.dtype), jnp.asarray(high, points.dtype)
    return grids.interpolate_trilinear(volume[..., None], (points - low) / (high - low))[..., 0]


def estimate_gradient(volume: jax.Array, points: jax.Array, low=-1.0, high=1.0) -> jax.Array:
    """Returns central differences [..., 3] over one voxel to each side, as Levoy 1988 has them.

    Unlike the derivative of `sample_volume` they are continuous.
    """
    low, high = (jnp.broadcast_to(jnp.asarray(wall, points.dtype), 3) for wall in (low, high))
    voxel = jnp.diag((high - low) / np.array([n - 1 for n in volume.shape], points.dtype))
    # Clipping both ends makes the difference one-sided at a wall.
    points = jnp.clip(points, low, high)[..., None, :]
    above, below = jnp.clip(points + voxel, low, high), jnp.clip(points - voxel, low, high)
    gap = jnp.diagonal(above - below, axis1=-2, axis2=-1)
    return (sample_volume(volume, above, low, high) - sample_volume(volume, below, low, high)) / gap


def apply_transfer_function(table: jax.Array, values: jax.Array, low: float = 0.0, high: float = 1.0) -> jax.Array:
    """Looks values [...] up in a table [K, C] with linear interpolation -> [..., C].

    Args:
      table: its rows stand for even values from low to high.
      values: those outside [low, high] get the first or the last row.
      low, high: the values of the first and of the last row.
    """
    if table.ndim != 2 or len(table) < 2:
        raise UsageError(f'expected a transfer function [K, C] with at least two rows, got shape {table.shape}')
    position = jnp.clip((values - low) / (high - low), 0, 1) * (len(table) - 1)
    # The last value belongs to the last pair of rows, with a fraction of 1: row + 1 stays within the table.
    row = jnp.minimum(position.astype(jnp.int32), len(table) - 2)
    fraction = (position - row)[..., None]
    return (1 - fraction) * table[row] + fraction * table[row + 1]


def opacity_to_density(opacity: jax.Array, reference: float) -> jax.Array:
    """Returns the density that has `opacity` in [0, 1] over a length `reference`; infinite for opacity 1.

    exp(-density delta) = (1 - opacity)^(delta / reference), as in `volume_rendering.correct_opacity`.
    """
    transparent = opacity < 1
    # The inner `where` keeps the derivative of log1p finite where the opacity is 1.
    return jnp.where(transparent, -jnp.log1p(-jnp.where(transparent, opacity, 0)) / reference, jnp.inf)


def make_shader(
    volume: jax.Array,
    table: jax.Array,
    reference: float,
    low=-1.0,
    high=1.0,
    window: tuple[float, float] = (0.0, 1.0),
    light: jax.Array | None = None,
) -> Shader:
    """Returns the densities and colours of a volume under a transfer function, for `render_emission`.

    Args:
      volume: [X, Y, Z].
      table: [K, 4], red, green, blue and the opacity over a length `reference`.
      reference: in world units.
      low, high: corners of the volume's box.
      window: the values of the table's first and last row.
      light: [3], towards the light. Colours are dimmed by the angle between it and the gradient, to a quarter at least;
        None leaves them as they are.
    """

    def shade(points):
        classified = apply_transfer_function(table, sample_volume(volume, points, low, high), *window)
        colours = classified[..., :3]
        if light is not None:
            gradient = estimate_gradient(volume, points, low, high)
            length = jnp.sqrt((gradient * gradient).sum(-1) + 1e-12)  # no 0 / 0 in homogeneous regions
            # Two-sided: the sign of the gradient tells which side is denser, not which one faces the light.
            colours = colours * (0.25 + 0.75 * jnp.abs((gradient * light).sum(-1)) / length)[..., None]
        return opacity_to_density(classified[..., 3], reference), colours

    return shade


def total_variation(volume: jax.Array, width: float = 1e-2) -> jax.Array:
    """Computes the mean over voxels of |gradient|, in values per voxel: Rudin, Osher & Fatemi 1992. A scalar.

    As sqrt(|gradient|^2 + width^2) - width, which is smooth where the volume is constant.
    """
    x, y, z = (jnp.diff(volume, axis=axis) for axis in range(3))
    # Forward differences, at the voxels that have a next one along all three axes.
    square = x[:, :-1, :-1] ** 2 + y[:-1, :, :-1] ** 2 + z[:-1, :-1] ** 2
    return (jnp.sqrt(square + width**2) - width).mean()


# --- ray casting --------------------------------------------------------------------------------------------------


def render_emission(
    shader: Shader, segments: RaySegments, count: int, stop: float | None = None, block: int = 16, background=None
) -> vr.Rendered:
    """Renders emission and absorption along rays, composited front to back.

    Args:
      shader: densities and colours of points, such as `make_shader` returns.
      segments: the rays.
      count: intervals per ray.
      stop: if None, all intervals are evaluated at once, which is differentiable. A number ends the rays early, once
        none has a transmittance above it: colours change by at most `stop` times the largest colour. This form has no
        gradient in reverse mode.
      block: intervals evaluated at a time if rays end early.
      background: as in `volume_rendering.accumulate_along_rays`.
    """
    _check_counts(count, block)
    if stop is not None:
        return _render_until_opaque(shader, segments, count, stop, min(block, count), background)
    t, delta = _midpoints(segments, count, jnp.arange(count))
    density, colours = shader(_points_at(segments, t))
    return vr.accumulate_along_rays(vr.weights(density, delta), colours, t, background)


def _render_until_opaque(shader, segments: RaySegments, count: int, stop: float, block: int, background):
    """Renders as `render_emission`, block by block, until the transmittance of every ray is at most `stop`."""
    blocks = -(-count // block)

    def render_block(number, depth):
        index = number * block + jnp.arange(block)
        t, delta = _midpoints(segments, count, index)
        density, colours = shader(_points_at(segments, t))
        delta = jnp.where(index < count, delta, 0)  # intervals of the last block that lie beyond the segment
        # Compositing is associative: a block counts by the transmittance of all blocks before it.
        weights = vr.weights(density, delta) * jnp.exp(-depth)[..., None]
        return vr.accumulate_along_rays(weights, colours, t), depth + vr.optical_depths(density, delta).sum(-1)

    def body(state):
        number, depth, sums, weights = state
        new, depth = render_block(number, depth)
        weights = jax.lax.dynamic_update_slice_in_dim(weights, new.weights, number * block, -1)
        return number + 1, depth, jax.tree.map(jnp.add, sums, new[:3]), weights

    shape = jax.eval_shape(render_block, 0, segments.near)[0]
    zeros = tuple(jnp.zeros(x.shape, x.dtype) for x in shape[:3])
    # Whole blocks are written; what the last one has beyond `count` is cut off below.
    weights = jnp.zeros((*segments.near.shape, blocks * block), shape.weights.dtype)
    # Rays that miss count as opaque, so that no block is evaluated for them.
    depth = jnp.where(segments.far > segments.near, 0, jnp.inf).astype(shape.weights.dtype)
    _, _, (colour, distance, opacity), weights = jax.lax.while_loop(
        lambda state: (state[0] < blocks) & (jnp.exp(-state[1]) > stop).any(), body, (0, depth, zeros, weights)
    )
    if background is not None:
        colour = vr.over(colour, opacity, background)
    return vr.Rendered(colour, distance, opacity, weights[..., :count])


def project_maximum(
    volume: jax.Array, segments: RaySegments, count: int, low=-1.0, high=1.0
) -> tuple[jax.Array, jax.Array]:
    """Projects the maximum intensity: the largest of `count` samples of each ray [...], and its distance t [...].

    Args:
      volume: [X, Y, Z].
      segments: the rays.
      count: samples per ray.
      low, high: corners of the volume's box.
    """
    _check_counts(count)
    t, _ = _midpoints(segments, count, jnp.arange(count))
    values = sample_volume(volume, _points_at(segments, t), low, high)
    # Picked by its index and not by `max`, since its distance is returned too; the gradient is that of the one sample.
    largest = values.argmax(-1)[..., None]
    return jnp.take_along_axis(values, largest, -1)[..., 0], jnp.take_along_axis(t, largest, -1)[..., 0]


def integrate_along_rays(volume: jax.Array, segments: RaySegments, count: int, low=-1.0, high=1.0) -> jax.Array:
    """Integrates a volume along rays -> [...], in world units of length: the X-ray transform.

    Args:
      volume: [X, Y, Z].
      segments: the rays.
      count: intervals per ray.
      low, high: corners of the volume's box.
    """
    _check_counts(count)
    t, delta = _midpoints(segments, count, jnp.arange(count))
    return (sample_volume(volume, _points_at(segments, t), low, high) * delta).sum(-1)


def transmittance(integral: jax.Array) -> jax.Array:
    """Returns the fraction of light that passes: I / I_0 = exp(-integral of the attenuation), the Beer-Lambert law."""
    return jnp.exp(-integral)


class SurfaceHits(NamedTuple):
    """The points at which rays meet an iso-surface.

    Attributes:
      t, hit: [...], as in `surfaces.Crossing`.
      normals: [..., 3], of length 1 and towards the eye; 0 for rays that miss.
    """

    t: jax.Array
    hit: jax.Array
    normals: jax.Array


def intersect_iso_surface(
    volume: jax.Array,
    level: jax.Array | float,
    segments: RaySegments,
    count: int,
    low=-1.0,
    high=1.0,
    secant: int = 8,
) -> SurfaceHits:
    """Finds where rays first meet the surface volume = level, from either side.

    Differentiable with respect to the volume and the level.

    Args:
      volume: [X, Y, Z].
      level: value on the surface.
      segments: the rays.
      count: intervals per ray that are searched.
      low, high: corners of the volume's box.
      secant: refinement steps.
    """
    level = jnp.asarray(level, volume.dtype)

    # Volume and level are arguments: the implicit gradient does not reach what a function closes over.
    def above_level(params, points):
        return sample_volume(params[0], points, low, high) - params[1]

    crossing = surfaces.find_first_crossing(above_level, (volume, level), *segments, count, secant, either=True)
    points = segments.origins + crossing.t[..., None] * segments.directions
    gradient = estimate_gradient(volume, points, low, high)
    square = (gradient * gradient).sum(-1, keepdims=True)
    # As in `norms.safe_norm`: the inner `where` keeps the derivative of the root finite where there is no normal.
    valid = crossing.hit[..., None] & (square > 0)
    normals = jnp.where(valid, gradient / jnp.sqrt(jnp.where(valid, square, 1)), 0)
    faces_away = (normals * segments.directions).sum(-1, keepdims=True) > 0
    return SurfaceHits(crossing.t, crossing.hit, jnp.where(faces_away, -normals, normals))


def shade_phong(
    normals: jax.Array,
    directions: jax.Array,
    light: jax.Array | None = None,
    colour=(1.0, 1.0, 1.0),
    ambient: float = 0.15,
    diffuse: float = 0.75,
    specular: float = 0.25,
    shininess: float = 20.0,
) -> jax.Array:
    """Shades by Phong's model (Phong 1975): I = (ambient + diffuse (n.l)+) colour + specular (r.v)+^shininess.

    Args:
      normals: unit normals [..., 3].
      directions: of the rays that meet the surface, [..., 3].
      light: [3], towards the light; None is at the eye.
      colour: of the surface.
      ambient, diffuse, specular: coefficients; specular=0 is Lambert's model.
      shininess: exponent of the highlight.
    """
    to_eye = -directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    to_light = to_eye
    if light is not None:
        to_light = jnp.broadcast_to(light / jnp.linalg.norm(light), normals.shape).astype(to_eye.dtype)
    cosine = (normals * to_light).sum(-1, keepdims=True)
    reflected = 2 * cosine * normals - to_light
    alignment = jnp.maximum((reflected * to_eye).sum(-1, keepdims=True), 0)
    # A power of 0 has an infinite derivative for shininess below 1, so the unused branch takes powers of 1.
    highlight = jnp.where((cosine > 0) & (alignment > 0), jnp.where(alignment > 0, alignment, 1) ** shininess, 0)
    return (ambient + diffuse * jnp.maximum(cosine, 0)) * jnp.asarray(colour, normals.dtype) + specular * highlight


# --- samples of rays ----------------------------------------------------------------------------------------------


def _midpoints(segments: RaySegments, count: int, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the midpoints t [..., N] of the intervals `index` [N] of `count`, and their lengths in world units."""
    step = (segments.far - segments.near)[..., None] / count
    t = segments.near[..., None] + step * (index + 0.5).astype(step.dtype)
    # t counts in lengths of the direction, which need not be 1.
    length = step * jnp.linalg.norm(segments.directions, axis=-1, keepdims=True)
    return t, jnp.broadcast_to(length, t.shape)


def _points_at(segments: RaySegments, t: jax.Array) -> jax.Array:
    return segments.origins[..., None, :] + t[..., None] * segments.directions[..., None, :]


def _check_counts(count: int, block: int = 1) -> None:
    if count < 1 or block < 1:
        raise UsageError(f'expected count >= 1 intervals per ray and block >= 1 at a time, got {count=}, {block=}')
