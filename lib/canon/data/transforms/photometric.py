"""Random colours, blur and holes: pixels change, nothing moves. uint8 in, uint8 out; float32 in 0..1 stays so.

Amounts of colour are in levels of 0..255 whatever the image's type.
"""

import numpy as np

from canon import named
from canon.data.images import colour, geometry
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import CanonError, UsageError

# Of ImageNet: what fb.resnet.torch multiplies alpha with (its `eigval`, in 0..1; here in levels), and its axes.
IMAGENET_DEVIATIONS = (55.4625, 4.794, 1.1475)
IMAGENET_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def pca_noise(
    std: named.NonNegative = 0.1,
    deviations: tuple[float, ...] = IMAGENET_DEVIATIONS,
    axes: tuple[tuple[float, ...], ...] = IMAGENET_AXES,
    field: str = 'image',
) -> Transform:
    """AlexNet's colour noise (Krizhevsky et al. 2012, section 4.1): one colour added to all pixels of an image.

    It is sum_k axes[:, k] alpha_k deviations[k], alpha_k normal with `std`. The paper calls the last factor an
    eigenvalue of the covariance; its code (cuda-convnet2's `color_stdevs`) takes the square root, the standard
    deviation along the axis, and so do we: the noise then has `std`**2 times the pixels' own covariance.
    `canon.data.images.colour.principal_colours` computes both of other images.
    """
    basis, lengths = np.asarray(axes, np.float64), np.asarray(deviations, np.float64)
    if basis.shape != (3, 3) or lengths.shape != (3,):
        raise UsageError(f'pca_noise: axes are 3x3 and deviations are 3; these are {basis.shape} and {lengths.shape}')
    scaled = basis * lengths

    def apply(example, key):
        image = _of_channels(example, field, key, 'pca_noise', (3,))
        return {**example, field: colour.add(image, scaled @ borrowed_rng(key).normal(0, std, 3))}

    return Transform(apply, random=True)


def colour_shift(amount: float = 20, field: str = 'image') -> Transform:
    """Each channel of an image moved by a uniform number of levels in [-amount, amount]."""
    _check(amount, 'colour_shift: amount')

    def apply(example, key):
        image = geometry.pixels(example, field, key, 'colour_shift')
        return {**example, field: colour.add(image, borrowed_rng(key).uniform(-amount, amount, image.shape[2]))}

    return Transform(apply, random=True)


def colour_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0, field: str = 'image'
) -> Transform:
    """Brightness, contrast, saturation by factors uniform in [1 - x, 1 + x], hue by a turn in [-x, x], in any order.

    As Howard 2014 ("Some improvements on deep convolutional neural network based image classification") has it and
    torchvision's ColorJitter does it.
    """
    amounts = (brightness, contrast, saturation, hue)
    for name, amount in zip(('brightness', 'contrast', 'saturation', 'hue'), amounts, strict=True):
        _check(amount, f'colour_jitter: {name}')
    steps = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
    neutral = (1, 1, 1, 0)

    def apply(example, key):
        image, generator = _of_channels(example, field, key, 'colour_jitter'), borrowed_rng(key)
        order, draws = generator.permutation(4), generator.uniform(-1, 1, 4)
        for i in order:
            if amounts[i]:
                image = steps[i](image, max(neutral[i] + amounts[i] * draws[i], neutral[i] - 1))
        return {**example, field: image}

    return Transform(apply, random=True)


def random_grey(p: named.Probability = 0.1, field: str = 'image') -> Transform:
    """Without colour, in as many channels, with probability `p`."""

    def apply(example, key):
        image = _of_channels(example, field, key, 'random_grey')
        return {**example, field: colour.grey(image)} if borrowed_rng(key).random() < p else example

    return Transform(apply, random=True)


def random_blur(sigma: tuple[float, float] = (0.1, 2.0), p: named.Probability = 0.5, field: str = 'image') -> Transform:
    """Gaussian blur of a standard deviation uniform in `sigma`, in pixels, with probability `p`."""
    low, high = sigma
    if not 0 < low <= high:
        raise UsageError(f'random_blur: sigma={tuple(sigma)} is no (low, high) of positive numbers')

    def apply(example, key):
        image, generator = geometry.pixels(example, field, key, 'random_blur'), borrowed_rng(key)
        if generator.random() >= p:
            return example
        return {**example, field: colour.blur(image, generator.uniform(low, high))}

    return Transform(apply, random=True)


def cutout(size: int, value: float = 0, p: named.Probability = 1.0, field: str = 'image') -> Transform:
    """A square of `size` pixels becomes `value`; its middle is any pixel, so that it may stick out of the image.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout", section 3.
    """
    if size < 1:
        raise UsageError(f'cutout: size={size} is not positive')

    def apply(example, key):
        image, generator = example[field], borrowed_rng(key)
        if generator.random() >= p:
            return example
        top, left = (int(generator.integers(side)) - size // 2 for side in image.shape[:2])
        out = image.copy()
        out[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = value
        return {**example, field: out}

    return Transform(apply, random=True)


def _of_channels(example, field, key, what, allowed=(1, 3)) -> np.ndarray:
    image = geometry.pixels(example, field, key, what)
    if image.shape[2] not in allowed:
        told = ' or '.join(map(str, allowed))
        raise CanonError(f'{what} takes images of {told} channels, example {key.id} has {field!r} of {image.shape[2]}')
    return image


def _check(amount: float, what: str) -> None:
    if not amount >= 0:
        raise UsageError(f'{what}={amount} is negative')
