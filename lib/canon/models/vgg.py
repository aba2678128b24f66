"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, Table 1.

| net | 64 | 128 | 256 | 512 | 512 | parameters | with batch norm |
|---|---|---|---|---|---|---|---|
| A `vgg11`, A-LRN `vgg11_lrn` | 3 | 3 | 3 3 | 3 3 | 3 3 | 132,863,336 | 132,868,840 |
| B `vgg13` | 3 3 | 3 3 | 3 3 | 3 3 | 3 3 | 133,047,848 | 133,053,736 |
| C `vgg16_c` | 3 3 | 3 3 | 3 3 1 | 3 3 1 | 3 3 1 | 133,638,952 | |
| D `vgg16` | 3 3 | 3 3 | 3 3 3 | 3 3 3 | 3 3 3 | 138,357,544 | 138,365,992 |
| E `vgg19` | 3 3 | 3 3 | 3 3 3 3 | 3 3 3 3 | 3 3 3 3 | 143,667,240 | 143,678,248 |

A digit is a convolution of that size with the channels of its column; 2x2 pooling follows each column, then layers of
4096, 4096 and 1000 units. The top-1 errors on the validation set are 29.6 (A), 28.7 (B), 28.1 (C), 27.0 (D) and 27.3 %
(E), trained and tested at a shorter side of 256 (Table 3). Batch normalisation is torchvision's addition.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, DropRate, call, suggest
from canon.nn import BatchNorm, Conv, Network, check_images, scale_channels

_CHANNELS = (64, 128, 256, 512, 512)
_KERNELS = {
    'A': ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    'B': ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    'C': ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    'D': ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    'E': ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}

# What a deeper net takes over from a trained A (section 3.1): its first four convolutions, each where the input and
# output # channels are the same, and the three fully connected layers. The rest keeps its own initialisation. For
# `run.init_from`, together with the `path` of A's run.
SHALLOW_TO_DEEP = dict(new=r'^(?!(batch_stats/)?((conv|bn)(1_1|2_1|3_1|3_2)|fc[678])/)')


_TABLE3 = 'Simonyan & Zisserman 2015, Table 3, S = Q = 256'
TABLE = (
    cite('vgg.vgg11', 132_863_336, 70.4, 89.6, _TABLE3, 7.609e9),
    cite('vgg.vgg11_lrn', 132_863_336, 70.3, 89.5, _TABLE3),
    cite('vgg.vgg13', 133_047_848, 71.3, 90.1, _TABLE3, 11.308e9),
    cite('vgg.vgg16_c', 133_638_952, 71.9, 90.6, _TABLE3),
    cite('vgg.vgg16', 138_357_544, 73.0, 91.2, _TABLE3, 15.47e9),
    cite('vgg.vgg19', 143_667_240, 72.7, 91.0, _TABLE3, 19.632e9),
    cite('vgg.vgg11', 132_868_840, 70.37, 89.81, 'torchvision V1', 7.609e9, batch_norm=True),
    cite('vgg.vgg13', 133_053_736, 71.586, 90.374, 'torchvision V1', 11.308e9, batch_norm=True),
    cite('vgg.vgg16', 138_365_992, 73.36, 91.516, 'torchvision V1', 15.47e9, batch_norm=True),
    cite('vgg.vgg19', 143_678_248, 74.218, 91.842, 'torchvision V1', 19.632e9, batch_norm=True),
)

_INITS = {
    'normal': initializers.normal,
    'glorot': lambda std: initializers.glorot_uniform(),
    'he': lambda std: initializers.he_normal(),
}


class VGG(Network):
    """Images [B, 224, 224, C] -> logits [B, num_classes]; stages conv1 .. conv5, the last of each column, and pool5.

    Layers are named conv<column>_<row>, bn<column>_<row>, fc6, fc7, fc8. Images of other sizes are accepted: pool5 is
    averaged to 7x7, as in torchvision. With `dense` the fully connected layers slide over pool5 instead.
    """

    kernels: tuple[tuple[int, ...], ...]
    num_classes: int
    batch_norm: bool
    lrn: bool
    dense: bool
    dropout: float
    width: float
    kernel_init: initializers.Initializer
    dtype: jnp.dtype | None
    ceil_mode: bool = False  # of the pooling: Caffe's, whose last window may reach beyond the map

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 224 if self.dense and not features else 32, 'dense VGG' if self.dense else 'VGG')
        scale = partial(scale_channels, width=self.width)
        x, stages = images, {}
        for column, (channels, kernels) in enumerate(zip(_CHANNELS, self.kernels, strict=True), start=1):
            for row, size in enumerate(kernels, start=1):
                name = f'{column}_{row}'
                x = self._conv(scale(channels), size, padding=size // 2, name=f'conv{name}')(x)
                if self.batch_norm:  # the convolutions keep their biases, as in torchvision's weights
                    x = BatchNorm(dtype=self.dtype, name=f'bn{name}')(x, train)
                x = ops.relu(x)
            stages[f'conv{column}'] = x
            if self.lrn and column == 1:  # after conv1_1, the only convolution of A's first column
                x = ops.lrn(x)
            x = ops.max_pool(x, 2, ceil_mode=self.ceil_mode)
        stages['pool5'] = x
        if features:
            return stages
        x = x if self.dense else ops.adaptive_avg_pool(x, 7)  # the identity for images of 224x224
        for name, units, window in (('fc6', 4096, 7), ('fc7', 4096, 1)):
            x = ops.relu(_Sliding(scale(units), window, self.kernel_init, self.dtype, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = _Sliding(self.num_classes, 1, self.kernel_init, self.dtype, name='fc8')(x)
        return x if self.dense else x[:, 0, 0]  # a single window

    @property
    def _conv(self):
        return partial(Conv, dtype=self.dtype, kernel_init=self.kernel_init)


class _Sliding(nn.Module):
    """A fully connected layer on every window of a map: [B, h, w, C] -> [B, h - window + 1, w - window + 1, features].

    Its kernel [window * window * C, features] is that of a dense layer on a flattened window; on a larger map it is
    reshaped to [window, window, C, features] and convolved.
    """

    features: int
    window: int
    kernel_init: initializers.Initializer
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows = self.window**2 * x.shape[-1]
        kernel = self.param('kernel', self.kernel_init, (rows, self.features), jnp.float32)
        bias = self.param('bias', initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if x.shape[1:3] == (self.window, self.window):  # a matrix product is faster than its convolution
            return (x.reshape(x.shape[0], rows) @ kernel + bias)[:, None, None]
        return ops.conv(x, kernel.reshape(self.window, self.window, -1, self.features)) + bias


def vgg11(
    num_classes: Count = 1000,
    batch_norm: bool = False,
    dense: bool = False,
    dropout: DropRate = 0.5,
    width: float = 1.0,
    init: str = 'normal',
    std: float = 0.1,
    dtype: str | None = None,
) -> VGG:
    """Builds VGG A.

    Args:
      num_classes: number of logits.
      batch_norm: after every convolution, as in torchvision's `_bn` nets.
      dense: the fully convolutional form of section 3.2, the same parameters as a 7x7 and two 1x1 convolutions, for
        images from 224 up. Logits are [B, h, w, num_classes], one vector per 7x7 window of pool5; each corresponds to a
        crop of 224 pixels at a stride of 32, but for the crop's own zero padding. Their mean is the paper's score.
      dropout: rate after fc6 and fc7.
      width: multiplies all channels and units (not in the paper).
      init: 'normal' draws every kernel from N(0, std^2). 'glorot' is Glorot & Bengio's uniform rule, with which, by
        section 3.1, no net needs another's parameters to start from. 'he' is He et al. 2015, which preserves the scale
        of activations. Biases are initialised with 0.
      std: for 'normal'. The default is the variance 1e-2 of section 3.1; activations grow with every layer, and white
        noise of 224x224 gives logits of 2.6e6. With Caffe's 0.01 they are 2.6e-5, with 'glorot' 0.03.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: `init` is unknown, or the width leaves no channels.
    """
    if init not in _INITS:
        raise UsageError(f'model.init={init!r} is unknown{suggest(init, _INITS)}')
    kernel_init, dtype_ = _INITS[init](std), None if dtype is None else jnp.dtype(dtype)
    return VGG(_KERNELS['A'], num_classes, batch_norm, False, dense, dropout, width, kernel_init, dtype_)


def vgg11_lrn(**arguments: Any) -> VGG:
    """Builds VGG A-LRN: A with AlexNet's local response normalisation after conv1_1. Arguments are those of `vgg11`."""
    return call(vgg11, arguments, 'model').clone(lrn=True)


def vgg13(**arguments: Any) -> VGG:
    """Builds VGG B. Arguments are those of `vgg11`."""
    return call(vgg11, arguments, 'model').clone(kernels=_KERNELS['B'])


def vgg16_c(**arguments: Any) -> VGG:
    """Builds VGG C: the third convolution of a column is 1x1. Arguments are those of `vgg11`."""
    return call(vgg11, arguments, 'model').clone(kernels=_KERNELS['C'])


def vgg16(**arguments: Any) -> VGG:
    """Builds VGG D. Arguments are those of `vgg11`."""
    return call(vgg11, arguments, 'model').clone(kernels=_KERNELS['D'])


def vgg19(**arguments: Any) -> VGG:
    """Builds VGG E. Arguments are those of `vgg11`."""
    return call(vgg11, arguments, 'model').clone(kernels=_KERNELS['E'])
