"""Holds what passes between the stages of the engine, the three layers of a word, and blends images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from canon.data.images.colour import LUMA


class Layers(NamedTuple):
    """Foreground, border (or shadow) and background of a word, all of one size.

    Attributes:
      foreground: opacity of the letters, uint8 [H, W].
      border: opacity of the border or the shadow, uint8 [H, W]; None for none.
      border_above: whether the border covers the foreground (an inset border) or lies below it.
      paints: colours of foreground, border and background, each uint8 [H, W, 3], or [1, 1, 3] while it is uniform.
    """

    foreground: np.ndarray
    border: np.ndarray | None = None
    border_above: bool = False
    paints: tuple[np.ndarray, np.ndarray, np.ndarray] = tuple(
        np.full((1, 1, 3), level, np.uint8) for level in (0, 128, 255)
    )  # ty: ignore[invalid-assignment]


Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (below, above) -> mixed, all uint8 [H, W, 3]


def _screen(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    return 255 - cv2.multiply(255 - below, 255 - above, scale=1 / 255)


def _burn(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    # OpenCV divides by zero without an error, and gives zero.
    return 255 - cv2.divide(255 - below, np.maximum(above, 1), scale=255)


def _dodge(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    return cv2.divide(below, np.maximum(255 - above, 1), scale=255)


# With a and b in 0..1: below b, above a.
BLENDS: dict[str, Blend] = {
    'normal': lambda below, above: above,  # a
    'add': cv2.add,  # min(b + a, 1)
    'subtract': cv2.subtract,  # max(b - a, 0)
    'multiply': lambda below, above: cv2.multiply(below, above, scale=1 / 255),  # b a
    'screen': _screen,  # 1 - (1 - b)(1 - a)
    'burn': _burn,  # 1 - min((1 - b) / a, 1)
    'dodge': _dodge,  # min(b / (1 - a), 1)
    'darken': cv2.min,  # min(b, a)
    'lighten': cv2.max,  # max(b, a)
    'difference': cv2.absdiff,  # |b - a|
}


def mix_images(below: np.ndarray, above: np.ndarray, mode: str, amount: float) -> np.ndarray:
    """Blends two images, (1 - amount) below + amount BLENDS[mode](below, above): uint8 [H, W, 3]."""
    return cv2.addWeighted(below, 1 - amount, BLENDS[mode](below, above), amount, 0)


def cover(below: np.ndarray, paint: np.ndarray, opacity: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Paints over an image [H, W, 3] where `opacity`, uint8 [H, W] times `strength` in 0..1, is not zero."""
    weight = opacity.astype(np.float32) * np.float32(strength / 255)
    return cv2.blendLinear(paint, below, weight, 1 - weight)


def fill(paint: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns a paint of [1, 1, 3] as an image [H, W, 3]; one that is an image already stays."""
    if paint.shape[:2] == shape:
        return paint
    image = np.empty((*shape, 3), np.uint8)
    # By whole rows: broadcasting a single pixel copies three bytes at a time.
    image.reshape(shape[0], -1)[:] = np.tile(paint.reshape(3), shape[1])
    return image


def compute_luma(colour: np.ndarray) -> float:
    """Returns the luma of a colour [3], in 0..255."""
    return float(np.asarray(colour, np.float32).reshape(3) @ LUMA)
