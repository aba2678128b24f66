"""Bilinear upsampling of maps [B, h, w, C], as the transposed convolution with a fixed kernel of FCN (section 3.3).

Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", 2015. The kernel is separable, so
both axes are interpolated by one small matrix each: hundreds of times less work than a transposed convolution with a
kernel [k, k, C, C] that is zero outside its diagonal.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError


def bilinear_kernel(size: int) -> np.ndarray:
    """Returns the weights [size, size] of bilinear interpolation by a factor of (size + 1) // 2, float32.

    w(i, j) = f(i) f(j) with f(i) = 1 - |i - c| / factor, where the centre c is factor - 1 for odd sizes and
    factor - 1/2 for even ones (`upsample_filt` in the authors' code).

    >>> bilinear_kernel(4)[0]
    array([0.0625, 0.1875, 0.1875, 0.0625], dtype=float32)
    """
    weights = _filter(size)
    return np.outer(weights, weights).astype(np.float32)


def bilinear_deconv_kernel(size: int, channels: int) -> np.ndarray:
    """Returns the kernel [size, size, channels, channels] of `ops.conv_transpose` that interpolates each channel."""
    return bilinear_kernel(size)[..., None, None] * np.eye(channels, dtype=np.float32)


def bilinear_deconv(
    images: jax.Array, size: int, stride: int, crop: int | Sequence[int] = 0, shape: Sequence[int] | None = None
) -> jax.Array:
    """Transposed convolution with the bilinear kernel, channel by channel, cropped: [B, h, w, C] -> [B, H, W, C].

    Equals `conv_transpose(images, bilinear_deconv_kernel(size, C), stride)` without the first `crop` rows and columns,
    cut to `shape`. Like it, it fades towards zero at the border, beyond which there is nothing to interpolate with.

    Args:
      images: [B, h, w, C].
      size: of the kernel, twice the stride (or one less) to interpolate by the stride.
      stride: H grows with it.
      crop: rows and columns to leave out at the top and left.
      shape: (H, W); None takes all that remain.

    Raises:
      UsageError: the upsampled map does not cover `shape`.
    """
    offsets = (crop, crop) if isinstance(crop, int) else tuple(crop)
    # Sizes of the uncropped result, that of a transposed convolution without padding.
    full = tuple((n - 1) * stride + size for n in images.shape[1:3])
    rows, columns = shape or tuple(n - c for n, c in zip(full, offsets, strict=True))
    if rows + offsets[0] > full[0] or columns + offsets[1] > full[1]:
        raise UsageError(
            f'a map {images.shape[1:3]} upsampled by {stride} has {full[0]}x{full[1]} pixels, fewer than the '
            f'{rows}x{columns} asked for after a crop of {offsets[0]}, {offsets[1]}'
        )
    # Crop and cut are in the matrices, so that no pixel is computed in vain.
    matrices = [
        _deconv_matrix(n, size, stride, c, length)
        for n, c, length in zip(images.shape[1:3], offsets, (rows, columns), strict=True)
    ]
    return _apply(images, *matrices)


def upsample_bilinear(images: jax.Array, factor: int, shape: Sequence[int], centre: float | None = None) -> jax.Array:
    """Interpolates bilinearly by a factor, [B, h, w, C] -> [B, H, W, C], repeating the map beyond its border.

    Pixel p of the result lies at (p - centre) / factor of the map. A result of any shape is taken: with H below
    h factor, it is cut at the bottom, as after strides that round up.

    Args:
      images: [B, h, w, C].
      factor: pixels of the result between two places of the map.
      shape: (H, W).
      centre: pixel of the result that the first place lies at; None is (factor - 1) / 2, half-pixel centres
        (`align_corners=False`).
    """
    first = (factor - 1) / 2 if centre is None else centre
    matrices = [_clamped_matrix(n, factor, first, length) for n, length in zip(images.shape[1:3], shape, strict=True)]
    return _apply(images, *matrices)


def upsample_nearest(images: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Enlarges [B, h, w, C] to [B, H, W, C] by repeating pixels: row p is row floor(p h / H) of the map.

    For H = 2 h and H = 2 h - 1 this repeats every row twice and cuts the last one, as feature pyramids need after
    strides that round up. The gradient of a pixel is the sum over its copies.

    >>> upsample_nearest(np.arange(3).reshape(1, 3, 1, 1), (5, 1))[0, :, 0, 0]
    Array([0, 0, 1, 1, 2], dtype=int32)

    Args:
      images: [B, h, w, C].
      shape: (H, W), of any size.
    """
    x = jnp.asarray(images)
    for axis, length in zip((1, 2), shape, strict=True):
        n = x.shape[axis]
        if length in (2 * n, 2 * n - 1):  # a broadcast, which compilers fuse; a gather is a pass over memory of its own
            x = jax.lax.slice_in_dim(jnp.repeat(x, 2, axis), 0, length, axis=axis)
        elif length != n:
            x = jnp.take(x, np.arange(length) * n // length, axis)
    return x


def _filter(size: int) -> np.ndarray:
    factor = (size + 1) // 2
    # An odd kernel has a pixel in the middle, an even one has its middle between two.
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


def _deconv_matrix(n: int, size: int, stride: int, crop: int, length: int) -> np.ndarray:
    """Returns the matrix [length, n] whose entry (p, i) is the filter's tap p + crop - i stride."""
    taps = np.arange(length)[:, None] + crop - stride * np.arange(n)
    weights = np.append(_filter(size), 0.0)  # the last one, for taps outside of the filter
    return weights[np.where((taps >= 0) & (taps < size), taps, size)].astype(np.float32)


def _clamped_matrix(n: int, factor: int, centre: float, length: int) -> np.ndarray:
    # Clipped to the map, so that pixels beyond its first and last place repeat it instead of fading to zero.
    places = np.clip((np.arange(length) - centre) / factor, 0, n - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(n)), 0).astype(np.float32)


def _apply(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Applies [H, h] and [W, w] to the two axes; columns first, while there are fewer rows."""
    # Constants of the program: shapes are static. Full precision, since a TPU would round scores to bfloat16 first.
    x = jnp.einsum('bhwc,Ww->bhWc', images, columns.astype(images.dtype), precision='highest')
    return jnp.einsum('bhwc,Hh->bHwc', x, rows.astype(images.dtype), precision='highest')
