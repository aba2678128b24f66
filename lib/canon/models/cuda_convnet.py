"""The small CIFAR-10 networks of Krizhevsky's cuda-convnet (2011), on which AlexNet's choices were first tested.

| layer | |
|---|---|
| conv1 | 32, 5x5, padding 2; max pooling 3, stride 2 |
| conv2 | 32, 5x5, padding 2; average pooling 3, stride 2 |
| conv3 | 64, 5x5, padding 2; average pooling 3, stride 2 |
| fc | 10 |

Each convolution is followed by an activation and, optionally, a normalisation: the four-layer network of figure 1 of
"ImageNet classification with deep convolutional neural networks", as far as the paper describes it. 89,578 parameters
for 32x32x3 images.
"""

from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp

from canon import ops
from canon.errors import UsageError
from canon.named import Count, suggest
from canon.nn import BatchNorm, Conv, Network, check_images

_NORMS = ('none', 'lrn', 'batch')
_KERNELS = ('5x5', '3x3 3x3')


class ConvNet(Network):
    """Images [B, H, W, C] of at least 8 pixels per side -> logits [B, num_classes]; stages conv1, conv2, conv3."""

    num_classes: int
    activation: str
    norm: str
    kernels: str
    width: int
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 8, 'this network')
        # cuda-convnet rounds the number of windows up: 32, 16, 8, 4 pixels.
        pool = partial(ops.avg_pool, window=3, stride=2, ceil_mode=True, padding=0)
        stages, x = {}, images
        x = stages['conv1'] = self._layer(x, self.width, 'conv1', train)
        x = ops.max_pool(x, 3, 2, ceil_mode=True)
        x = stages['conv2'] = self._layer(x, self.width, 'conv2', train)
        x = pool(x)
        x = stages['conv3'] = self._layer(x, 2 * self.width, 'conv3', train)
        if features:
            return stages
        x = pool(x)
        return linen.Dense(self.num_classes, dtype=self.dtype, name='fc')(x.reshape(x.shape[0], -1))

    def _layer(self, x: jax.Array, width: int, name: str, train: bool) -> jax.Array:
        """Applies a 5x5 convolution, or two 3x3 ones with the same field, each with its activation."""
        sizes = [int(size[0]) for size in self.kernels.split()]
        for i, size in enumerate(sizes):
            part = name if len(sizes) == 1 else f'{name}_{i + 1}'
            bias = self.norm != 'batch'  # a norm subtracts it again
            x = Conv(width, size, padding=size // 2, use_bias=bias, dtype=self.dtype, name=part)(x)
            if self.norm == 'batch':
                x = BatchNorm(dtype=self.dtype, name=f'{part}_bn')(x, train)
            x = ops.activation(self.activation)(x)
            if self.norm == 'lrn':  # after the activation, as in AlexNet; a batch norm comes before it
                x = ops.lrn(x)
        return x


def cifar10(
    num_classes: Count = 10,
    activation: str = 'relu',
    norm: str = 'none',
    kernels: str = '5x5',
    width: int = 32,
    dtype: str | None = None,
) -> ConvNet:
    """Builds the network above.

    Args:
      num_classes: number of logits.
      activation: a name of `canon.ops.activation`.
      norm: 'none', 'lrn' (after the activation, with AlexNet's constants) or 'batch' (before it).
      kernels: '5x5', or '3x3 3x3' for two convolutions in the place of each (Simonyan & Zisserman 2015, section 2.3).
      width: channels of conv1 and conv2, half of conv3's.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the activation, the norm or the kernels are unknown, or the width is below 1.
    """
    ops.activation(activation)  # raises for an unknown name, before anything is traced
    for key, value, choices in (('norm', norm, _NORMS), ('kernels', kernels, _KERNELS)):
        if value not in choices:
            raise UsageError(f'model.{key}={value!r} is unknown{suggest(value, choices)}')
    if width < 1:
        raise UsageError(f'model.width={width} yields no channels; it must be at least 1')
    return ConvNet(num_classes, activation, norm, kernels, width, None if dtype is None else jnp.dtype(dtype))
