"""MobileNets: Howard et al., "MobileNets: efficient CNNs for mobile vision applications", 2017.

Table 1 of that paper, and Table 2 of Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.

V1 is conv1, 3x3 with 32 channels and stride 2, then 13 blocks of a depthwise 3x3 and a pointwise convolution, each with
batch normalisation and ReLU, average pooling and 1000 units. `BLOCKS` has the channels and strides; the paper's table
gives the last block a stride of 2, which contradicts its own sizes.

| width | parameters | multiply-adds at 224 | top-1 | | size | multiply-adds | top-1 |
|---|---|---|---|---|---|---|---|
| 1 | 4,231,976 | 569 M | 70.6 % | | 224 | 569 M | 70.6 % |
| 0.75 | 2,585,560 | 325 M | 68.4 % | | 192 | 418 M | 69.1 % |
| 0.5 | 1,331,592 | 149 M | 63.7 % | | 160 | 290 M | 67.2 % |
| 0.25 | 470,072 | 41 M | 50.6 % | | 128 | 186 M | 64.4 % |

V2 is V1's conv1, seven rows of bottlenecks (`ROWS`), conv_last, 1x1 with 1280 channels, average pooling and 1000 units.
A bottleneck expands the channels t times, filters depthwise, both with ReLU6, and projects linearly; if its shape does
not change, its input is added. The widths .35, .5, .75, 1, 1.3 and 1.4 have 1,677,128, 1,968,680, 2,636,424, 3,504,872,
5,386,792 and 6,108,776 parameters; the paper's top-1 accuracy is 72.0 % at 1 and 74.7 % at 1.4.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, DropRate, suggest
from canon.nn import BatchNorm, Conv, Network, check_images, make_divisible
from canon.ops.padding import Padding

BLOCKS = (  # channels, stride
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""t, c, n, s of Table 2: expansion, channels, number of blocks, stride of the first."""


_V1, _AUTHORS = 'Howard et al. 2017, Tables 4, 6, 7', "the authors' release, one crop"
TABLE = (
    cite('mobilenet.mobilenet_v1', 4_231_976, 70.6, None, _V1, 569e6),
    cite('mobilenet.mobilenet_v1', 2_585_560, 68.4, None, _V1, 325e6, width_multiplier=0.75),
    cite('mobilenet.mobilenet_v1', 1_331_592, 63.7, None, _V1, 149e6, width_multiplier=0.5),
    cite('mobilenet.mobilenet_v1', 470_072, 50.6, None, _V1, 41e6, width_multiplier=0.25),
    cite('mobilenet.mobilenet_v1', 4_231_976, 69.1, None, _V1, 418e6, size=192),
    cite('mobilenet.mobilenet_v1', 4_231_976, 67.2, None, _V1, 290e6, size=160),
    cite('mobilenet.mobilenet_v1', 4_231_976, 64.4, None, _V1, 186e6, size=128),
    cite('mobilenet.mobilenet_v1', 29_294_088, 71.7, None, _V1, 4866e6, separable=False),
    cite('mobilenet.mobilenet_v2', 3_504_872, 71.878, 90.286, 'torchvision V1', 0.301e9),
    cite('mobilenet.mobilenet_v2', 1_677_128, 60.3, 82.9, _AUTHORS, 59e6, width_multiplier=0.35),
    cite('mobilenet.mobilenet_v2', 1_968_680, 65.4, 86.4, _AUTHORS, 97e6, width_multiplier=0.5),
    cite('mobilenet.mobilenet_v2', 2_636_424, 69.8, 89.6, _AUTHORS, 209e6, width_multiplier=0.75),
    cite('mobilenet.mobilenet_v2', 3_504_872, 71.8, 91.0, _AUTHORS, 300e6),
    cite('mobilenet.mobilenet_v2', 5_386_792, 74.4, 92.1, _AUTHORS, 509e6, width_multiplier=1.3),
    cite('mobilenet.mobilenet_v2', 6_108_776, 75.0, 92.5, _AUTHORS, 582e6, width_multiplier=1.4),
)

_BOTTLENECKS = ('linear', 'relu6')


class MobileNetV1(Network):
    """Images [B, H, W, C] -> logits [B, num_classes]; stages conv1, block1 .. block13.

    A block contains depthwise, depthwise_bn, pointwise, pointwise_bn, or full, full_bn for full convolutions.
    """

    num_classes: int
    width_multiplier: float
    separable: bool
    activation: str
    padding: Padding
    eps: float
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 32, 'MobileNet')
        kernel_init = init.truncated_normal(0.09)
        unit = partial(_unit, activation=self.activation, eps=self.eps, dtype=self.dtype, kernel_init=kernel_init)
        stages = {}
        x = stages['conv1'] = unit(images, self._widen(32), 3, 2, self.padding, name='conv1', norm='bn1', train=train)
        for place, (channels, stride) in enumerate(BLOCKS, start=1):
            block = SeparableBlock(
                self._widen(channels), stride, self.padding, self.separable, unit, name=f'block{place}'
            )
            x = stages[f'block{place}'] = block(x, train)
        if features:
            return stages
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=kernel_init, name='classifier')(x)

    def _widen(self, channels: int) -> int:
        return int(channels * self.width_multiplier)  # rounded down, as in the authors' code


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution, or one full convolution in their place (`separable=False`)."""

    features: int
    stride: int
    padding: Padding
    separable: bool
    unit: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        unit = partial(self.unit, train=train)
        # Table 4's comparison: one full 3x3 convolution of the same shape.
        if not self.separable:
            return unit(x, self.features, 3, self.stride, self.padding, name='full')
        # One 3x3 filter per channel, then a mixture of channels: 1 / N + 1 / 9 of the cost of a full convolution.
        x = unit(x, x.shape[-1], 3, self.stride, self.padding, groups=x.shape[-1], name='depthwise')
        return unit(x, self.features, 1, name='pointwise')


class MobileNetV2(Network):
    """Images [B, H, W, C] -> logits [B, num_classes]; stages conv1, bottleneck1 .. bottleneck7 (rows), conv_last.

    Blocks are named bottleneck<row>_<index> and contain expand, expand_bn, depthwise, depthwise_bn, project,
    project_bn.
    """

    num_classes: int
    width_multiplier: float
    bottleneck: str
    residual: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 32, 'MobileNetV2')
        unit, width = partial(_unit, dtype=self.dtype, train=train), self.width_multiplier
        stages = {}
        x = stages['conv1'] = unit(images, make_divisible(32 * width), 3, 2, 1, name='conv1', norm='bn1')
        for row, (expansion, channels, count, stride) in enumerate(ROWS, start=1):
            for place in range(1, count + 1):
                block = InvertedResidual(
                    make_divisible(channels * width),
                    expansion,
                    stride if place == 1 else 1,  # the first block of a row reduces the resolution
                    self.bottleneck,
                    self.residual,
                    self.dtype,
                    name=f'bottleneck{row}_{place}',
                )
                x = block(x, train)
            stages[f'bottleneck{row}'] = x
        last = make_divisible(1280 * max(1.0, width))  # narrow networks keep all features for the classifier
        x = stages['conv_last'] = unit(x, last, 1, name='conv_last', norm='bn_last')
        if features:
            return stages
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=init.normal(0.01), name='classifier')(x)


class InvertedResidual(nn.Module):
    """Table 1: 1x1 expansion, depthwise 3x3, 1x1 projection; adds the input if the shape does not change."""

    features: int
    expansion: int
    stride: int
    bottleneck: str
    residual: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        unit, hidden = partial(_unit, dtype=self.dtype, train=train), x.shape[-1] * self.expansion
        # The published weights have no expansion where it would keep the number of channels.
        y = x if self.expansion == 1 else unit(x, hidden, 1, name='expand')
        y = unit(y, hidden, 3, self.stride, 1, groups=hidden, name='depthwise')
        # Linear by default: a ReLU on so few channels would destroy information (section 3.2).
        y = unit(y, self.features, 1, name='project', activation=self.bottleneck)
        return x + y if self.residual and x.shape == y.shape else y  # between bottlenecks, not between expansions


def _unit(
    x, features, size, stride=1, padding: Padding = 0, *, name, norm=None, train=False, activation='relu6', eps=1e-5,
    dtype=None, groups=1, **conv,
):  # fmt: skip
    """Applies a convolution without bias, `norm` (None: its name and '_bn') and an activation, within a `__call__`."""
    x = Conv(features, size, stride, padding, groups=groups, use_bias=False, dtype=dtype, name=name, **conv)(x)
    return ops.activation(activation)(BatchNorm(eps=eps, dtype=dtype, name=norm or f'{name}_bn')(x, train))


def mobilenet_v1(
    num_classes: Count = 1000,
    width_multiplier: float = 1.0,
    separable: bool = True,
    activation: str = 'relu',
    padding: Padding = 'same',
    eps: float = 1e-3,
    dropout: DropRate = 0.001,
    dtype: str | None = None,
) -> MobileNetV1:
    """Builds MobileNet; the paper's resolution multiplier is the size of the images, 224, 192, 160 or 128 (from 32).

    Kernels are initialised as in the authors' TensorFlow code, from N(0, 0.09^2) truncated at two deviations; biases
    with 0. timm's mobilenetv1_100 takes activation='relu6', padding=1 and eps=1e-5.

    Args:
      num_classes: number of logits.
      width_multiplier: the paper's alpha, of all channels.
      separable: False has full 3x3 convolutions instead of depthwise and pointwise ones, the paper's comparison (Table
        4).
      activation: 'relu' in the paper; the authors' published weights expect 'relu6'.
      padding: of the 3x3 convolutions, that of the authors' code.
      eps: of the norms, that of the authors' code.
      dropout: rate before the classifier, that of the authors' code.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the width leaves no channels, or the activation is unknown.
    """
    ops.activation(activation)  # raises for an unknown name, before anything is traced
    _check_width(width_multiplier)
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return MobileNetV1(num_classes, width_multiplier, separable, activation, padding, eps, dropout, dtype_)


def mobilenet_v2(
    num_classes: Count = 1000,
    width_multiplier: float = 1.0,
    bottleneck: str = 'linear',
    residual: bool = True,
    dropout: DropRate = 0.2,
    dtype: str | None = None,
) -> MobileNetV2:
    """Builds MobileNetV2 in torchvision's form: symmetric padding, eps 1e-5 in the norms; for images from 32x32 up.

    Convolutions are initialised from N(0, 2 / fan-out), the classifier from N(0, 0.01^2), biases with 0.

    Args:
      num_classes: number of logits.
      width_multiplier: of all channels, rounded to multiples of 8 (`canon.nn.make_divisible`); conv_last has at least
        1280.
      bottleneck: activation after a projection, 'linear' or 'relu6', a comparison of figure 6.
      residual: False leaves out the shortcuts, the other comparison of figure 6.
      dropout: rate before the classifier.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the width leaves no channels, or the bottleneck is unknown.
    """
    if bottleneck not in _BOTTLENECKS:
        raise UsageError(f'model.bottleneck={bottleneck!r} is unknown{suggest(bottleneck, _BOTTLENECKS)}')
    _check_width(width_multiplier)
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return MobileNetV2(num_classes, width_multiplier, bottleneck, residual, dropout, dtype_)


def _check_width(width: float) -> None:
    # conv1 is the narrowest layer, and the first to lose all channels.
    if 32 * width < 1:
        raise UsageError(f'model.width_multiplier={width} leaves none of 32 channels; widen it')
