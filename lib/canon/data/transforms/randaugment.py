"""RandAugment (Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search space")."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from canon.data.images import colour, geometry
from canon.data.images.geometry import Along
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError

# The paper's 14 (section 3 and its figure 1), in its order.
OPERATIONS = (
    'identity', 'auto_contrast', 'equalize', 'rotate', 'solarize', 'color', 'posterize', 'contrast', 'brightness',
    'sharpness', 'shear_x', 'shear_y', 'translate_x', 'translate_y',
)  # fmt: skip


def rand_augment(
    count: int = 2,
    magnitude: float = 9,
    fill: float = 128,
    operations: tuple[str, ...] = OPERATIONS,
    field: str = 'image',
    along: Along | Mapping[str, Any] = Along(),
) -> Transform:
    """`count` operations (the paper's N), each drawn uniformly from `operations`, all of `magnitude` (its M, 0..10).

    At 10 an operation reaches the end of its range in AutoAugment (Cubuk et al. 2019, table 6): a turn of 30 degrees,
    a shear of 0.3, a move by 150/331 of the side, colour, contrast, brightness and sharpness by a factor of 0.1 or
    1.9, 4 bits, inversion from level 0 on; at 0 these change nothing, and in between they are linear. (Their code lets
    posterize and solarize grow weaker with M; here all grow stronger.) Auto_contrast and equalize have no magnitude:
    they act in full at 0, too. The sign is drawn where there is one.
    fill: a level of 0..255, for what comes in from outside. Boxes and masks move along.
    """
    along = Along.of(along, 'rand_augment')
    for name in operations:
        if name not in OPERATIONS:
            raise UsageError(f'rand_augment: no operation is called {name!r}; there are {", ".join(OPERATIONS)}')
    if not 0 <= magnitude <= 10 or count < 0 or not operations:
        raise UsageError(
            f'rand_augment: magnitude={magnitude} in [0, 10], count={count} of at least 0, and operations are needed'
        )

    def apply(example, key):
        image, generator = geometry.pixels(example, field, key, 'rand_augment'), borrowed_rng(key)
        if image.shape[2] not in (1, 3):
            raise CanonError(f'rand_augment takes images of 1 or 3 channels, example {key.id} has {image.shape[2]}')
        picks, signs = generator.integers(len(operations), size=count), 2 * generator.integers(2, size=count) - 1
        for pick, sign in zip(picks, signs, strict=True):
            example = _operate(example, operations[pick], sign * magnitude / 10, fill, field, along)
        return example

    return Transform(apply, random=True)


def _operate(example: Example, name: str, amount: float, fill: float, field: str, along: Along) -> Example:
    """One operation; `amount` in [-1, 1] is the share of its range, with the sign of those that have one."""
    image = example[field]
    if name in _WARPS:
        matrix = _WARPS[name](amount, *image.shape[:2])
        level = fill if image.dtype == np.uint8 else fill / 255
        return geometry.carry(example, field, geometry.warp(image, matrix, image.shape[:2], level), matrix, along)
    return {**example, field: _COLOURS[name](image, amount)}


_WARPS = {
    'rotate': lambda a, height, width: geometry.about(geometry.rotation(30 * a), width / 2, height / 2),
    'shear_x': lambda a, height, width: geometry.shearing(0.3 * a, 0),
    'shear_y': lambda a, height, width: geometry.shearing(0, 0.3 * a),
    'translate_x': lambda a, height, width: geometry.translation(150 / 331 * a * width, 0),
    'translate_y': lambda a, height, width: geometry.translation(0, 150 / 331 * a * height),
}
_COLOURS = {
    'identity': lambda image, a: image,
    'auto_contrast': lambda image, a: colour.stretch(image),
    'equalize': lambda image, a: colour.equalise(image),
    'solarize': lambda image, a: colour.invert_above(image, 256 * (1 - abs(a))),
    'posterize': lambda image, a: colour.keep_bits(image, 8 - round(4 * abs(a))),
    'color': lambda image, a: colour.saturation(image, 1 + 0.9 * a),
    'contrast': lambda image, a: colour.contrast(image, 1 + 0.9 * a),
    'brightness': lambda image, a: colour.brightness(image, 1 + 0.9 * a),
    'sharpness': lambda image, a: colour.sharpness(image, 1 + 0.9 * a),
}
