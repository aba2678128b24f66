"""Residual networks: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015.

Table 1 and section 4.2 of that paper, and "Identity mappings in deep residual networks", 2016 (pre-activation).

| stage | at 224 | 18 | 34 | 50 | 101 | 152 |
|---|---|---|---|---|---|---|
| conv1 | 112 | 7x7, 64, stride 2 | | | | |
| conv2_x | 56 | 3x3 max pool, stride 2; [3x3 64, 3x3 64] x 2 | x 3 | [1x1 64, 3x3 64, 1x1 256] x 3 | x 3 | x 3 |
| conv3_x | 28 | [128, 128] x 2 | x 4 | [128, 128, 512] x 4 | x 4 | x 8 |
| conv4_x | 14 | [256, 256] x 2 | x 6 | [256, 256, 1024] x 6 | x 23 | x 36 |
| conv5_x | 7 | [512, 512] x 2 | x 3 | [512, 512, 2048] x 3 | x 3 | x 3 |
| average pool, 1000 units | 1 | 11,689,512 parameters | 21,797,672 | 25,557,032 | 44,549,160 | 60,192,808 |

conv3_1, conv4_1 and conv5_1 halve the resolution. The authors' models of 50, 101 and 152 layers have 24.7, 23.6 and
23.0 % top-1 error on one crop, 22.9, 21.8 and 21.4 % on ten. The stages conv2_x .. conv5_x are FPN's C2 .. C5.

For CIFAR-10, networks of 6n + 2 layers: conv1 3x3 16, then n blocks [3x3, 3x3] at each of 32x32x16, 16x16x32 and
8x8x64, with zero-padded shortcuts. The errors of 20, 32, 44, 56, 110 and 1202 layers are 8.75, 7.51, 7.17, 6.97, 6.43
and 7.93 %; those of pre-activation bottlenecks of 64, 128 and 256 channels, 9n + 2 layers, 5.46 (164) and 4.92 %
(1001).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, NonNegative, call, suggest
from canon.nn import BatchNorm, Conv, Network, check_images, scale_channels

_MSRA, _TORCH = 'the authors, one crop; multiply-adds Table 1', 'torchvision V1'
_CIFAR, _PREACT = 'He et al. 2015, Table 6, CIFAR-10', 'He et al. 2016, Table 4, CIFAR-10'
TABLE = (
    cite('resnet.resnet18', 11_689_512, 69.758, 89.078, _TORCH, 1.814e9),
    cite('resnet.resnet34', 21_797_672, 73.314, 91.42, _TORCH, 3.664e9),
    cite('resnet.resnet50', 25_557_032, 76.13, 92.862, _TORCH, 4.089e9),
    cite('resnet.resnet101', 44_549_160, 77.374, 93.546, _TORCH, 7.801e9),
    cite('resnet.resnet152', 60_192_808, 78.312, 94.046, _TORCH, 11.514e9),
    cite('resnet.resnet18', None, None, None, 'multiply-adds Table 1', 1.8e9, shortcut='padding'),
    cite('resnet.resnet34', None, None, None, 'multiply-adds Table 1', 3.6e9, shortcut='padding'),
    cite('resnet.resnet50', 25_557_032, 75.3, 92.2, _MSRA, 3.8e9, stride_at='1x1'),
    cite('resnet.resnet101', 44_549_160, 76.4, 92.9, _MSRA, 7.6e9, stride_at='1x1'),
    cite('resnet.resnet152', 60_192_808, 77.0, 93.3, _MSRA, 11.3e9, stride_at='1x1'),
    cite('resnet.resnet20_cifar', 269_722, 91.25, None, _CIFAR, size=32),
    cite('resnet.resnet32_cifar', 464_154, 92.49, None, _CIFAR, size=32),
    cite('resnet.resnet44_cifar', 658_586, 92.83, None, _CIFAR, size=32),
    cite('resnet.resnet56_cifar', 853_018, 93.03, None, _CIFAR, size=32),
    cite('resnet.resnet110_cifar', 1_727_962, 93.57, None, _CIFAR, size=32),
    cite('resnet.resnet1202_cifar', 19_421_274, 92.07, None, _CIFAR, size=32),
    cite('resnet.preact_resnet164', 1_703_258, 94.54, None, _PREACT, size=32),
    cite('resnet.preact_resnet1001', 10_327_706, 95.08, None, _PREACT, size=32),
)

_SHORTCUTS = ('padding', 'projection', 'projection_all')  # the paper's A, B, C
_STRIDES = ('1x1', '3x3')
_NORMS = ('batch', 'frozen')
# torch's initialisation of fully connected layers, which the authors' code keeps: U(+-1 / sqrt(fan-in)); biases 0.
_DENSE = initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class _Form(NamedTuple):
    """Settings that all blocks of a network share, as documented at `resnet18`."""

    shortcut: str
    stride_at: str
    plain: bool
    zero_init_last: bool
    frozen_norm: bool
    dtype: Any
    norm_eps: float = 1e-5
    constant_norm: bool = False

    def conv(self, features: int, size: int, name: str, stride: int = 1, dilation: int = 1) -> Conv:
        # Symmetric padding, as in Caffe and torch; 'same' would shift strided windows. A norm follows: no bias.
        padding = dilation * (size // 2)
        return Conv(features, size, stride, padding, dilation, use_bias=False, dtype=self.dtype, name=name)

    def norm(self, name: str, last: bool = False) -> BatchNorm:
        # With a scale of 0 a block starts as its shortcut (Goyal et al. 2017, section 5.1).
        scale = initializers.zeros if last and self.zero_init_last else initializers.ones
        return BatchNorm(
            eps=self.norm_eps,
            frozen=self.frozen_norm,
            constant=self.constant_norm,
            dtype=self.dtype,
            scale_init=scale,
            name=name,
        )


class ResNet(Network):
    """Images [B, H, W, C] -> logits [B, num_classes]; stages conv1, conv2_x, ... (after the last ReLU of each).

    Blocks are named conv2_1, conv2_2, ... and contain conv1, bn1, conv2, ... and, with a projection, shortcut and
    shortcut_bn.
    """

    block: Callable
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    cifar: bool
    num_classes: int
    form: _Form
    output_stride: int = 32
    width: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 4 if self.cifar else 32, 'this ResNet')
        form, stages = self.form, {}
        widths = [scale_channels(channels, self.width) for channels in self.widths]
        x = form.conv(widths[0], 3 if self.cifar else 7, 'conv1', 1 if self.cifar else 2)(images)
        x = stages['conv1'] = ops.relu(form.norm('bn1')(x, train))
        if not self.cifar:  # images of 32x32 are small enough without a pooling
            x = ops.max_pool(x, 3, 2, padding=1)
        reached, dilation = 1 if self.cifar else 4, 1
        for stage, (width, depth) in enumerate(zip(widths, self.depths, strict=True), start=2):
            strides = stage > 2  # the pooling already reduced conv2_x
            # A stage that would exceed the output stride keeps its resolution and dilates instead.
            dilates = strides and reached >= self.output_stride
            reached *= 1 if dilates or not strides else 2
            for place in range(1, depth + 1):
                stride = 2 if place == 1 and strides and not dilates else 1
                x = self.block(width, stride, form, dilation, name=f'conv{stage}_{place}')(x, train)
                if place == 1 and dilates:  # the first block still reads its neighbours where the stride would have
                    dilation *= 2
            stages[f'conv{stage}_x'] = x
        return stages if features else _classifier(self.num_classes, form)(x.mean((1, 2)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: figure 5, left."""

    width: int
    stride: int
    form: _Form
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        form = self.form
        y = form.conv(self.width, 3, 'conv1', self.stride, self.dilation)(x)
        y = ops.relu(form.norm('bn1')(y, train))
        y = form.norm('bn2', last=True)(form.conv(self.width, 3, 'conv2', dilation=self.dilation)(y), train)
        return _add_shortcut(x, y, self.stride, form, train)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, and a shortcut: figure 5, right."""

    width: int
    stride: int
    form: _Form
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        form = self.form
        # In the 3x3 convolution the stride loses no pixel; in the 1x1 three of four are never read.
        first, second = (self.stride, 1) if form.stride_at == '1x1' else (1, self.stride)
        y = form.conv(self.width, 1, 'conv1', first)(x)
        y = ops.relu(form.norm('bn1')(y, train))
        y = form.conv(self.width, 3, 'conv2', second, self.dilation)(y)
        y = ops.relu(form.norm('bn2')(y, train))
        y = form.norm('bn3', last=True)(form.conv(4 * self.width, 1, 'conv3')(y), train)
        return _add_shortcut(x, y, self.stride, form, train)


def _add_shortcut(x: jax.Array, y: jax.Array, stride: int, form: _Form, train: bool) -> jax.Array:
    """Computes relu(y + shortcut(x)), or relu(y) for a plain network, within a block's `__call__`."""
    if form.plain:  # the norms already keep signals in range, so this isolates the effect of the shortcut
        return ops.relu(y)
    changes = stride > 1 or x.shape[-1] != y.shape[-1]
    if form.shortcut == 'projection_all' or (form.shortcut == 'projection' and changes):
        x = form.norm('shortcut_bn')(form.conv(y.shape[-1], 1, 'shortcut', stride)(x), train)
    elif changes:  # every second pixel, and zeros for the new channels
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1])))
    return ops.relu(y + x)


class PreActResNet(Network):
    """Images [B, H, W, C] -> logits [B, num_classes]; stages conv1, conv2_x, ... (sums before activation) and last.

    The stage last is the final sum, normalised and rectified, which is averaged for the classifier.
    """

    depth: int
    num_classes: int
    form: _Form

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 4, 'this ResNet')
        form, stages = self.form, {}
        x = stages['conv1'] = form.conv(16, 3, 'conv1')(images)
        for stage, channels in enumerate((64, 128, 256), start=2):
            for place in range(1, self.depth + 1):
                stride = 2 if place == 1 and stage > 2 else 1
                x = PreActBottleneck(channels, stride, form, name=f'conv{stage}_{place}')(x, train)
            stages[f'conv{stage}_x'] = x
        x = stages['last'] = ops.relu(form.norm('bn')(x, train))  # no block normalises the last sum
        return stages if features else _classifier(self.num_classes, form)(x.mean((1, 2)))


class PreActBottleneck(nn.Module):
    """Three times normalisation, ReLU and convolution, and an identity shortcut: He et al. 2016, figure 1 (b).

    The first block of a stage has a projection, which takes the same normalised and rectified x as the residual branch.
    """

    channels: int
    stride: int
    form: _Form

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        form, width = self.form, self.channels // 4
        y = ops.relu(form.norm('bn1')(x, train))
        if x.shape[-1] != self.channels:
            x = form.conv(self.channels, 1, 'shortcut', self.stride)(y)
        y = form.conv(width, 1, 'conv1', self.stride)(y)
        y = form.conv(width, 3, 'conv2')(ops.relu(form.norm('bn2')(y, train)))
        y = form.conv(self.channels, 1, 'conv3')(ops.relu(form.norm('bn3')(y, train)))
        return y if form.plain else x + y  # no ReLU after the sum: the identity reaches through all blocks


def _classifier(num_classes: int, form: _Form) -> nn.Dense:
    return nn.Dense(num_classes, dtype=form.dtype, kernel_init=_DENSE, name='fc')


def resnet18(
    num_classes: Count = 1000,
    shortcut: str = 'projection',
    stride_at: str = '3x3',
    plain: bool = False,
    zero_init_last: bool = False,
    frozen_norm: bool = False,
    output_stride: int = 32,
    width: float = 1.0,
    norm: str = 'batch',
    norm_eps: NonNegative = 1e-5,
    dtype: str | None = None,
) -> ResNet:
    """Builds the residual network of 18 layers, for images of 224x224 and of any size from 32.

    Convolutions are initialised from N(0, 2 / fan-out) (He et al. 2015), the classifier from U(+-1 / sqrt(fan-in)), its
    bias with 0.

    Args:
      num_classes: number of logits.
      shortcut: of blocks that change the shape: 'projection' (the paper's B), a 1x1 convolution and a norm; 'padding'
        (A), zeros for new channels. 'projection_all' (C) projects in every block.
      stride_at: which convolution of a bottleneck has the stride: '1x1', the first, as in the paper's models ("v1"), or
        '3x3', as in torchvision's ("v1.5", so that its weights fit). Without effect in networks of basic blocks.
      plain: leaves out the shortcuts, the paper's comparison.
      zero_init_last: initialises the scale of a block's last norm with 0 (not in the paper), so that the block starts
        as its shortcut.
      frozen_norm: normalises by the running statistics in training as well, to fine-tune detectors.
      output_stride: 32, or 16 or 8 for segmentation: the last one or two stages, instead of halving the resolution,
        double the dilation of their 3x3 convolutions. The parameters are the same.
      width: multiplies all channels (not in the paper).
      norm: 'batch', or 'frozen': statistics, scales and biases are constants in 'batch_stats', for a detector that
        starts from published weights. With `frozen_norm` scales and biases are still trained.
      norm_eps: is added to variances. torchvision's detectors have 0 with their published weights.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: `shortcut`, `stride_at`, `norm` or `output_stride` is unknown, or the width leaves no channels.
    """
    if output_stride not in (8, 16, 32):
        raise UsageError(f'model.output_stride={output_stride} is not one of 8, 16, 32')
    given = (('shortcut', shortcut, _SHORTCUTS), ('stride_at', stride_at, _STRIDES), ('norm', norm, _NORMS))
    for key, value, choices in given:
        if value not in choices:
            raise UsageError(f'model.{key}={value!r} is unknown{suggest(value, choices)}')
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    constant = norm == 'frozen'
    form = _Form(shortcut, stride_at, plain, zero_init_last, frozen_norm, dtype_, norm_eps, constant)
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), False, num_classes, form, output_stride, width)


def resnet34(**arguments: Any) -> ResNet:
    """Builds the network of 34 layers. Arguments are those of `resnet18`."""
    # `call` checks the arguments against the signature of `resnet18` before anything is built.
    return call(resnet18, arguments, 'model').clone(depths=(3, 4, 6, 3))


def resnet50(**arguments: Any) -> ResNet:
    """Builds the network of 50 layers in bottlenecks. Arguments are those of `resnet18`."""
    return call(resnet18, arguments, 'model').clone(depths=(3, 4, 6, 3), block=Bottleneck)


def resnet101(**arguments: Any) -> ResNet:
    """Builds the network of 101 layers in bottlenecks. Arguments are those of `resnet18`."""
    return call(resnet18, arguments, 'model').clone(depths=(3, 4, 23, 3), block=Bottleneck)


def resnet152(**arguments: Any) -> ResNet:
    """Builds the network of 152 layers in bottlenecks. Arguments are those of `resnet18`."""
    return call(resnet18, arguments, 'model').clone(depths=(3, 8, 36, 3), block=Bottleneck)


def resnet20_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the 20-layer network for CIFAR: images of 32x32, of any size from 4. Arguments are those of `resnet18`."""
    return _cifar(3, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def resnet32_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the network of 32 layers. Arguments are those of `resnet20_cifar`."""
    return _cifar(5, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def resnet44_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the network of 44 layers. Arguments are those of `resnet20_cifar`."""
    return _cifar(7, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def resnet56_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the network of 56 layers. Arguments are those of `resnet20_cifar`."""
    return _cifar(9, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def resnet110_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the network of 110 layers, which the paper warms up at a rate of 0.01; otherwise as `resnet20_cifar`."""
    return _cifar(18, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def resnet1202_cifar(num_classes: Count = 10, shortcut: str = 'padding', **arguments: Any) -> ResNet:
    """Builds the network of 1202 layers. Arguments are those of `resnet20_cifar`."""
    return _cifar(200, dict(num_classes=num_classes, shortcut=shortcut) | arguments)


def _cifar(depth: int, arguments: dict[str, Any]) -> ResNet:
    return call(resnet18, arguments, 'model').clone(
        block=BasicBlock, depths=(depth,) * 3, widths=(16, 32, 64), cifar=True
    )


def preact_resnet164(
    num_classes: Count = 10, plain: bool = False, frozen_norm: bool = False, dtype: str | None = None
) -> PreActResNet:
    """Builds the 164-layer pre-activation network for CIFAR: images of 32x32 and of any size from 4.

    The stride is in the first 1x1. Arguments and initialisation are those of `resnet18`.
    """
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return PreActResNet(18, num_classes, _Form('projection', '1x1', plain, False, frozen_norm, dtype_))


def preact_resnet1001(**arguments: Any) -> PreActResNet:
    """Builds the 1001-layer pre-activation network. Arguments are those of `preact_resnet164`."""
    return call(preact_resnet164, arguments, 'model').clone(depth=111)
