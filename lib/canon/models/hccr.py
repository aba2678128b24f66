"""Handwritten Chinese characters: Xiao, Jin, Yang, Yang, Sun, Chang, "Building fast and compact convolutional neural
networks for offline handwritten Chinese character recognition", 2017 (arXiv 1702.07975).

HCCR-CNN9Layer, the paper's network before its compression: grey images of 96x96, seven 3x3 convolutions of 96, 128,
160, 256, 256, 384 and 384 channels, 3x3 pooling with stride 2 after the first three, the fifth and the seventh, a layer
of 1,024 units, and one of 3,755 classes. BatchNorm and PReLU (He et al. 2015) follow every layer but the last, and
dropout 0.5 the 1,024 units. The paper reports 41.5 MB for the weights; these are 10.86 M numbers of 4 bytes, 41.4 MiB.
"""

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.named import Count, DropRate, Positive
from canon.nn import BatchNorm, Conv, Network, check_images, scale_channels

_CHANNELS = (96, 128, 160, 256, 256, 384, 384)
_POOLED = (1, 2, 3, 5, 7)  # convolutions that a pooling follows
_UNITS = 1024
_POOLINGS = 1 << len(_POOLED)


class HCCR(Network):
    """Images [B, H, W, C] -> logits float32 [B, num_classes]; stages conv1 .. conv7 after their activations."""

    num_classes: int
    width: float
    dropout: float
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False) -> Any:
        check_images(images, _POOLINGS, 'HCCR')
        x, stages = images, {}
        for number, channels in enumerate(_CHANNELS, 1):
            size = scale_channels(channels, self.width)
            x = Conv(size, 3, padding=1, use_bias=False, dtype=self.dtype, name=f'conv{number}')(x)
            x = PReLU(name=f'prelu{number}')(BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train))
            stages[f'conv{number}'] = x
            if number in _POOLED:
                # Rounded up, as in Caffe: 96 becomes 48, 24, 12, 6 and 3.
                x = ops.max_pool(x, 3, 2, ceil_mode=True)
        if features:
            return stages
        units = scale_channels(_UNITS, self.width)
        x = linen.Dense(units, use_bias=False, dtype=self.dtype, name='fc1')(x.reshape(len(x), -1))
        x = PReLU(name='prelu8')(BatchNorm(dtype=self.dtype, name='bn8')(x, train))
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return linen.Dense(self.num_classes, dtype=self.dtype, name='fc2')(x).astype(jnp.float32)


class PReLU(linen.Module):
    """max(0, z) + a min(0, z) with a slope a per channel that is learnt, at first 0.25 (He et al. 2015, eq. 1)."""

    @linen.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        slopes = self.param('slopes', init.constant(0.25), (z.shape[-1],), jnp.float32)
        return jnp.where(z > 0, z, slopes.astype(z.dtype) * z)


def hccr_cnn9(
    num_classes: Count = 3755, width: Positive = 1.0, dropout: DropRate = 0.5, dtype: str | None = None
) -> HCCR:
    """Builds HCCR-CNN9Layer, for images of one size of at least 32x32, 96x96 in the paper.

    Args:
      num_classes: characters.
      width: factor of the numbers of channels and units.
      dropout: rate before the last layer.
      dtype: of the computation ('bfloat16'); parameters are float32.
    """
    return HCCR(num_classes, width, dropout, None if dtype is None else jnp.dtype(dtype))
