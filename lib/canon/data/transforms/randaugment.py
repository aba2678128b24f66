"""RandAugment (Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search space")."""

import numpy as np

from canon.data.images import colour, geometry
from canon.data.images.geometry import SpatialFields, SpatialSpec
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.data.pipeline.source import Example
from canon.errors import UsageError

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
    along: SpatialSpec = None,
) -> Transform:
    """Applies `count` operations (the paper's N), drawn uniformly, all of `magnitude` (its M, 0..10).

    At 10 an operation reaches the end of its range in AutoAugment (Cubuk et al. 2019, table 6): a rotation of 30
    degrees, a shear of 0.3, a translation by 150/331 of the side, colour, contrast, brightness and sharpness by a
    factor of 0.1 or 1.9, posterising to 4 bits, solarising from level 0 on. At 0 these change nothing, and in between
    they are linear. (In the authors' code posterize and solarize grow weaker with M; here all grow stronger.)
    auto_contrast and equalize have no magnitude and act in full at 0, too. Where there is a sign it is random.

    Args:
      count: number of operations; one may be drawn twice.
      magnitude: of all of them.
      fill: level of 0..255 of pixels from outside the image.
      operations: to draw from, of `OPERATIONS`.
      field: of the image.
      along: fields to transform along with it.
    """
    along = SpatialFields.parse(along, 'rand_augment')
    for name in operations:
        if name not in OPERATIONS:
            raise UsageError(f'rand_augment: no operation is called {name!r}; there are {", ".join(OPERATIONS)}')
    if not 0 <= magnitude <= 10 or count < 0 or not operations:
        raise UsageError(
            f'rand_augment: magnitude={magnitude} in [0, 10], count={count} of at least 0, and operations are needed'
        )

    def apply(example, key):
        geometry.get_pixels(example, field, key, 'rand_augment', channels=(1, 3))  # checks it
        generator = borrowed_rng(key)
        # A sign is drawn for every operation, needed or not: draws do not depend on what was picked before.
        picks, signs = generator.integers(len(operations), size=count), 2 * generator.integers(2, size=count) - 1
        for pick, sign in zip(picks, signs, strict=True):
            example = _apply_operation(example, operations[pick], sign * magnitude / 10, fill, field, along)
        return example

    return Transform(apply, random=True)


def _apply_operation(
    example: Example, name: str, amount: float, fill: float, field: str, along: SpatialFields
) -> Example:
    """Applies one operation; `amount` in [-1, 1] is the share of its range, with the sign of those that have one."""
    image = example[field]
    if name in _WARPS:
        matrix = _WARPS[name](amount, *image.shape[:2])
        level = fill if image.dtype == np.uint8 else fill / 255  # floats are in 0..1
        warped = geometry.warp(image, matrix, image.shape[:2], level)
        return geometry.transform_fields(example, field, warped, matrix, along)
    return {**example, field: _COLOURS[name](image, amount)}


_WARPS = {
    'rotate': lambda a, height, width: geometry.recentre(geometry.rotation(30 * a), width / 2, height / 2),
    'shear_x': lambda a, height, width: geometry.shearing(0.3 * a, 0),
    'shear_y': lambda a, height, width: geometry.shearing(0, 0.3 * a),
    'translate_x': lambda a, height, width: geometry.translation(150 / 331 * a * width, 0),
    'translate_y': lambda a, height, width: geometry.translation(0, 150 / 331 * a * height),
}
_COLOURS = {
    'identity': lambda image, a: image,
    'auto_contrast': lambda image, a: colour.autocontrast(image),
    'equalize': lambda image, a: colour.equalise(image),
    # A sign means nothing to these two, hence the absolute values.
    'solarize': lambda image, a: colour.solarise(image, 256 * (1 - abs(a))),
    'posterize': lambda image, a: colour.posterise(image, 8 - round(4 * abs(a))),
    'color': lambda image, a: colour.adjust_saturation(image, 1 + 0.9 * a),
    'contrast': lambda image, a: colour.adjust_contrast(image, 1 + 0.9 * a),
    'brightness': lambda image, a: colour.adjust_brightness(image, 1 + 0.9 * a),
    'sharpness': lambda image, a: colour.adjust_sharpness(image, 1 + 0.9 * a),
}
