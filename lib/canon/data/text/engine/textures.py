"""Natural images as the source of colours and textures: a folder of photographs, or images made by noise."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from canon.data.images.image_files import find_images, read_image
from canon.data.text import text_files
from canon.errors import UsageError

_LONGEST = 512  # pixels of a photograph's longer side, to which it is shrunk
_KEPT = 256  # photographs in memory, 0.2 GB
_NUM_MADE, _MADE_SHAPE = 48, (160, 320)
_CLUSTERED = 32  # rows and columns of pixels that are clustered
_PHOTOGRAPHS = ('china.jpg', 'flower.jpg')  # of scikit-learn


class Palette(NamedTuple):
    """Three clusters of the colours of an image: means [3, 3] and standard deviations [3, 3], by luma from dark."""

    means: np.ndarray
    deviations: np.ndarray


class Textures:
    """Images by number, from which colours and crops are drawn."""

    def __init__(self, files: Sequence[Path] | None = None):
        """files: of photographs. None makes 48 images by noise; scikit-learn's two photographs are added to them."""
        # Each photograph six times, a fifth of all draws: there are only two.
        self._sources: tuple[str | int, ...] = (
            (*range(_NUM_MADE), *_find_photographs() * 6) if files is None else tuple(map(str, files))
        )

    def __len__(self) -> int:
        return len(self._sources)

    def draw_palette(self, rng: np.random.Generator) -> Palette:
        """Returns the colour clusters of a random image."""
        return _cluster_colours(self._sources[rng.integers(len(self))])

    def draw_crop(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Returns a random window of a random image, at a random scale, as uint8 [*shape, 3]."""
        image = _load_image(self._sources[rng.integers(len(self))])
        scale = 2 ** rng.uniform(-1, 1)
        # A window that is larger than the image would repeat it.
        height, width = (max(min(round(scale * s), have), 1) for s, have in zip(shape, image.shape[:2], strict=True))
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        window = image[top : top + height, left : left + width]
        return cv2.resize(window, shape[::-1], interpolation=cv2.INTER_LINEAR)

    def __repr__(self) -> str:
        return f'Textures({len(self)} images)'


def open_textures(path: str | None) -> Textures:
    """Opens the photographs of a folder, with its subfolders; without one, those that `Textures` makes.

    Raises UsageError if there is no such folder, or no image in it.
    """
    if path is None:
        return Textures()
    folder = text_files.expand_path(path)
    if not folder.is_dir():
        raise UsageError(f'there is no folder of textures {folder}')
    files = sorted(find_images(folder))
    if not files:
        raise UsageError(f'{folder} has no images to take textures from')
    return Textures(files)


def _find_photographs() -> tuple[str, ...]:
    """Returns the files of scikit-learn's photographs, without importing it, which takes two seconds."""
    spec = importlib.util.find_spec('sklearn')
    folder = Path(spec.origin).parent / 'datasets' / 'images' if spec and spec.origin else Path()
    return tuple(str(folder / name) for name in _PHOTOGRAPHS if (folder / name).is_file())


@functools.lru_cache(_KEPT)
def _load_image(source: str | int) -> np.ndarray:
    if isinstance(source, int):
        return make_texture(np.random.default_rng((source, 1406_2227)), _MADE_SHAPE)
    image = read_image(Path(source))
    scale = _LONGEST / max(image.shape[:2])
    if scale < 1:
        size = tuple(max(round(scale * side), 1) for side in image.shape[1::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image


@functools.lru_cache(1 << 16)
def _cluster_colours(source: str | int) -> Palette:
    """Divides the pixels of an image into three clusters by k-means in RGB."""
    pixels = cv2.resize(_load_image(source), (_CLUSTERED, _CLUSTERED), interpolation=cv2.INTER_NEAREST)
    pixels = pixels.reshape(-1, 3).astype(np.float32)
    # From the darkest pixel, the brightest, and the one farthest from both, instead of random centres: the result does
    # not depend on OpenCV's generator, and a small third colour is found.
    brightness = pixels.sum(1)
    distances = np.stack([((pixels - pixels[i]) ** 2).sum(1) for i in (brightness.argmin(), brightness.argmax())])
    farthest = pixels[distances.min(0).argmax()]
    labels = np.vstack([distances, ((pixels - farthest) ** 2).sum(1)]).argmin(0).astype(np.int32)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, 20, 0.5)
    _, labels, means = cv2.kmeans(pixels, 3, labels[:, None], criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    order = means.sum(1).argsort()
    deviations = np.stack([pixels[labels[:, 0] == k].std(0) if (labels == k).any() else np.zeros(3) for k in order])
    return Palette(means[order], deviations.astype(np.float32))


def make_texture(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Makes an image with the spectrum of natural ones, uint8 [H, W, 3]: clouds, blobs of flat colours, or stripes.

    The amplitude of a photograph's spectrum falls with frequency f about as 1 / f (Field 1987).
    """
    kind, slope = rng.integers(4), rng.uniform(0.8, 1.6)
    fields = _draw_clouds(rng, shape, slope)  # [3, H, W], each of mean 0 and deviation 1
    # Most of the variance of natural colours is common to the three channels.
    colours = rng.normal(0, 1, (3, 3)) * np.array([[10], [14], [8]])
    colours[0] += rng.uniform(30, 110)
    if kind == 1:  # flat colours with soft edges, as of painted signs
        fields = np.tanh(rng.uniform(2, 8) * (fields - rng.normal(0, 0.5, (3, 1, 1))))
    elif kind == 2:  # bricks, planks and blinds
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 60)
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        wave = np.sin(
            2 * np.pi / period * (np.cos(angle) * columns + np.sin(angle) * rows) + rng.uniform(0, 0.8) * fields[1]
        )
        fields[0] = np.tanh(rng.uniform(0.5, 6) * wave)
    ground = rng.uniform(50, 205) + rng.normal(0, 22, 3)
    image = ground[:, None, None] + np.tensordot(colours.T, fields, 1)
    image += rng.normal(0, rng.uniform(0, 8), shape)
    return np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _draw_clouds(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> np.ndarray:
    """Draws three random fields [3, H, W] whose amplitudes fall as 1 / frequency**slope."""
    frequencies = np.hypot(np.fft.fftfreq(shape[0])[:, None] * shape[0], np.fft.rfftfreq(shape[1]) * shape[1])
    spectrum = rng.normal(size=(3, 2, *frequencies.shape))
    spectrum = (spectrum[:, 0] + 1j * spectrum[:, 1]) / np.maximum(frequencies, 1) ** slope
    spectrum[:, 0, 0] = 0
    fields = np.fft.irfft2(spectrum, shape)
    return fields / fields.std((1, 2), keepdims=True)
