"""Random colours, blur and cutout: pixels change but do not move. uint8 stays uint8, float32 in 0..1 stays float32.

Amounts of colour are in levels of 0..255 whatever the image's type.
"""

import numpy as np

from canon import named
from canon.data.images import colour, geometry
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import UsageError

# Of ImageNet: what fb.resnet.torch multiplies alpha with (its `eigval`, in 0..1; here in levels), and its axes.
IMAGENET_DEVIATIONS = (55.4625, 4.794, 1.1475)
IMAGENET_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def pca_noise(
    std: named.NonNegative = 0.1,
    deviations: tuple[float, ...] = IMAGENET_DEVIATIONS,
    axes: tuple[tuple[float, ...], ...] = IMAGENET_AXES,
    field: str = 'image',
) -> Transform:
    """Adds one random colour along the principal axes of the data to all pixels of an image (AlexNet).

    The colour is sum_k axes[:, k] alpha_k deviations[k] with alpha_k ~ N(0, std^2) (Krizhevsky et al. 2012, section
    4.1). The paper calls the last factor an eigenvalue of the covariance; its code (cuda-convnet2's `color_stdevs`)
    takes the square root, the standard deviation along the axis, and so do we: the noise then has std^2 times the
    covariance of the pixels.

    Args:
      std: of the factors alpha_k.
      deviations: standard deviations [3] of the pixels along the axes, in levels.
      axes: columns are unit vectors; `canon.data.images.colour.fit_colour_axes` computes both from images.
      field: of the image.
    """
    basis, lengths = np.asarray(axes, np.float64), np.asarray(deviations, np.float64)
    if basis.shape != (3, 3) or lengths.shape != (3,):
        raise UsageError(f'pca_noise: axes are 3x3 and deviations are 3; these are {basis.shape} and {lengths.shape}')
    # Each column times its deviation, once, outside of the loop over examples.
    scaled = basis * lengths

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'pca_noise', channels=(3,))
        return {**example, field: colour.add_levels(image, scaled @ borrowed_rng(key).normal(0, std, 3))}

    return Transform(apply, random=True)


def colour_shift(amount: float = 20, field: str = 'image') -> Transform:
    """Adds to each channel a uniform number of levels in [-amount, amount]."""
    _check_amount(amount, 'colour_shift: amount')

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'colour_shift')
        shift = borrowed_rng(key).uniform(-amount, amount, image.shape[2])
        return {**example, field: colour.add_levels(image, shift)}

    return Transform(apply, random=True)


def colour_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0, field: str = 'image'
) -> Transform:
    """Changes brightness, contrast, saturation and hue by random amounts, in random order.

    Howard 2014, "Some improvements on deep convolutional neural network based image classification"; the ranges are
    those of torchvision's ColorJitter.

    Args:
      brightness: x, for a factor uniform in [1 - x, 1 + x], at least 0.
      contrast: likewise.
      saturation: likewise.
      hue: x, for a turn of the circle of hues uniform in [-x, x].
      field: of the image.
    """
    amounts = (brightness, contrast, saturation, hue)
    for name, amount in zip(('brightness', 'contrast', 'saturation', 'hue'), amounts, strict=True):
        _check_amount(amount, f'colour_jitter: {name}')
    steps = (colour.adjust_brightness, colour.adjust_contrast, colour.adjust_saturation, colour.shift_hue)
    neutral = (1, 1, 1, 0)

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'colour_jitter', channels=(1, 3))
        generator = borrowed_rng(key)
        # All four are drawn even if an amount is 0, so that one amount does not change the draws of the others.
        order, draws = generator.permutation(4), generator.uniform(-1, 1, 4)
        for i in order:
            if amounts[i]:
                # Amounts above 1 would give negative factors, which invert the image.
                image = steps[i](image, max(neutral[i] + amounts[i] * draws[i], neutral[i] - 1))
        return {**example, field: image}

    return Transform(apply, random=True)


def random_grey(p: named.Probability = 0.1, field: str = 'image') -> Transform:
    """Removes colour with probability `p`; the number of channels stays."""

    def apply(example, key):
        image = geometry.get_pixels(example, field, key, 'random_grey', channels=(1, 3))
        return {**example, field: colour.to_grey(image)} if borrowed_rng(key).random() < p else example

    return Transform(apply, random=True)


def random_blur(sigma: tuple[float, float] = (0.1, 2.0), p: named.Probability = 0.5, field: str = 'image') -> Transform:
    """Blurs with probability `p` by a Gaussian whose standard deviation is uniform in `sigma`, in pixels."""
    low, high = sigma
    if not 0 < low <= high:
        raise UsageError(f'random_blur: sigma={tuple(sigma)} must be (low, high), positive and in order')

    def apply(example, key):
        image, generator = geometry.get_pixels(example, field, key, 'random_blur'), borrowed_rng(key)
        if generator.random() >= p:
            return example
        return {**example, field: colour.blur(image, generator.uniform(low, high))}

    return Transform(apply, random=True)


def cutout(size: int, value: float = 0, p: named.Probability = 1.0, field: str = 'image') -> Transform:
    """Sets a square of `size` pixels to `value`; its centre is a uniform pixel, so it may reach beyond the border.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout", section 3.
    """
    geometry.check_side(size, 'cutout')

    def apply(example, key):
        image, generator = example[field], borrowed_rng(key)
        if generator.random() >= p:
            return example
        top, left = (int(generator.integers(side)) - size // 2 for side in image.shape[:2])
        out = image.copy()  # the given one may be in the cache
        # A negative end would count from the other side, hence the maximum in both bounds.
        out[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = value
        return {**example, field: out}

    return Transform(apply, random=True)


def _check_amount(amount: float, what: str) -> None:
    if not amount >= 0:
        raise UsageError(f'{what}={amount} is negative')
