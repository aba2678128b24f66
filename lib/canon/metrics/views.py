"""Image quality: PSNR and SSIM, averaged over pictures.

Pictures are floats [B, H, W, C] in [0, 1], masks booleans [B]. `psnr` is the mean over pictures of each picture's PSNR,
as the NeRF papers report it, and not the PSNR of the mean error.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.metrics.mean import Mean

_K1, _K2 = 0.01, 0.03  # of Wang et al. 2004, section III-C


def psnr(pictures: jax.Array, truth: jax.Array, mask: jax.Array | None = None) -> Mean:
    """Computes the peak signal-to-noise ratio, -10 log10 of each picture's mean squared error, in decibels.

    Args:
      pictures: [B, H, W, C] in [0, 1].
      truth: of the same shape. A picture that equals it has an infinite PSNR.
      mask: bool [B], the pictures that count; None for all.
    """
    _check_shapes(pictures, truth)
    # One error per picture: the mean of logarithms is not the logarithm of the mean.
    error = jnp.square(pictures - truth).mean((1, 2, 3))
    return Mean.of(-10 * jnp.log10(error), mask)


def ssim(
    pictures: jax.Array, truth: jax.Array, mask: jax.Array | None = None, window: int = 11, sigma: float = 1.5
) -> Mean:
    """Computes the structural similarity of Wang et al. 2004, eq. 13, averaged over windows and channels.

    Windows lie within the picture.

    Args:
      pictures: [B, H, W, C] in [0, 1].
      truth: of the same shape.
      mask: bool [B], the pictures that count; None for all.
      window: side of the windows in pixels.
      sigma: of their Gaussian weights.

    Raises:
      UsageError: pictures are smaller than the window.
    """
    _check_shapes(pictures, truth)
    if min(pictures.shape[1:3]) < window:
        raise UsageError(f'ssim: pictures of {pictures.shape[1:3]} are smaller than the window of {window}')
    weights = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / sigma) ** 2)
    weights = tuple((weights / weights.sum()).tolist())

    # Variances are shift-invariant; measured from middle grey, E x^2 - (E x)^2 loses fewer digits to cancellation.
    x, y = pictures - 0.5, truth - 0.5
    moments = _filter(_filter(jnp.stack((x, y, x * x, y * y, x * y)), weights, 2), weights, 3)
    mu_x, mu_y = moments[:2]
    var_x, var_y, covariance = moments[2] - mu_x**2, moments[3] - mu_y**2, moments[4] - mu_x * mu_y
    mu_x, mu_y = mu_x + 0.5, mu_y + 0.5
    luminance = (2 * mu_x * mu_y + _K1**2) / (mu_x**2 + mu_y**2 + _K1**2)
    return Mean.of((luminance * (2 * covariance + _K2**2) / (var_x + var_y + _K2**2)).mean((1, 2, 3)), mask)


def _filter(image: jax.Array, weights: tuple[float, ...], axis: int) -> jax.Array:
    """Returns weighted means of neighbours along `axis`, without padding."""
    # A sum of slices instead of a convolution, which TPUs compute in bfloat16 by default.
    length = image.shape[axis] - len(weights) + 1
    return sum(
        (w * jax.lax.slice_in_dim(image, i, i + length, axis=axis) for i, w in enumerate(weights)),
        start=jnp.zeros((), image.dtype),
    )


def _check_shapes(pictures: jax.Array, truth: jax.Array) -> None:
    if pictures.ndim != 4 or pictures.shape != truth.shape:
        raise UsageError(f'pictures and truth must both be [B, H, W, C], got {pictures.shape} and {truth.shape}')
