"""Encodings of positions and directions, with which a small network can represent fine detail."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def positional_encoding(x: jax.Array, levels: int, mask: jax.Array | None = None) -> jax.Array:
    """Encodes x as [x, sin x, cos x, sin 2x, cos 2x, ..., cos 2^(L-1) x]: Mildenhall et al. 2020 (NeRF), eq. 4.

    As in the authors' code, and unlike eq. 4, x itself is included and the factor pi is left out.

    Args:
      x: [..., D].
      levels: the number of frequencies L; 0 returns x.
      mask: [D (1 + 2 L)], multiplies the encoding (`frequency_mask`).

    Returns:
      [..., D (1 + 2 L)].
    """
    if levels < 0:
        raise UsageError(f'positional encoding needs levels >= 0, got {levels}')
    parts = [x]
    # Each level is evaluated directly: a double-angle recurrence would accumulate rounding errors over ten levels.
    for level in range(levels):
        parts += [jnp.sin(x * 2.0**level), jnp.cos(x * 2.0**level)]
    encoded = jnp.concatenate(parts, -1)
    return encoded if mask is None else encoded * mask


def frequency_mask(progress: jax.Array | float, levels: int, dimensions: int = 3) -> jax.Array:
    """Returns the mask of FreeNeRF, float32 [D (1 + 2 L)]: Yang, Pavone & Wang 2023, section 3.2.

    progress: the fraction in [0, 1] of the regularised steps that have passed (90 % of the run in the paper). At 0 only
    x is visible; bands then appear one after another, the lowest first; at 1 all are visible.
    """
    bands = 1 + 2 * levels
    # Band b fades in while the progress runs from (b - 1) / bands to b / bands; band 0, x itself, is always visible.
    visible = jnp.minimum(bands * jnp.asarray(progress, jnp.float32) + 1, bands)
    return jnp.repeat(jnp.clip(visible - jnp.arange(bands), 0, 1), dimensions, total_repeat_length=bands * dimensions)


def conical_frustum_gaussians(
    edges: jax.Array, origins: jax.Array, directions: jax.Array, radii: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Approximates conical frustums by Gaussians with the same moments: Barron et al. 2021 (mip-NeRF), eq. 7, 8, 16.

    Args:
      edges: distances [..., N + 1] at which the cones are cut.
      origins, directions: rays [..., 3].
      radii: cone radii [..., 1] at t = 1 (`rays.cone_radii`).

    Returns:
      (means, variances), each [..., N, 3]; the variances are the diagonals of the covariances.
    """
    start, stop = edges[..., :-1], edges[..., 1:]
    middle, half = (start + stop) / 2, (stop - start) / 2
    # The paper's numerically stable form: differences of powers of t cancel for short, distant intervals.
    scale = 3 * middle**2 + half**2
    t = middle + 2 * middle * half**2 / scale
    along = half**2 / 3 - 4 / 15 * half**4 * (12 * middle**2 - half**2) / scale**2
    across = radii**2 * (middle**2 / 4 + 5 / 12 * half**2 - 4 / 15 * half**4 / scale)
    square = directions**2
    # The diagonal of I - d d^T / |d|^2: the disc of the cone is perpendicular to the ray.
    perpendicular = 1 - square / square.sum(-1, keepdims=True)
    variance = along[..., None] * square[..., None, :] + across[..., None] * perpendicular[..., None, :]
    return origins[..., None, :] + t[..., None] * directions[..., None, :], variance


def integrated_positional_encoding(mean: jax.Array, variance: jax.Array, levels: int) -> jax.Array:
    """Returns the expected sines and cosines of Gaussians [..., D], [..., 2 D L]: mip-NeRF, eq. 13 and 14.

    E sin(2^l x) = sin(2^l mean) exp(-4^l variance / 2), so frequencies finer than the Gaussian vanish.
    """
    scales = 2.0 ** jnp.arange(levels, dtype=mean.dtype)
    shape = (*mean.shape[:-1], -1)
    phase = (mean[..., None, :] * scales[:, None]).reshape(shape)
    # exp underflows to 0 for high frequencies of wide Gaussians, which is the intended limit.
    damping = jnp.exp(-0.5 * (variance[..., None, :] * scales[:, None] ** 2).reshape(shape))
    return jnp.concatenate((jnp.sin(phase) * damping, jnp.cos(phase) * damping), -1)


def spherical_harmonics(directions: jax.Array) -> jax.Array:
    """Evaluates the 16 real spherical harmonics of degrees 0 to 3 at unit vectors [..., 3]; returns [..., 16].

    Orthonormal on the sphere, in the order and with the signs of instant-ngp, which calls this "degree 4".
    """
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    xx, yy, zz = x * x, y * y, z * z
    # Functions that differ only in the axis share a factor, so 10 serve all 16.
    c = [
        np.sqrt(n / np.pi) for n in (1 / 4, 3 / 4, 15 / 4, 5 / 16, 15 / 16, 35 / 32, 105 / 4, 21 / 32, 7 / 16, 105 / 16)
    ]
    return jnp.stack(
        (
            jnp.full_like(x, c[0]),
            -c[1] * y,
            c[1] * z,
            -c[1] * x,
            c[2] * x * y,
            -c[2] * y * z,
            c[3] * (3 * zz - 1),
            -c[2] * x * z,
            c[4] * (xx - yy),
            c[5] * y * (yy - 3 * xx),
            c[6] * x * y * z,
            c[7] * y * (1 - 5 * zz),
            c[8] * z * (5 * zz - 3),
            c[7] * x * (1 - 5 * zz),
            c[9] * z * (xx - yy),
            c[5] * x * (3 * yy - xx),
        ),
        -1,
    )
