"""Rays through pixels, and the samples along them at which fields are evaluated."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.camera import Camera
from canon.ops import rays as ray_ops
from canon.rendering.settings import RenderSettings


class Rays(NamedTuple):
    """B rays, origin + t direction.

    Attributes:
      origins, directions: [B, 3]; directions of any length.
      near, far: [B], the limits of t.
      radii: [B, 1], cone radii at t = 1 (mip-NeRF).
      times: [B, 1] in [0, 1], for scenes that move.
      progress: [] in [0, 1], the fraction of a frequency schedule that has passed (FreeNeRF); None shows all.
    """

    origins: jax.Array
    directions: jax.Array
    near: jax.Array
    far: jax.Array
    radii: jax.Array
    times: jax.Array | None = None
    progress: jax.Array | None = None


class Samples(NamedTuple):
    """The inputs of a field: positions along rays, and what the samples of a ray share.

    Attributes:
      positions: [..., N, 3].
      directions: [..., 3], one per ray and of any length.
      covariance: [..., N, 3], diagonal, of the Gaussians about the positions; None for points.
      times: [..., 1] in [0, 1], one per ray.
      progress: [], as `Rays.progress`.
    """

    positions: jax.Array
    directions: jax.Array
    covariance: jax.Array | None = None
    times: jax.Array | None = None
    progress: jax.Array | None = None


def batch_camera(camera: Camera, batch: Any) -> Camera:
    """Returns the camera of a batch: `camera`, or one per ray if the batch holds 'intrinsics' [B, 4 or 8]."""
    return camera.with_intrinsics(batch['intrinsics']) if 'intrinsics' in batch else camera


def cast_rays(camera: Camera, settings: RenderSettings, near: float, far: float, batch: Any) -> Rays:
    """Casts the rays through the pixels of a batch.

    Args:
      camera: of all pixels, unless the batch holds intrinsics.
      settings: `ndc`, `box` and `contract` apply.
      near, far: limits of t.
      batch: 'pose' [B, 3, 4], 'pixel' [B, 2], and optionally 'time' [B] and 'intrinsics' [B, 4 or 8].
    """
    camera = batch_camera(camera, batch)
    # Rays are cast on the device: a pose and a pixel per ray are fewer bytes to send than what comes of them.
    origins, directions = ray_ops.generate_rays(camera, batch['pose'], batch['pixel'])
    radii = ray_ops.cone_radii(camera, batch['pixel'])  # XLA removes it where no cones are cast
    if settings.ndc:
        origins, directions = ray_ops.to_ndc(camera, origins, directions)
    start = jnp.full(len(directions), near, directions.dtype)
    stop = jnp.full(len(directions), far, directions.dtype)
    if settings.box and not settings.contract:  # contracted space has no outside
        enter, leave = ray_ops.intersect_box(origins, directions, *settings.box)
        start, stop = jnp.clip(enter, near, far), jnp.clip(leave, near, far)
    times = batch['time'][:, None] if 'time' in batch else None
    return Rays(origins, directions, start, stop, radii, times)
