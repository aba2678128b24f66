"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012.

torchvision's AlexNet is the one-tower network of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014.

| layer | 2012, two groups (one per GPU) | one tower |
|---|---|---|
| conv1 | 96, 11x11, stride 4; LRN; pool 3, stride 2 | 64, 11x11, stride 4, padding 2; pool |
| conv2 | 256, 5x5 in two groups; LRN; pool | 192, 5x5; pool |
| conv3 | 384, 3x3, across both groups | 384, 3x3 |
| conv4 | 384, 3x3 in two groups | 256, 3x3 |
| conv5 | 256, 3x3 in two groups; pool | 256, 3x3; pool |
| fc6, fc7, fc8 | 4096, 4096, 1000 | 4096, 4096, 1000 |

60,965,224 parameters for 227x227 (the paper says 224, which its own numbers of units contradict) and 61,100,840. The
error of one network on the validation set: 40.7 % top-1, 18.2 % top-5 (Table 2, ten crops).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, DropRate, suggest
from canon.nn import Conv, Network, check_images, scale_channels

TABLE = (
    cite('alexnet.alexnet', 60_965_224, 59.3, 81.8, 'Krizhevsky et al. 2012, Table 2, ten crops', size=227),
    cite('alexnet.alexnet', 60_965_224, 57.1, 80.2, 'Caffe bvlc_alexnet', size=227, variant='caffe'),
    cite('alexnet.alexnet_one_tower', 61_100_840, 56.522, 79.066, 'torchvision V1', 0.714e9),
)


class _Variant(NamedTuple):
    """The settings in which the paper and Caffe's bvlc_alexnet differ."""

    k: float  # of LRN
    divide_by_n: bool  # of LRN
    per_group: bool  # whether LRN normalises over the channels of its own group only
    bias: float  # initial, of conv2, conv4, conv5, fc6 and fc7
    dense_std: float  # of the initial kernels of fc6 and fc7


_VARIANTS = {
    'paper': _Variant(k=2.0, divide_by_n=False, per_group=True, bias=1.0, dense_std=0.01),
    'caffe': _Variant(k=1.0, divide_by_n=True, per_group=False, bias=0.1, dense_std=0.005),
}


class AlexNet(Network):
    """The two-group network of 2012; images [B, 227, 227, C] -> logits; stages conv1 .. conv5 (after ReLU), pool5."""

    num_classes: int
    dropout: float
    width: float
    variant: _Variant
    he: bool
    dtype: jnp.dtype | None
    ceil_mode: bool = False  # of the pooling, as in Caffe; the same for images of 227x227
    centred: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 67, 'AlexNet')
        normal, bias = self._normal(0.01), init.constant(0.0 if self.he else self.variant.bias)
        conv = partial(Conv, dtype=self.dtype, kernel_init=normal)
        dense = partial(nn.Dense, dtype=self.dtype)
        pad = self.centred
        pool = partial(ops.max_pool, window=3, stride=2, padding=int(pad), ceil_mode=self.ceil_mode)
        scale = partial(scale_channels, width=self.width, groups=2)  # even, so that both groups get the same number
        stages = {}
        x = stages['conv1'] = ops.relu(conv(scale(96), 11, stride=4, padding=5 if pad else 0, name='conv1')(images))
        x = pool(self._lrn(x))
        # Biases of 1 where the paper has them: ReLUs are active from the first step.
        x = conv(scale(256), 5, padding=2, groups=2, bias_init=bias, name='conv2')(x)
        x = stages['conv2'] = ops.relu(x)
        x = pool(self._lrn(x))
        x = stages['conv3'] = ops.relu(conv(scale(384), 3, padding=1, name='conv3')(x))
        x = conv(scale(384), 3, padding=1, groups=2, bias_init=bias, name='conv4')(x)
        x = stages['conv4'] = ops.relu(x)
        x = conv(scale(256), 3, padding=1, groups=2, bias_init=bias, name='conv5')(x)
        x = stages['conv5'] = ops.relu(x)
        x = stages['pool5'] = pool(x)
        if features:
            return stages
        x = x.reshape(x.shape[0], -1)
        for name in ('fc6', 'fc7'):
            kernel_init = self._normal(self.variant.dense_std)
            x = ops.relu(dense(scale(4096), kernel_init=kernel_init, bias_init=bias, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, kernel_init=normal, name='fc8')(x)

    def _normal(self, std: float) -> init.Initializer:
        return init.he_normal() if self.he else init.normal(std)

    def _lrn(self, x: jax.Array) -> jax.Array:
        """Normalises within each group: each GPU had its own maps, so a window does not reach into the other half."""
        lrn = partial(ops.lrn, size=5, alpha=1e-4, beta=0.75, k=self.variant.k, divide_by_n=self.variant.divide_by_n)
        if not self.variant.per_group:
            return lrn(x)  # bvlc_alexnet runs on one GPU
        return jnp.concatenate([lrn(half) for half in jnp.split(x, 2, axis=-1)], axis=-1)


class OneTower(Network):
    """The network of 2014 in torchvision's form: no LRN, dropout before fc6 and fc7; images [B, 224, 224, C] -> logits.

    Images of other sizes are accepted: pool5 is averaged to 6x6. Stages conv1 .. conv5 (after ReLU) and pool5.
    """

    num_classes: int
    dropout: float
    width: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 63, 'AlexNet in one tower')
        scale = partial(scale_channels, width=self.width)
        stages = {}
        x = stages['conv1'] = self._conv(images, scale(64), 11, 'conv1', stride=4, padding=2)
        x = ops.max_pool(x, 3, 2)
        x = stages['conv2'] = self._conv(x, scale(192), 5, 'conv2', padding=2)
        x = ops.max_pool(x, 3, 2)
        x = stages['conv3'] = self._conv(x, scale(384), 3, 'conv3', padding=1)
        x = stages['conv4'] = self._conv(x, scale(256), 3, 'conv4', padding=1)
        x = stages['conv5'] = self._conv(x, scale(256), 3, 'conv5', padding=1)
        x = stages['pool5'] = ops.max_pool(x, 3, 2)
        if features:
            return stages
        x = ops.adaptive_avg_pool(x, 6)  # the identity for images of 224x224
        x = x.reshape(x.shape[0], -1)
        for name in ('fc6', 'fc7'):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = ops.relu(self._dense(x, scale(4096), name))
        return self._dense(x, self.num_classes, 'fc8')

    def _conv(self, x: jax.Array, features: int, size: int, name: str, stride: int = 1, padding: int = 0) -> jax.Array:
        uniform = _uniform(size * size * x.shape[-1])
        layer = Conv(
            *(features, size, stride, padding), dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=name
        )
        return ops.relu(layer(x))

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        uniform = _uniform(x.shape[-1])
        return nn.Dense(features, dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=name)(x)


def alexnet(
    num_classes: Count = 1000,
    dropout: DropRate = 0.5,
    width: float = 1.0,
    variant: str = 'paper',
    init: str = 'normal',
    centred: bool = False,
    dtype: str | None = None,
) -> AlexNet:
    """Builds AlexNet of 2012, for images of 227x227; for other sizes, fc6 has the size that pool5 requires.

    Args:
      num_classes: number of logits.
      dropout: rate after fc6 and fc7.
      width: multiplies all channels and units (not in the paper).
      variant: 'paper' initialises the biases of conv2, conv4, conv5, fc6 and fc7 with 1 and all kernels from N(0,
        0.01), and its LRN has k = 2 and stays within a group. 'caffe' is bvlc_alexnet: biases of 0.1, fc6 and fc7 from
        N(0, 0.005), LRN across both groups with k = 1 and alpha / 5.
      init: 'normal', or 'he' for He et al.'s rule with biases of 0, without which narrow networks on small images do
        not start to learn.
      centred: pads windows so that place i of every map lies at i times its stride, as Fast R-CNN pools regions.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: `variant` or `init` is unknown.
    """
    if variant not in _VARIANTS:
        raise UsageError(f'model.variant={variant!r} is unknown{suggest(variant, _VARIANTS)}')
    if init not in ('normal', 'he'):
        raise UsageError(f'model.init={init!r} is unknown{suggest(init, ("normal", "he"))}')
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return AlexNet(num_classes, dropout, width, _VARIANTS[variant], init == 'he', dtype_, centred=centred)


def alexnet_one_tower(
    num_classes: Count = 1000, dropout: DropRate = 0.5, width: float = 1.0, dtype: str | None = None
) -> OneTower:
    """Builds torchvision's AlexNet, for images of 224x224 and, by adaptive pooling, of any size from 63.

    Kernels and biases are initialised from U(+-1 / sqrt(fan-in)), as in torchvision.

    Args:
      num_classes: number of logits.
      dropout: rate before fc6 and fc7.
      width: multiplies all channels and units.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    return OneTower(num_classes, dropout, width, None if dtype is None else jnp.dtype(dtype))


def _uniform(fan_in: int) -> Callable:
    bound = fan_in**-0.5

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw
