"""Transforms of examples: small numpy functions on the host, applied in a chain.

A function such as `random_flip(p=0.5)` returns a `canon.data.Transform`, whose `apply(example, key)` returns a new
example and leaves the given one unchanged. `key` identifies its randomness (`canon.data.pipeline.keys`). The
deterministic transforms before the first random one are applied before the cache, hence once; the others on every
visit. A new transform is a public function of a module of this package; `make_transforms` finds it by its name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from canon import named
from canon.data.pipeline.chain import Transform
from canon.data.transforms.crops import googlenet_crops, grid_crops, ten_crop
from canon.data.transforms.detection import (
    expand,
    letterbox,
    min_iou_crop,
    random_hsv,
    record_placement,
    ssd_photometric,
    yolo_jitter,
)
from canon.data.transforms.fields import check_label, keep_fields, one_hot, pad_boxes, pad_proposals, rename
from canon.data.transforms.geometric import (
    decode,
    decode_random_resized_crop,
    random_affine,
    random_perspective,
    random_resized_crop,
    random_rotation,
    random_scale,
    random_translate,
    resize_short,
    scale_jitter,
)
from canon.data.transforms.image import (
    center_crop,
    pad,
    random_crop,
    random_flip,
    random_shift,
    resize,
    standardise,
    to_float,
    to_uint8,
)
from canon.data.transforms.lines import fit_line, random_slant
from canon.data.transforms.mix import mixup
from canon.data.transforms.photometric import (
    colour_jitter,
    colour_shift,
    cutout,
    pca_noise,
    random_blur,
    random_grey,
)
from canon.data.transforms.randaugment import rand_augment
from canon.data.transforms.text_warps import text_distort, text_perspective, text_stretch

__all__ = [
    'center_crop', 'check_label', 'colour_jitter', 'colour_shift', 'cutout', 'decode', 'decode_random_resized_crop',
    'expand', 'fit_line', 'googlenet_crops', 'grid_crops', 'keep_fields', 'letterbox', 'make_transforms',
    'min_iou_crop', 'mixup', 'one_hot', 'pad', 'pad_boxes', 'pad_proposals', 'pca_noise', 'rand_augment',
    'random_affine', 'random_blur', 'random_crop', 'random_flip', 'random_grey', 'random_hsv', 'random_perspective',
    'random_resized_crop', 'random_rotation', 'random_scale', 'random_shift', 'random_slant', 'random_translate',
    'record_placement', 'rename', 'resize', 'resize_short', 'scale_jitter', 'ssd_photometric', 'standardise',
    'ten_crop', 'text_distort', 'text_perspective', 'text_stretch', 'to_float', 'to_uint8', 'yolo_jitter',
]  # fmt: skip


# Each public function of a module here is a transform; helpers are private.
TRANSFORMS = named.Catalogue('transform', (__name__,))


def make_transforms(spec: Mapping[str, Any] | None, where: str = 'transforms') -> tuple[Transform, ...]:
    """Makes the transforms of a config.

    Args:
      spec: one transform or a chain: `dict(chain=('flip', 'to_float'), flip=dict(name='random_flip', p=0.5))`. A name
        is that of a public function of a module of this package, `random_flip` or `image.random_flip`, or
        `my_package.module:function`. None gives ().
      where: the key of the config, for errors.

    Raises:
      UsageError: there is no such name or argument.

        >>> len(make_transforms(dict(chain=('random_crop', 'to_float'), random_crop=dict(size=28, padding=2))))
        2
    """
    return tuple(named.make_chain(spec, _make_link, where)) if spec else ()


def find(name: str, where: str = 'transforms') -> Callable[..., Transform]:
    """Returns the function that makes the transform `name`."""
    return TRANSFORMS.find(name, where)


def _make_link(name: str, arguments: dict, where: str) -> Transform:
    return named.call(find(name, where), arguments, where)
