"""ZFNet: Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, Figure 3.

AlexNet with 7x7 filters at stride 2 in the first layer, stride 2 in the second, and no groups. 62,357,608 parameters
for images of 224x224; 38.4 % top-1 and 16.5 % top-5 error of one network on the validation set (Table 2).

Choices where the paper is silent: padding and rounding follow from the map sizes it prints (110, 55, 26, 13, 13, 13,
13, 6), which one pixel around conv1, none around conv2, and pooling that rounds up reproduce; the constants of the
"contrast normalisation across feature maps" after pool1 and pool2 are AlexNet's; "all weights are initialized to 1e-2"
is read as N(0, 0.01). The paper also rescales filters whose RMS exceeds 0.1 during training, which is the optimizer's
job.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.models import cite
from canon.named import Count, DropRate
from canon.nn import Conv, Network, check_images, scale_channels

TABLE = (cite('zfnet.zfnet', 62_357_608, 61.6, 83.5, 'Zeiler & Fergus 2013, Table 2, one convnet'),)


class ZFNet(Network):
    """Images [B, 224, 224, C] -> logits [B, num_classes]; stages conv1 .. conv5 (after the ReLU) and pool5."""

    num_classes: int
    dropout: float
    width: float
    dtype: jnp.dtype | None
    detection: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 47, 'ZFNet')
        conv = partial(Conv, dtype=self.dtype, kernel_init=init.normal(0.01))
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=init.normal(0.01))
        scale = partial(scale_channels, width=self.width)
        stages = {}
        # Padding of 1, 224 -> 110: with 0 or 2 the paper's 110 would be 109 or 111.
        first, second, reduce = (3, 2, _reduce_centred) if self.detection else (1, 0, _reduce)
        x = stages['conv1'] = ops.relu(conv(scale(96), 7, stride=2, padding=first, name='conv1')(images))
        x = reduce(x)
        x = stages['conv2'] = ops.relu(conv(scale(256), 5, stride=2, padding=second, name='conv2')(x))
        x = reduce(x)
        x = stages['conv3'] = ops.relu(conv(scale(384), 3, padding=1, name='conv3')(x))
        x = stages['conv4'] = ops.relu(conv(scale(384), 3, padding=1, name='conv4')(x))
        x = stages['conv5'] = ops.relu(conv(scale(256), 3, padding=1, name='conv5')(x))
        x = stages['pool5'] = ops.max_pool(x, 3, 2, ceil_mode=True)  # 13 -> 6: exact, so rounding does not matter here
        if features:
            return stages
        x = x.reshape(x.shape[0], -1)  # no adaptive pooling: fc6 fixes the size of the images
        for name in ('fc6', 'fc7'):
            x = ops.relu(dense(scale(4096), name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, name='fc8')(x)


def _reduce(x: jax.Array) -> jax.Array:
    return ops.lrn(ops.max_pool(x, 3, 2, ceil_mode=True))


def _reduce_centred(x: jax.Array) -> jax.Array:
    # The networks of Faster R-CNN's code normalise first, and within each channel over 3x3 pixels.
    return ops.max_pool(ops.lrn_within(x, 3, 5e-5, divide_by_n=True), 3, 2, padding=1, ceil_mode=True)


def zfnet(
    num_classes: Count = 1000,
    dropout: DropRate = 0.5,
    width: float = 1.0,
    detection: bool = False,
    dtype: str | None = None,
) -> ZFNet:
    """Builds ZFNet for images of 224x224; for other sizes, fc6 has the size that pool5 requires.

    Kernels are initialised from N(0, 0.01), biases with 0.

    Args:
      num_classes: number of logits.
      dropout: rate after fc6 and fc7.
      width: multiplies all channels and units (not in the paper).
      detection: the form of SPP-net and Faster R-CNN: every window is padded by half its size, so that place i of
        conv5 lies at pixel 16 i, and LRN comes before the pooling, within each channel. The parameters are the same
        but for fc6, whose map is larger.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    return ZFNet(num_classes, dropout, width, None if dtype is None else jnp.dtype(dtype), detection)
