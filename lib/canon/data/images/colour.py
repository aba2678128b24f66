"""Colour operations on images [H, W, C] of 1 or 3 channels: uint8 in 0..255 or float32 in 0..1, as is the result.

The formulas are Pillow's, whose enhancements AutoAugment and its successors used, without its intermediate rounding:
uint8 is rounded once, to the nearest. A factor of 1 changes nothing, 0 gives the degenerate image, more than 1
extrapolates away from it; values that leave the range are clipped. Amounts and thresholds are in levels of 0..255,
for floats too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
from PIL import Image, ImageOps

from canon.errors import CanonError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with black: factor * image."""
    return _map_levels(image, lambda x: factor * x)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the mean luma, rounded to a whole level as Pillow rounds it."""
    scale = 1 if image.dtype == np.uint8 else 255
    mean = np.floor(compute_luma(image).mean(dtype=np.float64) * scale + 0.5)
    return _map_levels(image, lambda x: mean + factor * (x - mean))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the grey image."""
    return _blend(compute_luma(image), image, factor)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the image smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the outermost pixels stay."""
    smooth = image.astype(np.float32)
    # A smaller image has no inner pixels.
    if min(image.shape[:2]) >= 3:
        kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
        filtered = cv2.filter2D(smooth, -1, kernel).reshape(image.shape)
        smooth[1:-1, 1:-1] = filtered[1:-1, 1:-1]
    return _blend(smooth, image, factor)


def shift_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turns the hue of HSV by the share `turn` of its circle. Grey images stay."""
    return adjust_hsv(image, turn)


def adjust_hsv(image: np.ndarray, turn: float = 0, saturation: float = 1, value: float = 1) -> np.ndarray:
    """Turns the hue of HSV by the share `turn` of its circle, and multiplies its saturation and its value.

    Both are clipped to their ranges. Grey images have a value alone.
    """
    if count_channels(image) == 1:
        return image if value == 1 else adjust_brightness(image, value)
    unit = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    hsv = cv2.cvtColor(np.ascontiguousarray(unit), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    if saturation != 1:
        hsv[..., 1] = np.minimum(hsv[..., 1] * np.float32(saturation), 1)
    if value != 1:
        hsv[..., 2] = np.minimum(hsv[..., 2] * np.float32(value), 1)
    return _from_levels(image, 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def to_grey(image: np.ndarray) -> np.ndarray:
    """Puts the luma into every channel."""
    return adjust_saturation(image, 0)


def add_levels(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Adds `levels` [C], or one number, to every pixel."""
    return _map_levels(image, lambda x: x + np.asarray(levels, np.float32))


def solarise(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the levels that are at least `threshold`."""
    return _map_levels(image, lambda x: np.where(x < threshold, x, 255 - x))


def posterise(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest `bits` of the 8 bits of each level and sets the others to 0."""
    step = 1 << (8 - bits)
    return _map_levels(image, lambda x: np.floor(x / step) * step)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel linearly, its darkest level to 0 and its brightest to 255."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    unit = (image - low) / np.where(high > low, high - low, 1)
    # A channel of one level has no contrast to stretch.
    return np.where(high > low, _from_levels(image, 255 * unit), image)


def equalise(image: np.ndarray) -> np.ndarray:
    """Equalises each channel's histogram, by Pillow; floats are rounded to 256 levels first."""
    levels = image if image.dtype == np.uint8 else np.rint(255 * image).astype(np.uint8)
    flat = [np.asarray(ImageOps.equalize(Image.fromarray(np.ascontiguousarray(c)))) for c in np.moveaxis(levels, 2, 0)]
    return _from_levels(image, np.stack(flat, -1).astype(np.float32))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs with a Gaussian cut off at four standard deviations; the border is mirrored, not repeated."""
    # OpenCV's own choice of a size for uint8 cuts off at three deviations.
    size = 2 * int(np.ceil(4 * sigma)) + 1
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def compute_luma(image: np.ndarray) -> np.ndarray:
    """Returns the luma, float32 [H, W, 1] in the image's units; whole levels for uint8."""
    if count_channels(image) == 1:
        return image.astype(np.float32)
    weighted = (image @ LUMA)[..., None]
    return np.floor(weighted + 0.5) if image.dtype == np.uint8 else weighted


def count_channels(image: np.ndarray) -> int:
    """Returns 1 or 3; raises CanonError for any other number of channels."""
    if image.shape[2] not in (1, 3):
        raise CanonError(f'colours are changed in images of 1 or 3 channels; this one has {image.shape[2]}')
    return image.shape[2]


def fit_colour_axes(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Computes the principal axes of the colours of all pixels, for `transforms.pca_noise`.

    Args:
      images: uint8 [H, W, 3] of any sizes; each pixel counts once.

    Returns:
      standard deviations [3] along the axes, in levels, largest first; and axes [3, 3], whose columns are unit vectors.
      axes @ diag(deviations**2) @ axes.T is the covariance matrix.
    """
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        count, total, products = count + len(pixels), total + pixels.sum(0), products + pixels.T @ pixels
    if not count:
        raise CanonError('fit_colour_axes: there are no images')
    mean = total / count
    # One pass over images that need not fit into memory; float64 keeps the difference of two large numbers exact
    # enough.
    variances, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Rounding may make the least variance negative, as that of grey images.
    return np.sqrt(np.maximum(variances[::-1], 0)), axes[:, ::-1]


def _blend(degenerate: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    # Floats are in 0..1, and `_from_levels` takes levels.
    full = 1 if image.dtype == np.uint8 else 255
    return _from_levels(image, full * (degenerate + factor * (image - degenerate)))


def _map_levels(image: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Applies a function of levels [..., C] to each pixel; for uint8 by a table of 256 levels, which is faster."""
    if image.dtype != np.uint8:
        return _from_levels(image, function(255 * image))
    table = np.broadcast_to(function(np.arange(256, dtype=np.float32)[:, None]), (256, image.shape[2]))
    table = np.ascontiguousarray(_from_levels(image, table)[None])
    return cv2.LUT(image, table if image.shape[2] > 1 else table[..., 0]).reshape(image.shape)


def _from_levels(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Converts float levels of 0..255 to the type and range of `image`, clipped."""
    if image.dtype == np.uint8:
        return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return np.clip(levels * np.float32(1 / 255), 0, 1).astype(np.float32)
