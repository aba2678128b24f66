"""SSD: Liu et al., "SSD: single shot multibox detector", 2016, section 2.1 and figure 2.

A backbone and some extra layers give feature maps of decreasing size; a 3x3 convolution on each of them predicts, for
each of its prior boxes, the offsets of a box (`canon.ops.boxes.decode_offsets`) and the logits of the classes, of which
class 0 is the background.

| network | maps | priors | parameters (21 classes) | VOC07 mAP (07+12) |
|---|---|---|---|---|
| `ssd300` | 38, 19, 10, 5, 3, 1 | 8,732 | 26,285,486 | 74.3 %, 77.2 % with the augmentation of section 3.6 |
| `ssd512` | 64, 32, 16, 8, 4, 2, 1 | 24,564 | 27,188,676 | 76.8 %, 79.8 % |
| `ssd` | of any backbone | | | |

Both of the paper's networks are on VGG-16 with fc6 and fc7 reduced to convolutions of 1024 channels (section 3), the
first of them dilated 6 times, with a pool5 of 3x3 and stride 1, and with conv4_3 L2-normalised to a learned scale that
starts at 20. torchvision's `ssd300_vgg16` is `ssd300(num_classes=91, sizes='coco', clip='sizes')`: 35,641,826
parameters.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers

from canon import ops
from canon.errors import UsageError
from canon.models import cite, make_backbone
from canon.named import Count, suggest
from canon.nn import BatchNorm, Conv, L2Norm, Network, check_images, scale_channels
from canon.nn.trace import select_pyramid, trace_stages
from canon.ops.priors import PriorLevel, make_priors

TABLE = (
    cite('ssd.ssd300', 26_285_486, None, None, 'Liu et al. 2016, Table 7: 8,732 priors, VOC07 mAP 77.2', size=300),
    cite('ssd.ssd300', 35_641_826, None, None, 'torchvision, COCO AP 25.1', 34.858e9, size=300, num_classes=91),
    cite('ssd.ssd512', None, None, None, 'Liu et al. 2016, Table 7: 24,564 priors, VOC07 mAP 79.8', size=512),
)

# Sides of the square priors by map, relative to the image's, and the one after the last. The authors' code truncates
# them to whole pixels, which matters for 512.
_SIZES = {
    300: {
        # Eq. 4 for the maps after the first, in whole percents as in the authors' code: steps of floor((90 - 20) / 4).
        'voc': (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05),
        'coco': (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    },
    512: {
        # From 15 to 90 percent in steps of floor(75 / 5), and 7 percent for the first map (COCO: from 10, and 4).
        'voc': tuple(size / 512 for size in (35, 76, 153, 230, 307, 384, 460, 537)),
        'coco': tuple(size / 512 for size in (20, 51, 133, 215, 296, 378, 460, 542)),
    },
}


class ExtraLayer(NamedTuple):
    """Two convolutions that make the next feature map: 1x1 to half of the channels, then a larger one."""

    name: str
    channels: int
    kernel_size: int = 3
    stride: int = 2
    padding: int = 1


class ReducedVGG(Network):
    """VGG-16 as SSD's backbone: stages conv1 .. conv5 and fc7, layers conv1_1 .. conv5_3, fc6 and fc7.

    conv1_1 .. conv5_3 are those of `vgg.vgg16` and load its weights.
    """

    width: float = 1.0
    batch_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = True):
        if not features:
            raise UsageError('the reduced VGG is a backbone without a classifier: call its `features`')
        unit = partial(_conv_unit, batch_norm=self.batch_norm, dtype=self.dtype, train=train)
        x, stages = images, {}
        for column, (channels, rows) in enumerate(zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True), start=1):
            for row in range(1, rows + 1):
                x = unit(x, scale_channels(channels, self.width), 3, padding=1, name=f'conv{column}_{row}')
            stages[f'conv{column}'] = x
            # pool3 rounds up: the map of 300 pixels is 38 wide, not 37. pool5 keeps the resolution.
            x = ops.max_pool(x, 2, 2, ceil_mode=column == 3) if column < 5 else ops.max_pool(x, 3, 1, padding=1)
        wide = scale_channels(1024, self.width)
        # The 7x7 window of fc6 on a map of half the resolution: nine of its taps, 6 apart.
        x = unit(x, wide, 3, padding=6, dilation=6, name='fc6')
        stages['fc7'] = unit(x, wide, 1, name='fc7')
        return stages


class SSD(Network):
    """Images [B, H, W, 3] -> {'offsets': [B, A, 4], 'logits': [B, A, num_classes]}, float32, A priors.

    Priors are ordered by map, row, column and shape, as `priors` returns them. `features` returns the maps that are
    predicted from. Parameters: 'backbone', the extra layers ('conv8_1', 'conv8_2', ...), 'l2_norm', and two
    convolutions per map, '<map>_offsets' and '<map>_logits'.

    Attributes:
      backbone: a network with `features`.
      num_classes: including the background, class 0.
      stages: names of the backbone's stages that are predicted from.
      extras: layers after the last stage.
      sizes: sides of the square priors per map relative to the image's shorter side, and one more.
      aspect_ratios: per map.
      strides: pixels between priors per map; None lets the priors tile the image.
      image_size: that the network is made for; None takes any.
      clip: of the priors, see `canon.ops.priors.make_priors`.
      l2_norm: normalises the first map.
      batch_norm: in the extra layers.
      dtype: of the computation.
    """

    backbone: Network
    num_classes: int
    stages: tuple[str, ...]
    extras: tuple[ExtraLayer, ...]
    sizes: tuple[float, ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    strides: tuple[float, ...] | None = None
    image_size: int | None = None
    clip: str | None = None
    l2_norm: bool = False
    batch_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 32, 'SSD')
        self._check_size(*images.shape[1:3])
        maps = self._maps(images, train)
        if features:
            return maps
        outputs: dict[str, list[jax.Array]] = {'offsets': [], 'logits': []}
        for (name, x), ratios in zip(maps.items(), self.aspect_ratios, strict=True):
            shapes = 2 + 2 * len(ratios)
            filters = {'offsets': 4 * shapes, 'logits': self.num_classes * shapes}
            parts = [_HeadParameters(n, name=f'{name}_{output}')(x.shape[-1]) for output, n in filters.items()]
            # Parameters by output have torchvision's names and each output's own fan-out at initialisation.
            # One convolution for both: few filters by themselves take as long as many on most hardware.
            kernel, bias = (jnp.concatenate([part[i] for part in parts], -1) for i in (0, 1))
            x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
            both = jnp.split(ops.conv(x, kernel, padding=1) + bias, (filters['offsets'],), -1)
            for output, y in zip(filters, both, strict=True):
                # x.shape[0] and not len(x), which must be a number: an exported network has a symbolic batch.
                outputs[output].append(y.reshape(x.shape[0], -1, filters[output] // shapes))
        # Losses and box coding take float32: the exponential of a bfloat16 offset moves a box by several pixels.
        return {name: jnp.concatenate(parts, 1).astype(jnp.float32) for name, parts in outputs.items()}

    def _maps(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
        stages = self.backbone.features(images, train)
        x = stages[self.stages[-1]]
        maps = {name: stages[name] for name in self.stages}
        # The backbone and the extra layers read the stages as they are: only what is predicted from is normalised.
        if self.l2_norm:  # conv4_3 has another scale of features than the deeper maps (section 3.1)
            maps[self.stages[0]] = L2Norm(name='l2_norm')(maps[self.stages[0]])
        unit = partial(
            _conv_unit,
            batch_norm=self.batch_norm,
            dtype=self.dtype,
            train=train,
            kernel_init=initializers.glorot_uniform(),
        )
        for layer in self.extras:
            x = unit(x, layer.channels // 2, 1, name=f'{layer.name}_1')
            stride, padding = layer.stride, layer.padding
            x = unit(x, layer.channels, layer.kernel_size, stride=stride, padding=padding, name=f'{layer.name}_2')
            maps[f'{layer.name}_2'] = x
        return maps

    def priors(self, height: int, width: int) -> np.ndarray:
        """Returns the prior boxes of images of that size, float32 [A, 4], corner boxes in pixels.

        Raises UsageError if the network is made for another size.
        """
        self._check_size(height, width)
        return make_priors(self.prior_levels(height, width), (height, width), self.clip)

    def prior_levels(self, height: int, width: int) -> list[PriorLevel]:
        """Returns the priors of each feature map of images of that size, for reports and counts."""
        grids = _trace_grids(self, height, width)  # ty: ignore[invalid-argument-type]
        strides = [(s, s) for s in self.strides] if self.strides else [(height / h, width / w) for h, w in grids]
        # Without given strides the priors tile the image exactly, whatever the rounding of the maps' sizes.
        side = min(height, width)
        rows = zip(grids, strides, self.sizes, self.sizes[1:], self.aspect_ratios, strict=False)
        return [PriorLevel(grid, stride, side * a, side * b, ratios) for grid, stride, a, b, ratios in rows]

    def _check_size(self, height: int, width: int) -> None:
        size = self.image_size
        if size is not None and (height, width) != (size, size):
            raise UsageError(
                f'the priors of this SSD are made for images of {size}x{size}, not {height}x{width}: resize the images '
                "to it, or take model.name='ssd.ssd', which fits its priors to the images"
            )


class _HeadParameters(nn.Module):
    """The kernel [3, 3, C, features] and the bias of a prediction."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        shape = (3, 3, channels, self.features)
        # "xavier" as torchvision has it. The filler of that name in Caffe divides by the fan-in alone.
        kernel = self.param('kernel', initializers.glorot_uniform(), shape, jnp.float32)
        return kernel, self.param('bias', initializers.zeros, (self.features,), jnp.float32)


def _conv_unit(
    x: jax.Array,
    channels: int,
    kernel_size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    batch_norm: bool = False,
    train: bool = False,
    dtype: Any = None,
    kernel_init: initializers.Initializer = initializers.he_normal(),
) -> jax.Array:
    """Applies a convolution, batch normalisation if asked for, and ReLU."""
    convolution = Conv(
        channels,
        kernel_size,
        stride,
        padding,
        dilation,
        use_bias=not batch_norm,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )
    x = convolution(x)
    if batch_norm:
        x = BatchNorm(dtype=dtype, name=f'{name}_bn')(x, train)
    return ops.relu(x)


@lru_cache(maxsize=64)
def _trace_grids(model: SSD, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns (rows, columns) of each feature map, from shapes alone; a trace of VGG takes a second."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    # A list: JAX returns dicts sorted by key, so that conv10_2 would come before conv4.
    maps = jax.eval_shape(
        lambda key, x: list(model.init_with_output(key, x, method='features')[0].values()), jax.random.key(0), images
    )
    return tuple(x.shape[1:3] for x in maps)


def ssd300(
    num_classes: Count = 21,
    sizes: str | tuple[float, ...] = 'voc',
    clip: str | None = None,
    width: float = 1.0,
    batch_norm: bool = False,
    dtype: str | None = None,
) -> SSD:
    """SSD on the reduced VGG-16, for images of 300x300.

    Args:
      num_classes: including the background.
      sizes: of the square priors relative to the image: 'voc', 'coco' (smaller objects), or seven numbers.
      clip: of the priors: None, 'sizes' (torchvision) or 'corners'.
      width: multiplies the backbone's channels (not in the paper).
      batch_norm: after every convolution but the last, for training from scratch (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters and outputs stay float32.

    Raises:
      UsageError: `sizes` is unknown or not seven numbers, or the width leaves no channels.
    """
    # The last two shrink the map by leaving out the padding: 5 to 3 to 1.
    extras = (
        ExtraLayer('conv8', 512),
        ExtraLayer('conv9', 256),
        ExtraLayer('conv10', 256, stride=1, padding=0),
        ExtraLayer('conv11', 256, stride=1, padding=0),
    )
    # The authors' steps, not 300 divided by the maps' sizes: conv4_3 has 38 places every 8 pixels, the last at 300.
    strides = (8, 16, 32, 64, 100, 300)
    return _paper_ssd(300, extras, strides, num_classes, sizes, clip, width, batch_norm, dtype)


def ssd512(
    num_classes: Count = 21,
    sizes: str | tuple[float, ...] = 'voc',
    clip: str | None = None,
    width: float = 1.0,
    batch_norm: bool = False,
    dtype: str | None = None,
) -> SSD:
    """SSD on the reduced VGG-16, for images of 512x512 and one map more. Arguments as of `ssd300`, with eight sizes."""
    extras = (
        ExtraLayer('conv8', 512),
        *(ExtraLayer(f'conv{i}', 256) for i in (9, 10, 11)),
        ExtraLayer('conv12', 256, kernel_size=4, stride=1),  # 2x2 and a padding of 1 to 1x1, as the authors have it
    )
    strides = (8, 16, 32, 64, 128, 256, 512)
    return _paper_ssd(512, extras, strides, num_classes, sizes, clip, width, batch_norm, dtype)


def _paper_ssd(image_size, extras, strides, num_classes, sizes, clip, width, batch_norm, dtype) -> SSD:
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    if isinstance(sizes, str):
        if sizes not in _SIZES[image_size]:
            raise UsageError(f'model.sizes={sizes!r} is unknown{suggest(sizes, _SIZES[image_size])}')
        sizes = _SIZES[image_size][sizes]
    return SSD(
        ReducedVGG(width, batch_norm, dtype_),
        num_classes,
        ('conv4', 'fc7'),
        extras,
        _check_sizes(sizes, len(strides)),
        _default_ratios(len(strides)),
        strides,
        image_size,
        clip,
        l2_norm=True,
        batch_norm=batch_norm,
        dtype=dtype_,
    )


def ssd(
    backbone: Mapping[str, Any],
    num_classes: Count = 21,
    stages: tuple[str, ...] | None = None,
    min_stride: Count = 8,
    extras: tuple[int, ...] = (512, 256, 256),
    sizes: tuple[float, ...] | None = None,
    aspect_ratios: tuple[tuple[float, ...], ...] | None = None,
    clip: str | None = None,
    l2_norm: bool = False,
    batch_norm: bool = True,
    dtype: str | None = None,
) -> SSD:
    """SSD on any backbone, for images of any size; its priors tile the image on every map.

    Args:
      backbone: name and arguments of a network with `features`: dict(name='mobilenet.mobilenet_v2').
      num_classes: including the background.
      stages: of the backbone, finest first; None takes the last one of every stride from `min_stride` on.
      min_stride: of the finest map, in pixels.
      extras: channels of the extra layers, each of which halves the last map.
      sizes: sides of the square priors relative to the image's shorter side: one per map, ascending, and one more.
        None places them as the paper does: 0.1, then evenly from 0.2 to 0.9 (eq. 4).
      aspect_ratios: per map; None takes 2 for the first and the last two maps, and 2 and 3 for the others.
      clip: of the priors: None, 'sizes' or 'corners'.
      l2_norm: L2-normalises the first map, for backbones without batch normalisation.
      batch_norm: in the extra layers.
      dtype: of the computation, such as 'bfloat16'; parameters and outputs stay float32.

    Raises:
      UsageError: the backbone is unknown or has no such stage, or sizes and aspect ratios do not fit the maps.
    """
    network = make_backbone(backbone, dtype)
    traced = trace_stages(network)
    if stages is None:
        stages = tuple(name for stride, name in sorted(select_pyramid(traced).items()) if stride >= min_stride)
        if not stages:
            raise UsageError(f'model.backbone has no stage with a stride of {min_stride} or more: {_list(traced)}')
    for name in stages:
        if name not in traced:
            raise UsageError(f'model.backbone has no stage {name!r}{suggest(name, traced)}; it has {_list(traced)}')
    count = len(stages) + len(extras)
    ratios = _default_ratios(count) if aspect_ratios is None else tuple(map(tuple, aspect_ratios))
    if len(ratios) != count:
        raise UsageError(f'model.aspect_ratios has {len(ratios)} entries for {count} maps: {stages} and the extras')
    return SSD(
        network,
        num_classes,
        tuple(stages),
        tuple(ExtraLayer(f'extra{i}', channels) for i, channels in enumerate(extras, start=1)),
        _default_sizes(count) if sizes is None else _check_sizes(sizes, count),
        ratios,
        clip=clip,
        l2_norm=l2_norm,
        batch_norm=batch_norm,
        dtype=None if dtype is None else jnp.dtype(dtype),
    )


def _list(traced: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} ({max(stage.stride)})' for name, stage in traced.items())


def _default_sizes(count: int) -> tuple[float, ...]:
    """Returns the scales of eq. 4 for all maps but the first, whose is 0.1, and the one after the last."""
    step = 0.7 / max(count - 2, 1)
    return (0.1, *(0.2 + step * k for k in range(count)))


def _default_ratios(count: int) -> tuple[tuple[float, ...], ...]:
    return tuple((2.0,) if k == 0 or k >= count - 2 else (2.0, 3.0) for k in range(count))


def _check_sizes(sizes: Sequence[float], count: int) -> tuple[float, ...]:
    sizes = tuple(sizes)
    if len(sizes) != count + 1 or list(sizes) != sorted(sizes) or sizes[0] <= 0:
        raise UsageError(f'model.sizes={sizes} must be {count + 1} ascending numbers: one per map, and one more')
    return sizes
