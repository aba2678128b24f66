"""Network in Network, Lin, Chen, Yan, 2014: convolutions followed by 1x1 convolutions, global average pooling.

The paper gives the idea and the number of blocks; the sizes are those of the authors' code: `nin_cifar` is their
cifar-10_def (and cifar-100_def) for cuda-convnet, `nin_imagenet` the network of Caffe's model zoo.

| block | `nin_cifar`, 32x32 | `nin_imagenet`, 224x224 |
|---|---|---|
| mlpconv1 | 5x5 192, 160, 96; pool 3, stride 2; dropout | 11x11 stride 4 96, 96, 96; pool 3, stride 2 |
| mlpconv2 | 5x5 192, 192, 192; pool; dropout | 5x5 256, 256, 256; pool |
| mlpconv3 | 3x3 192, 192, classes | 3x3 384, 384, 384; pool; dropout |
| mlpconv4 | | 3x3 1024, 1024, classes |

966,986 and 7,595,176 parameters. The error on CIFAR-10 is 10.41 %, and 8.81 % with augmentation; the authors report a
top-1 accuracy of 59.36 % on ImageNet's validation set for the second.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.models import cite
from canon.named import Count, DropRate
from canon.nn import Conv, Network, check_images, scale_channels


class _Block(NamedTuple):
    """A convolution, two 1x1 convolutions and, in all blocks but the last, pooling."""

    size: int
    stride: int
    padding: int
    channels: tuple[int, int, int]  # of the three convolutions; 0 stands for the number of classes
    stds: tuple[float, float, float]  # of their initial kernels
    dropout: bool = False  # after the pooling


_CIFAR = (
    _Block(5, 1, 2, (192, 160, 96), (0.05, 0.05, 0.05), dropout=True),
    _Block(5, 1, 2, (192, 192, 192), (0.05, 0.05, 0.05), dropout=True),
    _Block(3, 1, 1, (192, 192, 0), (0.05, 0.05, 0.05)),
)
_IMAGENET = (
    _Block(11, 4, 0, (96, 96, 96), (0.01, 0.05, 0.05)),
    _Block(5, 1, 2, (256, 256, 256), (0.05, 0.05, 0.05)),
    _Block(3, 1, 1, (384, 384, 384), (0.01, 0.05, 0.05), dropout=True),
    _Block(3, 1, 1, (1024, 1024, 0), (0.05, 0.05, 0.01)),
)

TABLE = (
    cite(
        'nin.nin_cifar',
        966_986,
        91.19,
        None,
        'Lin et al. 2014, CIFAR-10, mirrored and shifted images',
        size=32,
        num_classes=10,
    ),
    cite('nin.nin_imagenet', 7_595_176, 59.36, None, 'Caffe model zoo, nin_imagenet'),
)


class NIN(Network):
    """Images -> logits [B, num_classes]; stages mlpconv1, ... (each after its third ReLU, before pooling).

    The last block gives one map per class, whose mean is the logit. Convolutions are named conv<block>, the 1x1 ones
    cccp1, cccp2, ... in one sequence (cascaded cross channel pooling), as by the authors.
    """

    blocks: tuple[_Block, ...]
    num_classes: int
    least: int
    dropout: float
    width: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, self.least, 'Network in Network')
        x, stages = images, {}
        for i, block in enumerate(self.blocks):
            x = self._conv(x, block, 0, f'conv{i + 1}', block.size, block.stride, block.padding)
            x = self._conv(x, block, 1, f'cccp{2 * i + 1}')
            x = stages[f'mlpconv{i + 1}'] = self._conv(x, block, 2, f'cccp{2 * i + 2}')
            if block is not self.blocks[-1]:
                x = ops.max_pool(x, 3, 2, ceil_mode=True)  # overlapping, as in cuda-convnet and Caffe
            if block.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return stages if features else x.mean((1, 2))  # global average pooling in place of fully connected layers

    def _conv(self, x, block: _Block, index: int, name: str, size: int = 1, stride: int = 1, padding: int = 0):
        channels = block.channels[index]
        features = scale_channels(channels, self.width) if channels else self.num_classes
        layer = Conv(
            *(features, size, stride, padding),
            dtype=self.dtype,
            kernel_init=init.normal(block.stds[index]),
            name=name,
        )
        # The last convolution too, as in the authors' code: no logit is negative.
        return ops.relu(layer(x))


def nin_cifar(num_classes: Count = 10, dropout: DropRate = 0.5, width: float = 1.0, dtype: str | None = None) -> NIN:
    """Builds the network of three blocks for CIFAR's 32x32 images.

    Kernels are initialised from N(0, 0.05), biases with 0.

    Args:
      num_classes: number of logits.
      dropout: rate after both poolings.
      width: multiplies all channels (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    return NIN(_CIFAR, num_classes, 4, dropout, width, None if dtype is None else jnp.dtype(dtype))


def nin_imagenet(
    num_classes: Count = 1000, dropout: DropRate = 0.5, width: float = 1.0, dtype: str | None = None
) -> NIN:
    """Builds the network of four blocks for ImageNet.

    Kernels are initialised from N(0, 0.05) or N(0, 0.01), biases with 0.

    Args:
      num_classes: number of logits.
      dropout: rate after pool3.
      width: multiplies all channels (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    return NIN(_IMAGENET, num_classes, 39, dropout, width, None if dtype is None else jnp.dtype(dtype))
