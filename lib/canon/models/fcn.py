"""Fully convolutional networks: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation".

CVPR 2015, and Shelhamer, Long, Darrell, TPAMI 2017; sections 3 and 4. A classifier whose fully connected layers are
convolutions (`canon.weights.convolutionalise`) scores every place of a map of stride 32, which is upsampled to the
image. FCN-16s and 8s add the scores of pool4 and pool3 on the way up.

| net | scores of | crops | learned parameters, 21 classes | mean IU, VOC 2011 val |
|---|---|---|---|---|
| `fcn32s`, VGG-16 | fc7 | 19 | 134,346,581 | 63.6 |
| `fcn16s` | fc7, pool4 | 5, 27 | 134,357,354 | 65.0 |
| `fcn8s` | fc7, pool4, pool3 | 5, 9, 31 | 134,362,751 | 65.5 |
| `fcn_alexnet` | fc7 | 18 | 56,954,261 | 48.0 |
| `fcn_googlenet` | inception_5b | none | 5,995,077 | 42.5 (CVPR) |

Details of the authors' networks: the first convolution pads by 100 pixels, so that an image of any size has a score,
and the crops undo it; pooling rounds up (Caffe); scores are initialised with 0; the transposed convolutions that
upsample are fixed to bilinear interpolation and not counted above. `fcn_resnet50` is torchvision's network, with a
dilated ResNet of stride 8, and `skip_fcn` puts the skips on any backbone.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from canon import models, ops
from canon.errors import UsageError
from canon.models import alexnet, cite, googlenet, resnet, vgg
from canon.named import Count, DropRate, call, suggest
from canon.nn import BatchNorm, Conv, Network, check_images, scale_channels
from canon.nn.trace import select_pyramid, trace_stages

_TPAMI = 'Shelhamer et al. 2017, VOC 2011 val; mean IU'
TABLE = (
    cite('fcn.fcn32s', 134_346_581, None, None, f'{_TPAMI} 63.6'),
    cite('fcn.fcn16s', 134_357_354, None, None, f'{_TPAMI} 65.0'),
    cite('fcn.fcn8s', 134_362_751, None, None, f'{_TPAMI} 65.5'),
    cite('fcn.fcn_alexnet', None, None, None, f'{_TPAMI} 48.0'),
    cite('fcn.fcn_googlenet', None, None, None, 'Long et al. 2015, VOC 2011 val; mean IU 42.5'),
    cite('fcn.fcn_resnet50', 35_322_218, None, None, 'torchvision, COCO val2017 with VOC labels; mean IU 60.5'),
)

_UPSAMPLING = ('bilinear', 'learned')
_SCALES = {'pool4': 0.01, 'pool3': 0.0001}  # of the at-once nets, which train all skips together


class _Grid(NamedTuple):
    """The pixels that the places of a map lie at: place i at centre + i stride of the image, along both axes."""

    stride: int
    centre: float


class _Trunk(NamedTuple):
    """A backbone's part in an FCN: its maps, and the pixels that they lie at in an image without a border.

    Attributes:
      border: pixels of padding that the authors' nets have around the image, beyond what the first layer has itself.
      window: of fc6 on the last map; None if there are no fully connected layers.
      maps: {name: (stage, whether the stage is pooled first, grid)}, coarse to fine.
    """

    border: int
    window: int | None
    maps: Mapping[str, tuple[str, bool, _Grid]]


class FCN(nn.Module):
    """Images [B, H, W, C] -> logits [B, H, W, num_classes], upsampled from the scores of one to three maps.

    Modules are named as in the authors' prototxt: fc6, fc7, score_fr, score_pool4, score_pool3, and, where they are
    learned, upscore2, upscore_pool4, upscore8 (upscore, upscore16). The classifier's layers are in `backbone`.
    """

    backbone: Network
    trunk: _Trunk
    num_classes: int
    skips: int
    at_once: bool
    learned: bool
    dropout: float
    width: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        border, shape = self.trunk.border, images.shape[1:3]
        check_images(images, 1 if border else 32, 'this FCN')
        # With the authors' 100 pixels fc6 finds a window in the map of even the smallest image: 7x7 for VGG.
        padded = jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
        stages, last = self.backbone.features(padded, train), 'upscore'

        def read_map(name):
            stage, pooled, grid = self.trunk.maps[name]
            features = ops.max_pool(stages[stage], 2, ceil_mode=True) if pooled else stages[stage]
            # Every grid is in pixels of the unpadded image, so that borders of any size compare.
            return features, _Grid(grid.stride, grid.centre - border)

        coarsest, *skips = self.trunk.maps
        features, grid = self._classify(*read_map(coarsest), train)
        x = self._score(f'score_{coarsest}', features)
        for name in skips[: self.skips]:
            features, own = read_map(name)
            upscore = 'upscore2' if name == 'pool4' else 'upscore_pool4'
            x, grid = self._fuse(upscore, x, grid, self._score(f'score_{name}', features), own)
            last = f'upscore{grid.stride}'
        return self._upscore(last, x, grid.stride, grid.centre, shape)

    def _classify(self, x: jax.Array, grid: _Grid, train: bool) -> tuple[jax.Array, _Grid]:
        """Computes fc6 and fc7 at every place, if the classifier has them."""
        window = self.trunk.window
        if window is None:
            return x, grid
        if self.trunk.border:  # fc6 slides within the map, as the classifier would; else it keeps the map's size
            grid = _Grid(grid.stride, grid.centre + (window - 1) / 2 * grid.stride)
        padding = 0 if self.trunk.border else 'same'
        for name, size in (('fc6', window), ('fc7', 1)):
            units, he = scale_channels(4096, self.width), initializers.he_normal()
            layer = Conv(units, size, padding=padding, dtype=self.dtype, kernel_init=he, name=name)
            x = nn.Dropout(self.dropout, deterministic=not train)(ops.relu(layer(x)))
        return x, grid

    def _score(self, name: str, x: jax.Array) -> jax.Array:
        if self.at_once:  # on the features, so that the gradient of the score's kernel is scaled as well
            x = x * _SCALES.get(name.removeprefix('score_'), 1.0)
        # Zero: random scores neither converge faster nor end better (section 4.3), and a skip of zero leaves the
        # predictions of the coarser net, from which FCN-16s and 8s start, as they are (section 4.2).
        return Conv(self.num_classes, 1, dtype=self.dtype, kernel_init=initializers.zeros, name=name)(x)

    def _fuse(self, name: str, x: jax.Array, grid: _Grid, skip: jax.Array, finer: _Grid) -> tuple[jax.Array, _Grid]:
        """Adds the scores of a finer map, `skip`, to the upsampled scores x, where both are."""
        factor = grid.stride // finer.stride
        if not self.trunk.border:
            centre = (grid.centre - finer.centre) / finer.stride
            return self._upscore(name, x, factor, centre, skip.shape[1:3]) + skip, finer
        # The crops of the prototxt follow from the grids. FCN-16s: fc7 begins at pixel 15.5 - 99 + 3 * 32 = 12.5 and
        # its upsampled scores at 12.5 - 1.5 * 16 = -11.5; pool4 begins at 7.5 - 99 = -91.5, 80 pixels or 5 places
        # earlier. So the uncropped x begins inside of the finer map, which has the larger border.
        start = grid.centre - (factor - 0.5) * finer.stride
        offset = round((start - finer.centre) / finer.stride)
        rows, columns = (factor * (n + 1) for n in x.shape[1:3])  # (n - 1) factor + the kernel's 2 factor
        skip = skip[:, offset : offset + rows, offset : offset + columns]
        return self._upscore(name, x, factor, factor - 0.5, skip.shape[1:3]) + skip, _Grid(finer.stride, start)

    def _upscore(self, name: str, x: jax.Array, factor: int, centre: float, shape: tuple[int, ...]) -> jax.Array:
        """Upsamples scores to `shape`, so that the first place lies at pixel `centre` of the result."""
        x = _widen(x)
        # The authors' transposed convolution has zeros beyond its map, so that scores fade at the border of the image.
        # Nets without their padding repeat the scores there instead.
        if not (self.trunk.border or self.learned):
            return ops.upsample_bilinear(x, factor, shape, centre)
        size = 2 * factor - float(centre).is_integer()  # the middle of an odd kernel is a pixel
        crop = round((size - 1) / 2 - centre)
        if not self.learned:
            return ops.bilinear_deconv(x, size, factor, crop, shape)

        # Dense and not per channel, as in Caffe: learned upsampling may mix the scores of classes.
        def kernel_init(key, shape, dtype):
            return jnp.asarray(ops.bilinear_deconv_kernel(size, self.num_classes), dtype)

        kernel = self.param(name, kernel_init, (size, size, self.num_classes, self.num_classes), jnp.float32)
        return ops.conv_transpose(x, kernel, factor)[:, crop : crop + shape[0], crop : crop + shape[1]]


class SkipFCN(nn.Module):
    """Images [B, H, W, C] -> logits [B, H, W, num_classes]: scores of a backbone's stages, fused coarse to fine.

    Modules: `backbone`, score<stride> for each stage; with `channels` instead lateral<stride>, fuse<stride>, score.
    """

    backbone: Network
    stages: Mapping[int, str]  # {stride: stage}
    num_classes: int
    channels: int | None
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, max(self.stages), 'this FCN')
        stages = self.backbone.features(images, train)
        strides = sorted(self.stages, reverse=True)
        x = self._project(strides[0], stages[self.stages[strides[0]]], train)
        for coarser, stride in pairwise(strides):
            skip = self._project(stride, stages[self.stages[stride]], train)
            x = _widen(x) if self.channels is None else x  # scores; maps keep their dtype
            # To the skip's shape, not by the stride: strides that round up leave a finer map of 2 n - 1 rows over one
            # of n. Half-pixel centres are taken for any backbone: a ResNet's places lie at multiples of the stride, so
            # its scores are up to half a stride off, as in torchvision's head.
            x = skip + ops.upsample_bilinear(x, coarser // stride, skip.shape[1:3])
            x = x if self.channels is None else self._unit(f'fuse{stride}', x, 3, train)
        if self.channels is not None:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = self._score('score', x)
        return ops.upsample_bilinear(_widen(x), strides[-1], images.shape[1:3])

    def _project(self, stride: int, x: jax.Array, train: bool) -> jax.Array:
        if self.channels is not None:
            return self._unit(f'lateral{stride}', x, 1, train)
        return self._score(f'score{stride}', nn.Dropout(self.dropout, deterministic=not train)(x))

    def _score(self, name: str, x: jax.Array) -> jax.Array:
        return Conv(self.num_classes, 1, dtype=self.dtype, kernel_init=initializers.zeros, name=name)(x)

    def _unit(self, name: str, x: jax.Array, size: int, train: bool) -> jax.Array:
        x = Conv(self.channels or 0, size, padding=size // 2, use_bias=False, dtype=self.dtype, name=name)(x)
        return ops.relu(BatchNorm(dtype=self.dtype, name=f'{name}_bn')(x, train))


class DilatedFCN(nn.Module):
    """torchvision's FCN: images [B, H, W, 3] -> logits [B, H, W, num_classes], from the last stage of a dilated ResNet.

    Modules: `backbone`, `head` and, with `auxiliary`, `auxiliary`, whose logits [B, H, W, num_classes], of conv4_x, are
    sown into the collection 'auxiliary' in training, and whenever that collection is mutable.
    """

    backbone: Network
    num_classes: int
    auxiliary: bool
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        stages, shape = self.backbone.features(images, train), images.shape[1:3]
        head = partial(DilatedHead, self.num_classes, self.dropout, self.dtype)
        if self.auxiliary and (train or self.is_mutable_collection('auxiliary')):
            logits = head(name='auxiliary')(stages['conv4_x'], shape, train)
            if not self.is_initializing():  # `init` would return the sown logits as variables
                self.sow('auxiliary', 'logits', logits)
        return head(name='head')(stages['conv5_x'], shape, train)


class DilatedHead(nn.Module):
    """A 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, 1x1 scores, and bilinear interpolation."""

    num_classes: int
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: jax.Array, shape: tuple[int, ...], train: bool) -> jax.Array:
        x = Conv(x.shape[-1] // 4, 3, padding=1, use_bias=False, dtype=self.dtype, name='conv')(x)
        x = ops.relu(BatchNorm(dtype=self.dtype, name='bn')(x, train))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Conv(self.num_classes, 1, dtype=self.dtype, name='score')(x)
        # Resized to the image, not by the stride: an image of 65 rows has a map of 9.
        return jax.image.resize(_widen(x), (x.shape[0], *shape, x.shape[-1]), 'bilinear')


def _widen(scores: jax.Array) -> jax.Array:
    """Returns scores in at least float32, in which they are interpolated: bfloat16 has steps of 1/128 next to 1."""
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def fcn32s(
    num_classes: Count = 21,
    upsampling: str = 'bilinear',
    border: int = 100,
    at_once: bool = False,
    dropout: DropRate = 0.5,
    width: float = 1.0,
    batch_norm: bool = False,
    dtype: str | None = None,
) -> FCN:
    """FCN-32s on VGG-16, for images of any size.

    Kernels are initialised by He et al.'s rule, for training from scratch; scores and all biases with 0.

    Args:
      num_classes: number of logits, background included.
      upsampling: 'bilinear' fixes the transposed convolutions, 'learned' initialises dense ones [k, k, C, C] with it.
      border: padding of the first convolution: the authors' 100, or 1 for small images. Then fc6 keeps the size of its
        map, no score is computed outside of the image, and scores at its border are repeated instead of fading.
      at_once: scales the maps of the skips by 0.01 and 0.0001, to train all of them at once (TPAMI, section 4.3).
      dropout: rate after fc6 and fc7.
      width: multiplies all channels and units (not in the paper).
      batch_norm: after every convolution of the backbone (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: `upsampling` or `border` is unknown.
    """
    if upsampling not in _UPSAMPLING:
        raise UsageError(f'model.upsampling={upsampling!r} is unknown{suggest(upsampling, _UPSAMPLING)}')
    if border not in (1, 100):
        raise UsageError(f"model.border={border} is neither the authors' 100 nor 1; the crops fit these only")
    backbone = vgg.vgg16(batch_norm=batch_norm, width=width, init='he', dtype=dtype).clone(ceil_mode=True)
    # 3x3 convolutions keep the centres, and 2x2 poolings put the first place of stride s at (s - 1) / 2. conv4 and
    # conv3 are pooled for the skips: VGG's stages end before their pooling, pool5 alone is a stage of its own.
    maps = {
        'fr': ('pool5', False, _Grid(32, 15.5)),
        'pool4': ('conv4', True, _Grid(16, 7.5)),
        'pool3': ('conv3', True, _Grid(8, 3.5)),
    }
    return FCN(
        backbone,
        _Trunk(border - 1, 7, maps),  # VGG's first convolution pads by 1 itself
        num_classes,
        0,
        at_once,
        upsampling == 'learned',
        dropout,
        width,
        None if dtype is None else jnp.dtype(dtype),
    )


def fcn16s(**arguments: Any) -> FCN:
    """FCN-16s: FCN-32s and the scores of pool4. Arguments are those of `fcn32s`."""
    return call(fcn32s, arguments, 'model').clone(skips=1)


def fcn8s(**arguments: Any) -> FCN:
    """FCN-8s: FCN-16s and the scores of pool3. Arguments are those of `fcn32s`."""
    return call(fcn32s, arguments, 'model').clone(skips=2)


def fcn_alexnet(
    num_classes: Count = 21,
    upsampling: str = 'bilinear',
    dropout: DropRate = 0.5,
    width: float = 1.0,
    variant: str = 'caffe',
    dtype: str | None = None,
) -> FCN:
    """FCN-32s on AlexNet, for images of any size; the first convolution pads by 100.

    Arguments are those of `fcn32s`, and `variant` is that of `canon.models.alexnet.alexnet`.
    """
    backbone = alexnet.alexnet(width=width, variant=variant, init='he', dtype=dtype).clone(ceil_mode=True)
    # Without a border, conv1's first window is centred at 5, and the three poolings add 4, 8 and 16.
    trunk = _Trunk(100, 6, {'fr': ('pool5', False, _Grid(32, 33.0))})
    small = call(fcn32s, dict(num_classes=num_classes, upsampling=upsampling, dropout=dropout, dtype=dtype), 'model')
    return small.clone(backbone=backbone, trunk=trunk, width=width)


def fcn_googlenet(
    num_classes: Count = 21,
    upsampling: str = 'bilinear',
    width: float = 1.0,
    variant: str = 'paper',
    dtype: str | None = None,
) -> FCN:
    """FCN-32s on GoogLeNet's inception_5b, for images from 31 pixels, without a border.

    Arguments are those of `fcn32s`, and `variant` is that of `canon.models.googlenet.googlenet`.
    """
    backbone = googlenet.googlenet(variant=variant, auxiliary=False, width=width, dtype=dtype)
    # The 3x3 poolings, without padding at the top, add 2, 4, 8 and 16; torchvision's last one is 2x2 and adds 8.
    centre = 22.0 if variant == 'torchvision' else 30.0
    trunk = _Trunk(0, None, {'fr': ('inception_5b', False, _Grid(32, centre))})
    small = call(fcn32s, dict(num_classes=num_classes, upsampling=upsampling, dtype=dtype), 'model')
    return small.clone(backbone=backbone, trunk=trunk, width=width)


def skip_fcn(
    backbone: Mapping[str, Any],
    num_classes: Count = 21,
    strides: tuple[int, ...] = (8, 16, 32),
    channels: Count | None = None,
    dropout: DropRate = 0.0,
    dtype: str | None = None,
) -> SkipFCN:
    """FCN's skips on any backbone of `canon.models` with `features`, without a border: for small images.

    The scores of the last stage of each stride are added, coarse to fine, each upsampled bilinearly to the next.

    >>> network = skip_fcn({'name': 'resnet.resnet18'}, num_classes=11)
    >>> network.stages
    {32: 'conv5_x', 16: 'conv4_x', 8: 'conv3_x'}

    Args:
      backbone: name and arguments of a network, {'name': 'resnet.resnet18'}.
      num_classes: number of logits, background included.
      strides: of the stages to score; the finest is the stride of the logits before the last upsampling.
      channels: fuses maps of so many channels, each with a 3x3 convolution, and scores the last one, instead of fusing
        scores (not in the paper).
      dropout: rate before the scores.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the backbone has no stage of a stride.
    """
    network = models.make_backbone(backbone, dtype)
    pyramid = select_pyramid(trace_stages(network))
    if missing := [stride for stride in strides if stride not in pyramid] or not strides:
        known = ', '.join(map(str, pyramid))
        raise UsageError(f'model.strides={tuple(strides)}: {backbone["name"]} has no {missing}; it has {known}')
    stages = {stride: pyramid[stride] for stride in sorted(strides, reverse=True)}
    return SkipFCN(network, stages, num_classes, channels, dropout, None if dtype is None else jnp.dtype(dtype))


def fcn_resnet50(
    num_classes: Count = 21, auxiliary: bool = True, dropout: DropRate = 0.1, dtype: str | None = None
) -> DilatedFCN:
    """torchvision's FCN on ResNet-50 with stride 8, 35,322,218 parameters with the auxiliary head and 21 classes.

    Args:
      num_classes: number of logits, background included.
      auxiliary: adds a head on conv4_x, for training; torchvision weights its loss by 0.5.
      dropout: rate before the scores.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    backbone = resnet.resnet50(output_stride=8, dtype=dtype)  # the last two stages dilate instead of halving
    return DilatedFCN(backbone, num_classes, auxiliary, dropout, None if dtype is None else jnp.dtype(dtype))
