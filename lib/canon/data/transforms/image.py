"""Transforms of images [H, W, C]: uint8 in 0..255, or float32 after `to_float`. Resize, pad and move before that."""

import numpy as np
from PIL import Image

from canon.data.chain import Transform
from canon.data.keys import borrowed_rng
from canon.errors import CanonError, UsageError

_METHODS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'area': Image.Resampling.BOX,
    'lanczos': Image.Resampling.LANCZOS,
}


def resize(size: int | tuple[int, int], method: str = 'bilinear', field: str = 'image') -> Transform:
    """To `size` (height, width), stretched, by Pillow, antialiased.

    method: nearest, bilinear, bicubic, area or lanczos.
    """
    height, width = _pair(size, 'resize')
    if method not in _METHODS:
        raise UsageError(f'resize: no method is called {method!r}; there are {", ".join(_METHODS)}')

    def channel(values):
        return np.asarray(Image.fromarray(values).resize((width, height), _METHODS[method]))

    def apply(example, key):
        image = example[field]
        if image.dtype not in (np.uint8, np.float32):
            raise CanonError(f'resize takes uint8 or float32, example {key.id} has {field!r} of {image.dtype}')
        if image.shape[:2] == (height, width):
            return example
        if image.dtype == np.uint8 and image.shape[2] == 3:
            return {**example, field: channel(image)}
        channels = [channel(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
        return {**example, field: np.stack(channels, -1)}

    return Transform(apply)


def pad(size: int | tuple[int, int], value: float = 0, field: str = 'image') -> Transform:
    """To `size` (height, width) with `value` on all sides, the image in the middle: LeNet-5 sees 28x28 as 32x32.

    Raises CanonError, when applied, for an image larger than `size`.
    """
    height, width = _pair(size, 'pad')

    def apply(example, key):
        image = example[field]
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        if top < 0 or left < 0:
            raise CanonError(f'pad to {height}x{width}: example {key.id} is larger, {_shape(image)}; resize it first')
        out = np.full((height, width, *image.shape[2:]), value, image.dtype)
        out[top : top + image.shape[0], left : left + image.shape[1]] = image
        return {**example, field: out}

    return Transform(apply)


def center_crop(size: int | tuple[int, int], field: str = 'image') -> Transform:
    """The middle `size` (height, width). Raises CanonError, when applied, for an image smaller than that."""
    height, width = _pair(size, 'center_crop')

    def apply(example, key):
        image = example[field]
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        _check_crop(top, left, height, width, image, key)
        return {**example, field: image[top : top + height, left : left + width]}

    return Transform(apply)


def random_flip(p: float = 0.5, field: str = 'image') -> Transform:
    """Left and right exchanged with probability `p`."""

    def apply(example, key):
        return {**example, field: example[field][:, ::-1]} if borrowed_rng(key).random() < p else example

    return Transform(apply, random=True)


def random_crop(size: int | tuple[int, int], padding: int = 0, value: float = 0, field: str = 'image') -> Transform:
    """A window of `size` (height, width), uniformly placed over the image with `padding` pixels of `value` around it.

    `random_crop(32, padding=4)` is the CIFAR augmentation (ResNet, He et al. 2016, section 4.2).
    Raises CanonError, when applied, for an image smaller than the window.
    """
    height, width = _pair(size, 'random_crop')

    def apply(example, key):
        image = example[field]
        spare = image.shape[0] + 2 * padding - height, image.shape[1] + 2 * padding - width
        _check_crop(*spare, height, width, image, key)
        generator = borrowed_rng(key)
        top, left = (int(generator.random() * (s + 1)) - padding for s in spare)
        return {**example, field: _window(image, top, left, height, width, value)}

    return Transform(apply, random=True)


def random_shift(pixels: int, value: float = 0, field: str = 'image') -> Transform:
    """Moved by up to `pixels` either way, each axis uniformly by whole pixels; what comes in is `value`."""
    if pixels < 0:
        raise UsageError(f'random_shift: pixels={pixels} is negative')

    def apply(example, key):
        image, generator = example[field], borrowed_rng(key)
        top, left = (int(generator.random() * (2 * pixels + 1)) - pixels for _ in range(2))
        return {**example, field: _window(image, top, left, *image.shape[:2], value)}

    return Transform(apply, random=True)


def to_float(field: str = 'image') -> Transform:
    """uint8 0..255 -> float32 0..1."""

    def apply(example, key):
        return {**example, field: np.multiply(example[field], np.float32(1 / 255), dtype=np.float32)}

    return Transform(apply)


def to_uint8(field: str = 'image') -> Transform:
    """float 0..1 -> uint8 0..255, rounded and clipped: the inverse of `to_float`."""

    def apply(example, key):
        return {**example, field: np.rint(np.clip(example[field], 0, 1) * 255).astype(np.uint8)}

    return Transform(apply)


def standardise(mean: float | tuple[float, ...], std: float | tuple[float, ...], field: str = 'image') -> Transform:
    """`(image - mean) / std` as float32; mean and std in the image's own units, one number or one a channel."""
    centre, scale = np.asarray(mean, np.float32), 1 / np.asarray(std, np.float32)

    def apply(example, key):
        return {**example, field: (example[field].astype(np.float32) - centre) * scale}

    return Transform(apply)


def _window(image, top, left, height, width, value):
    """image[top:top+height, left:left+width], where what lies outside the image is `value`."""
    if top >= 0 and left >= 0 and top + height <= image.shape[0] and left + width <= image.shape[1]:
        return image[top : top + height, left : left + width]
    out = np.full((height, width, *image.shape[2:]), value, image.dtype)
    seen = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return out


def _check_crop(top, left, height, width, image, key):
    if top < 0 or left < 0:
        raise CanonError(f'crop of {height}x{width}: example {key.id} is smaller, {_shape(image)}; resize or pad it')


def _pair(size, what: str) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        raise UsageError(f'{what}: size={size!r} is neither a positive integer nor (height, width)')
    return pair


def _shape(image) -> str:
    return 'x'.join(map(str, image.shape[:2]))
