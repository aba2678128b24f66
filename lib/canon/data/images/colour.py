"""Colours of images [H, W, C] of 1 or 3 channels, uint8 in 0..255 or float32 in 0..1; the result is of the same kind.

The formulas are Pillow's, whose enhancements the papers used, without its rounding in between: uint8 is rounded once,
to the nearest. A factor of 1 changes nothing, 0 gives the degenerate image, more than 1 goes away from it; what leaves
the range is clipped. Amounts and thresholds are in levels of 0..255, for floats too.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageOps

from canon.errors import CanonError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Degenerate: black."""
    return _levels(image, lambda x: factor * x)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Degenerate: the mean grey, as a whole level."""
    scale = 1 if image.dtype == np.uint8 else 255
    mean = np.floor(luma(image).mean(dtype=np.float64) * scale + 0.5)
    return _levels(image, lambda x: mean + factor * (x - mean))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Degenerate: the grey image."""
    return _blend(luma(image), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Degenerate: smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, the outermost pixels as they are."""
    smooth = image.astype(np.float32)
    if min(image.shape[:2]) >= 3:
        kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
        inside = cv2.filter2D(smooth, -1, kernel).reshape(image.shape)
        smooth[1:-1, 1:-1] = inside[1:-1, 1:-1]
    return _blend(smooth, image, factor)


def hue(image: np.ndarray, turn: float) -> np.ndarray:
    """The hue circle (of HSV) turned by `turn` of its circumference. Grey images stay."""
    if channels(image) == 1:
        return image
    unit = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    hsv = cv2.cvtColor(np.ascontiguousarray(unit), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    return _like(image, 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def grey(image: np.ndarray) -> np.ndarray:
    """The luma in every channel."""
    return saturation(image, 0)


def add(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`levels` [C], or one number, added to every pixel."""
    return _levels(image, lambda x: x + np.asarray(levels, np.float32))


def invert_above(image: np.ndarray, threshold: float) -> np.ndarray:
    """Solarised: the levels from `threshold` on are inverted."""
    return _levels(image, lambda x: np.where(x < threshold, x, 255 - x))


def keep_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """Posterised: the highest `bits` of the 8 stay, the others become 0."""
    step = 1 << (8 - bits)
    return _levels(image, lambda x: np.floor(x / step) * step)


def stretch(image: np.ndarray) -> np.ndarray:
    """Autocontrast: each channel's darkest level to 0 and its brightest to 255, linearly."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    unit = (image - low) / np.where(high > low, high - low, 1)
    return np.where(high > low, _like(image, 255 * unit), image)


def equalise(image: np.ndarray) -> np.ndarray:
    """Each channel's histogram made flat, by Pillow; floats by way of the nearest of 256 levels."""
    levels = image if image.dtype == np.uint8 else np.rint(255 * image).astype(np.uint8)
    flat = [np.asarray(ImageOps.equalize(Image.fromarray(np.ascontiguousarray(c)))) for c in np.moveaxis(levels, 2, 0)]
    return _like(image, np.stack(flat, -1).astype(np.float32))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, out to four standard deviations; mirrored at the border, which is not repeated."""
    size = 2 * int(np.ceil(4 * sigma)) + 1
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def luma(image: np.ndarray) -> np.ndarray:
    """float32 [H, W, 1], in the image's units; of uint8 a whole level."""
    if channels(image) == 1:
        return image.astype(np.float32)
    weighed = (image @ LUMA)[..., None]
    return np.floor(weighed + 0.5) if image.dtype == np.uint8 else weighed


def channels(image: np.ndarray) -> int:
    if image.shape[2] not in (1, 3):
        raise CanonError(f'colours are changed in images of 1 or 3 channels; this one has {image.shape[2]}')
    return image.shape[2]


def principal_colours(images) -> tuple[np.ndarray, np.ndarray]:
    """(deviations [3], axes [3, 3]) of the pixels of RGB `images`, any number of uint8 [H, W, 3], each pixel once.

    axes[:, k] is the k-th principal axis, of length 1, and deviations[k] the standard deviation along it in levels,
    largest first: axes @ diag(deviations**2) @ axes.T is the covariance matrix. For `transforms.pca_noise`.
    """
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        count, total, products = count + len(pixels), total + pixels.sum(0), products + pixels.T @ pixels
    if not count:
        raise CanonError('principal_colours: there are no images')
    mean = total / count
    variances, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    return np.sqrt(np.maximum(variances[::-1], 0)), axes[:, ::-1]


def _blend(degenerate: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    full = 1 if image.dtype == np.uint8 else 255
    return _like(image, full * (degenerate + factor * (image - degenerate)))


def _levels(image: np.ndarray, function) -> np.ndarray:
    """`function` of levels [..., C] applied to each pixel on its own: by a table of 256 levels for uint8."""
    if image.dtype != np.uint8:
        return _like(image, function(255 * image))
    table = np.broadcast_to(function(np.arange(256, dtype=np.float32)[:, None]), (256, image.shape[2]))
    table = np.ascontiguousarray(_like(image, table)[None])
    return cv2.LUT(image, table if image.shape[2] > 1 else table[..., 0]).reshape(image.shape)


def _like(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """float levels of 0..255 as the kind of image that `image` is, clipped."""
    if image.dtype == np.uint8:
        return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return np.clip(levels * np.float32(1 / 255), 0, 1).astype(np.float32)
