"""Networks of appearance: crops of objects to unit vectors that are close for the same object.

Wojke, Bewley, Paulus, "Simple online and realtime tracking with a deep association metric", 2017, Table 1; the
activations are those of Wojke and Bewley, "Deep cosine metric learning for person re-identification", 2018:

| layer | stride | output at 128x64 |
|---|---|---|
| conv1, conv2: 3x3, 32 | 1 | 128x64 |
| max pool 3x3 | 2 | 64x32 |
| residual4, residual5: [3x3 32, 3x3 32] | 1 | 64x32 |
| residual6, residual7: [3x3 64, 3x3 64] | 2, 1 | 32x16 |
| residual8, residual9: [3x3 128, 3x3 128] | 2, 1 | 16x8 |
| dense, BatchNorm, L2 normalisation | | 128 |

It has 2,800,864 parameters with BatchNorms that shift and do not scale, which is what the paper counts.
`backbone_embedding` makes the same of any other network of images.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from canon import ops
from canon.models import cite, make_backbone
from canon.named import Count, Positive
from canon.nn import BatchNorm, Conv, Network, check_images, scale_channels

TABLE = (
    cite(
        *('appearance.deep_sort_network', 2_800_864, None, None, 'Wojke et al. 2017, Table 1 and section II-D'),
        size=(128, 64),
    ),
)


class AppearanceNetwork(Network):
    """Crops [B, H, W, C] -> unit vectors [B, units]; stages conv2, residual5, residual7 and residual9."""

    width: float
    units: int
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 8, 'the appearance network')
        stages, widths = {}, [scale_channels(channels, self.width) for channels in (32, 64, 128)]
        x = images
        for name in ('conv1', 'conv2'):
            x = Conv(widths[0], 3, padding=1, use_bias=False, dtype=self.dtype, name=name)(x)
            x = stages[name] = ops.elu(_norm(f'{name}_bn', self.dtype)(x, train))
        del stages['conv1']
        x = ops.max_pool(x, 3, 2, padding=1)
        for group, channels in enumerate(widths):
            for place, layer in enumerate((4 + 2 * group, 5 + 2 * group)):
                stride = 2 if group and not place else 1
                # The first block reads what the activation of conv2 has left: it needs no norm of its own.
                block = PreactivatedBlock(channels, stride, layer > 4, self.dtype, name=f'residual{layer}')
                x = block(x, train)
            stages[f'residual{layer}'] = x
        return stages if features else _project(x.reshape(len(x), -1), self.units, self.dtype, train)


class PreactivatedBlock(nn.Module):
    """BatchNorm, ELU and a 3x3 convolution twice, and a shortcut, by a 1x1 convolution where the shape changes."""

    channels: int
    stride: int
    normalise_input: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = ops.elu(_norm('bn1', self.dtype)(x, train)) if self.normalise_input else x
        y = Conv(self.channels, 3, self.stride, 1, use_bias=False, dtype=self.dtype, name='conv1')(y)
        y = ops.elu(_norm('bn2', self.dtype)(y, train))
        y = Conv(self.channels, 3, 1, 1, dtype=self.dtype, name='conv2')(y)
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = Conv(self.channels, 1, self.stride, use_bias=False, dtype=self.dtype, name='shortcut')(x)
        return x + y


class BackboneEmbedding(Network):
    """Images [B, H, W, C] -> unit vectors [B, units]: the mean of a backbone's stage, projected; stages are its own."""

    backbone: Network
    units: int
    stage: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        stages = self.backbone.features(images, train)
        if features:
            return stages
        # Insertion order: the last stage is the deepest.
        last = stages[self.stage or list(stages)[-1]]
        return _project(last.mean((1, 2)), self.units, self.dtype, train)


class CosineClassifier(nn.Module):
    """Unit vectors [B, E] -> logits kappa w_c . f of unit vectors w_c: Wojke and Bewley 2018, eq. 5.

    Parameters `directions` [E, num_classes] and `log_scale`, the logarithm of kappa, which is learnt.
    """

    num_classes: Count
    scale: Positive = 10.0  # kappa before training

    @nn.compact
    def __call__(self, embeddings: jax.Array) -> jax.Array:
        shape = (embeddings.shape[-1], self.num_classes)
        directions = self.param('directions', nn.initializers.normal(1.0), shape, jnp.float32)
        log_scale = self.param('log_scale', nn.initializers.constant(jnp.log(self.scale)), (), jnp.float32)
        unit = ops.l2_normalize(directions.T, jnp.ones(()))
        return jnp.exp(log_scale) * embeddings.astype(jnp.float32) @ unit.T


def deep_sort_network(width: Positive = 1.0, units: Count = 128, dtype: str | None = None) -> AppearanceNetwork:
    """Builds the network of DeepSORT for crops of one size of at least 8x8; 128x64 in the paper.

    Args:
      width: multiplies all channels (not in the paper).
      units: length of the vectors.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    return AppearanceNetwork(width, units, None if dtype is None else jnp.dtype(dtype))


def backbone_embedding(
    backbone: Mapping[str, Any], units: Count = 128, stage: str | None = None, dtype: str | None = None
) -> BackboneEmbedding:
    """Builds an embedding on any network of images, such as {'name': 'resnet.resnet50'}; crops may vary in size.

    Args:
      backbone: its name and arguments.
      units: length of the vectors.
      stage: whose mean is projected; None takes the last.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.
    """
    network = make_backbone(backbone, dtype)
    return BackboneEmbedding(network, units, stage, None if dtype is None else jnp.dtype(dtype))


def _norm(name: str, dtype: Any) -> BatchNorm:
    return BatchNorm(use_scale=False, dtype=dtype, name=name)


def _project(x: jax.Array, units: int, dtype: Any, train: bool) -> jax.Array:
    """Projects features [B, F] to unit vectors [B, units], float32, within a network's `__call__`."""
    x = nn.Dense(units, use_bias=False, dtype=dtype, name='projection')(x)
    x = _norm('projection_bn', dtype)(x, train)
    return ops.l2_normalize(x.astype(jnp.float32), jnp.ones(()))
