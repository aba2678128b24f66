"""How near pictures are to true ones: PSNR and SSIM, each the mean over pictures of each picture's own.

Pictures are floats [B, H, W, C] in 0..1, masks booleans [B]. The logarithm of a mean error is not the mean of
logarithms: the NeRF papers report the latter, and so does `psnr`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.metrics.mean import Mean

_K1, _K2 = 0.01, 0.03  # of Wang et al. 2004, section III-C


def psnr(pictures: jax.Array, truth: jax.Array, mask: jax.Array | None = None) -> Mean:
    """-10 log10 of each picture's mean squared error, in decibels; infinite for one that is exact."""
    _same(pictures, truth)
    error = jnp.square(pictures - truth).mean((1, 2, 3))
    return Mean.of(-10 * jnp.log10(error), mask)


def ssim(
    pictures: jax.Array, truth: jax.Array, mask: jax.Array | None = None, window: int = 11, sigma: float = 1.5
) -> Mean:
    """Structural similarity of Wang et al. 2004, eq. 13, over windows that lie within the picture; mean over channels.

    Raises UsageError for pictures smaller than the window.
    """
    _same(pictures, truth)
    if min(pictures.shape[1:3]) < window:
        raise UsageError(f'ssim: pictures {pictures.shape[1:3]} are smaller than its window of {window}')
    weights = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / sigma) ** 2)
    weights = tuple((weights / weights.sum()).tolist())

    # Variances do not change with the origin; from the middle grey their two parts cancel less.
    x, y = pictures - 0.5, truth - 0.5
    moments = _filter(_filter(jnp.stack((x, y, x * x, y * y, x * y)), weights, 2), weights, 3)
    mu_x, mu_y = moments[:2]
    var_x, var_y, both = moments[2] - mu_x**2, moments[3] - mu_y**2, moments[4] - mu_x * mu_y
    mu_x, mu_y = mu_x + 0.5, mu_y + 0.5
    light = (2 * mu_x * mu_y + _K1**2) / (mu_x**2 + mu_y**2 + _K1**2)
    return Mean.of((light * (2 * both + _K2**2) / (var_x + var_y + _K2**2)).mean((1, 2, 3)), mask)


def _filter(image: jax.Array, weights: tuple[float, ...], axis: int) -> jax.Array:
    """The weighted mean of neighbours along `axis`, where all are there. Sums: TPUs convolve in bfloat16."""
    length = image.shape[axis] - len(weights) + 1
    return sum(
        (w * jax.lax.slice_in_dim(image, i, i + length, axis=axis) for i, w in enumerate(weights)),
        start=jnp.zeros((), image.dtype),
    )


def _same(pictures: jax.Array, truth: jax.Array) -> None:
    if pictures.ndim != 4 or pictures.shape != truth.shape:
        raise UsageError(f'pictures and truth are [B, H, W, C] both, not {pictures.shape} and {truth.shape}')
