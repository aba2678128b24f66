"""Renders voxel volumes by ray casting: for learning, and as pictures in four modes.

A volume is values [X, Y, Z] in 0..1 in the box [-half, half], whose longest half side is 1. z is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from canon.data.scenes import framing, traced
from canon.errors import UsageError
from canon.named import Positive, Range, suggest
from canon.ops import map_in_chunks, rays, volumes

MODES = {'emission': 'emission and absorption', 'maximum': 'maximum', 'xray': 'X-ray', 'surface': 'lit surface'}
# Transfer functions by control points (value, red, green, blue, opacity). Of a head, skin and skull are almost
# transparent, the brain is a blue haze, and what is denser within it is warm.
HEAD = (
    (0.0, 0.2, 0.4, 0.8, 0.0),
    (0.12, 0.2, 0.4, 0.8, 0.0),
    (0.2, 0.3, 0.55, 0.9, 0.02),
    (0.26, 0.95, 0.5, 0.15, 0.03),
    (0.3, 1.0, 0.45, 0.1, 0.5),
    (0.4, 0.9, 0.85, 0.75, 0.01),
    (1.0, 0.95, 0.92, 0.85, 0.035),
)
# Of any volume, from its darkest value to its brightest.
GENERIC = (
    (0.0, 0.1, 0.1, 0.3, 0.0),
    (0.25, 0.2, 0.3, 0.6, 0.0),
    (0.45, 0.75, 0.35, 0.25, 0.04),
    (0.7, 0.95, 0.75, 0.5, 0.25),
    (1.0, 1.0, 1.0, 0.95, 0.8),
)
CHUNK = 4096  # rays that are cast at a time, where gradients are not needed
_OPAQUE = 1e-3  # transmittance at which rays of pictures end
_REFERENCE = 0.05  # length of the opacities of pictures
_ELEVATION = 0.35  # radians above the horizon from which pictures are taken
_LIGHT_OF_EMISSION = (0.4, 0.3, 0.87)
_LIGHT_OF_SURFACE = (0.6, -0.5, 0.9)
_CLAY = (0.85, 0.78, 0.68)


@dataclass(frozen=True)
class RayCastingSettings:
    """Settings of rendering a volume. In a config these are the keys of `config.render`.

    Attributes:
      mode: one of `MODES`; 'xray' and 'emission' can be learned from.
      count: intervals per ray.
      reference: length over which the opacities of the table hold; the volume's longest side is 2.
      table: control points (value, red, green, blue, opacity) of the transfer function, all in 0..1, values ascending.
      absorption: X-ray attenuation of the value 1 over the length 1.
    """

    mode: str = 'emission'
    count: Annotated[int, Range(2)] = 128
    reference: Positive = 0.05
    table: tuple[tuple[float, ...], ...] = GENERIC
    absorption: Positive = 1.0

    def __post_init__(self):
        if self.mode not in MODES:
            raise UsageError(f'render.mode={self.mode!r} must be one of {", ".join(MODES)}{suggest(self.mode, MODES)}')
        make_transfer_table(self.table, 2)


def make_transfer_table(points: Sequence[Sequence[float]], rows: int = 256) -> np.ndarray:
    """Returns a table float32 [rows, 4] of red, green, blue and opacity for even values from 0 to 1.

    Args:
      points: (value, red, green, blue, opacity), all in 0..1, with ascending values; linear in between.
      rows: of the table.
    """
    knots = np.asarray(points, float)
    if knots.ndim != 2 or knots.shape[1] != 5 or (np.diff(knots[:, 0]) < 0).any() or knots.min() < 0 or knots.max() > 1:
        raise UsageError('render.table has rows (value, red, green, blue, opacity) in 0..1, with ascending values')
    values = np.linspace(0, 1, rows)
    return np.stack([np.interp(values, knots[:, 0], knots[:, i]) for i in range(1, 5)], -1).astype(np.float32)


def table_to_points(table: np.ndarray, most: int = 9) -> tuple[tuple[float, ...], ...]:
    """Returns control points (value, red, green, blue, opacity) of a table [K, 4]: the rows at even distances."""
    rows = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).round().astype(int))
    clipped = np.clip(table, 0, 1)
    return tuple((float(row / (len(table) - 1)), *map(float, clipped[row])) for row in rows)


def cast_volume(
    values: jax.Array,
    table: jax.Array,
    half: jax.Array,
    origins: jax.Array,
    directions: jax.Array,
    settings: RayCastingSettings,
    count: int,
) -> jax.Array:
    """Renders rays through a volume, differentiably: X-ray transmittances [P, 1], or colours [P, 3] over white.

    Args:
      values: [X, Y, Z] in 0..1.
      table: transfer function [K, 4]; X-rays do not need it.
      half: half sides [3] of the box.
      origins, directions: rays [P, 3].
      settings: the mode is 'xray' or 'emission'.
      count: intervals per ray.
    """
    segments = volumes.clip_rays(origins, directions, -half, half)
    if settings.mode == 'xray':
        integral = volumes.integrate_along_rays(values, segments, count, -half, half)
        return volumes.transmittance(settings.absorption * integral)[:, None]
    shader = volumes.make_shader(values, table, settings.reference, -half, half)
    return volumes.render_emission(shader, segments, count, background=1.0).colour


# --- pictures -----------------------------------------------------------------------------------------------------


def render_picture(
    values: np.ndarray, table: np.ndarray, half: np.ndarray, mode: str, size: int, angle: float, level: float
) -> np.ndarray:
    """Renders a picture float32 [size, size, 3] of a volume, from slightly above.

    Colours are over white; the maximum and X-rays are grey.

    Args:
      values: [X, Y, Z] in 0..1.
      table: transfer function [K, 4].
      half: half sides [3] of the box.
      mode: one of `MODES`.
      size: pixels per side.
      angle: of the camera about z, radians.
      level: of the lit surface.
    """
    camera = traced.pinhole_camera(size)
    cosine, sine = np.cos(_ELEVATION), np.sin(_ELEVATION)
    eye = traced.RADIUS * np.array([np.cos(angle) * cosine, np.sin(angle) * cosine, sine])
    pose = jnp.asarray(framing.look_at(eye), jnp.float32)
    pixels = jnp.asarray(rays.pixel_grid(camera)).reshape(-1, 2)
    origins, directions = rays.generate_rays(camera, pose, pixels)
    arrays = jnp.asarray(values), jnp.asarray(table), jnp.asarray(half, jnp.float32), jnp.float32(level)
    count = 3 * max(values.shape)  # three samples per voxel along the longest side
    return np.asarray(_render_rays(*arrays, origins, directions, mode, count)).reshape(size, size, 3)


def render_orbit(
    values: np.ndarray, table: np.ndarray, half: np.ndarray, size: int, frames: int, level: float
) -> np.ndarray:
    """Renders emission and absorption on a circle about z -> float32 [frames, size, size, 3].

    Args:
      values: [X, Y, Z] in 0..1.
      table: transfer function [K, 4].
      half: half sides [3] of the box.
      size: pixels per side.
      frames: of the circle.
      level: as in `render_picture`.
    """
    angles = 2 * np.pi * np.arange(frames) / frames
    return np.stack([render_picture(values, table, half, 'emission', size, angle, level) for angle in angles])


@partial(jax.jit, static_argnames=('mode', 'count'))
def _render_rays(values, table, half, level, origins, directions, mode: str, count: int) -> jax.Array:
    def render(part):
        return render_mode(values, table, half, level, part[0], part[1], mode, count)

    return map_in_chunks(render, (origins, directions), CHUNK)


def render_mode(
    values: jax.Array,
    table: jax.Array,
    half: jax.Array,
    level: jax.Array,
    origins: jax.Array,
    directions: jax.Array,
    mode: str,
    count: int,
    clipped: tuple | None = None,
) -> jax.Array:
    """Renders rays in one of the `MODES`: colours [P, 3] over white, or grey values.

    Args:
      values: [X, Y, Z] in 0..1.
      table: transfer function [K, 4].
      half: half sides [3] of the box.
      level: of the lit surface.
      origins, directions: rays [P, 3].
      mode: one of `MODES`.
      count: intervals per ray.
      clipped: (near, far, low, high): limits of distance and of a box, outside of which nothing is shown.
    """
    segments = volumes.clip_rays(origins, directions, -half, half)
    if clipped is not None:
        near, far, low, high = clipped
        segments = volumes.clip_rays(origins, directions, jnp.maximum(-half, low), jnp.minimum(half, high))
        start = jnp.clip(segments.near, near, far)
        segments = segments._replace(near=start, far=jnp.clip(segments.far, start, far))
    if mode == 'emission':
        shader = volumes.make_shader(values, table, _REFERENCE, -half, half, light=jnp.array(_LIGHT_OF_EMISSION))
        return volumes.render_emission(shader, segments, count, _OPAQUE, background=1.0).colour
    if mode == 'maximum':
        hits = (segments.far > segments.near)[:, None]
        grey = jnp.where(hits, volumes.project_maximum(values, segments, count, -half, half)[0][:, None], 0)
        return jnp.broadcast_to(grey, directions.shape)
    if mode == 'xray':
        integral = volumes.integrate_along_rays(values, segments, count, -half, half)
        return jnp.broadcast_to(volumes.transmittance(2.0 * integral)[:, None], directions.shape)
    surface = volumes.intersect_iso_surface(values, level, segments, count, -half, half)
    lit = volumes.shade_phong(surface.normals, directions, jnp.array(_LIGHT_OF_SURFACE), _CLAY, 0.25, 0.75)
    return jnp.where(surface.hit[:, None], lit, 1.0)
