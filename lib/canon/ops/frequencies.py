"""A place or a direction as many numbers, so that a small network can tell near ones apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def frequencies(x: jax.Array, levels: int, mask: jax.Array | None = None) -> jax.Array:
    """[x, sin x, cos x, sin 2x, cos 2x, .., cos 2^(L-1) x], [.., D (1 + 2 L)]: Mildenhall et al. 2020 (NeRF), eq. 4.

    As their code has it, and unlike eq. 4: with x itself, and without the factor pi. mask [D (1 + 2 L)]: `free_mask`.
    """
    if levels < 0:
        raise UsageError(f'{levels} levels of frequencies are fewer than none')
    parts = [x]
    for level in range(levels):
        parts += [jnp.sin(x * 2.0**level), jnp.cos(x * 2.0**level)]
    encoded = jnp.concatenate(parts, -1)
    return encoded if mask is None else encoded * mask


def free_mask(progress: jax.Array | float, levels: int, dimensions: int = 3) -> jax.Array:
    """What `frequencies` shows at first, float32 [D (1 + 2 L)]: Yang, Pavone & Wang 2023 (FreeNeRF), section 3.2.

    progress: in [0, 1], the share gone of the steps of the regularisation (90 % of the run in the paper). At 0 there
    is x alone; then the bands come in one after the other, from the lowest; at 1 all are there.
    """
    groups = 1 + 2 * levels
    shown = jnp.minimum(groups * jnp.asarray(progress, jnp.float32) + 1, groups)
    return jnp.repeat(jnp.clip(shown - jnp.arange(groups), 0, 1), dimensions, total_repeat_length=groups * dimensions)


def conical_frustums(
    edges: jax.Array, origins: jax.Array, ways: jax.Array, radii: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(mean, variance), each [.., N, 3], of the pieces between edges [.., N + 1] of the cones about rays.

    The Gaussian with the frustum's moments, the diagonal of its covariance: Barron et al. 2021 (mip-NeRF), eq. 7, 8
    and 16, in the stable form. origins, ways [.., 3]; radii [.., 1] at t = 1 (`rays.radii`).
    """
    start, stop = edges[..., :-1], edges[..., 1:]
    middle, half = (start + stop) / 2, (stop - start) / 2
    scale = 3 * middle**2 + half**2
    t = middle + 2 * middle * half**2 / scale
    along = half**2 / 3 - 4 / 15 * half**4 * (12 * middle**2 - half**2) / scale**2
    across = radii**2 * (middle**2 / 4 + 5 / 12 * half**2 - 4 / 15 * half**4 / scale)
    square = ways**2
    flat = 1 - square / square.sum(-1, keepdims=True)
    variance = along[..., None] * square[..., None, :] + across[..., None] * flat[..., None, :]
    return origins[..., None, :] + t[..., None] * ways[..., None, :], variance


def integrated(mean: jax.Array, variance: jax.Array, levels: int) -> jax.Array:
    """The expected sines and cosines of a Gaussian, [.., 2 D L]: mip-NeRF, eq. 13 and 14.

    E sin(2^l x) = sin(2^l mean) exp(-4^l variance / 2): frequencies finer than the Gaussian vanish.
    """
    scales = 2.0 ** jnp.arange(levels, dtype=mean.dtype)
    shape = (*mean.shape[:-1], -1)
    phase = (mean[..., None, :] * scales[:, None]).reshape(shape)
    damping = jnp.exp(-0.5 * (variance[..., None, :] * scales[:, None] ** 2).reshape(shape))
    return jnp.concatenate((jnp.sin(phase) * damping, jnp.cos(phase) * damping), -1)


def spherical_harmonics(ways: jax.Array) -> jax.Array:
    """The 16 real harmonics of degrees 0 to 3 ("degree 4" in instant-ngp) of unit vectors [.., 3] -> [.., 16].

    Orthonormal over the sphere; order and signs as in instant-ngp.
    """
    x, y, z = ways[..., 0], ways[..., 1], ways[..., 2]
    xx, yy, zz = x * x, y * y, z * z
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
