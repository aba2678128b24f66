"""Laia, a recogniser of handwritten lines: Puigcerver, "Are multidimensional recurrent layers really necessary for
handwritten text recognition?", ICDAR 2017.

| layers | |
| --- | --- |
| convolutions 3x3 of 16, 32, 48, 64, 80 channels | BatchNorm, leaky ReLU; dropout 0.2 before the last three |
| 2x2 pooling | after each of the first three |
| columns | the 80 maps of 16 rows become 1,280 features of a frame |
| 5 bidirectional LSTMs of 256 units per direction | dropout 0.5 before each |
| linear | dropout 0.5 before it |

9,589,456 parameters with 95 characters. Images are 128 pixels high and of any width; 8 columns are a frame. The paper
trains it by CTC with RMSProp at 0.0003 and batches of 16 lines.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from canon import ops
from canon.errors import UsageError
from canon.named import Count, DropRate
from canon.nn import LSTM, BatchNorm, Conv, Dense, check_images


class Laia(linen.Module):
    """Images [B, H, W, C] -> logits float32 [B, T, num_classes + 1]; class 0 is the blank of CTC.

    T is W divided by the widths of all pools, rounded down at each. The attributes are those of `laia`.
    """

    num_classes: int
    features: tuple[int, ...]
    pools: tuple[tuple[int, int], ...]
    hidden: int
    layers: int
    conv_dropout: float
    dropout: float
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 8, 'Laia')
        x = images
        for number, features in enumerate(self.features, 1):
            if number > 2:  # the first maps are few, and all of them are needed
                x = linen.Dropout(self.conv_dropout, deterministic=not train)(x)
            x = Conv(features, 3, padding=1, use_bias=False, dtype=self.dtype, name=f'conv{number}')(x)
            x = ops.leaky_relu(BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train))
            if number <= len(self.pools):
                x = ops.max_pool(x, self.pools[number - 1])
        # [B, h, T, C] -> [B, T, h C]; the LSTMs are float32, since small contributions add over many frames.
        x = jnp.swapaxes(x, 1, 2).astype(jnp.float32)
        x = x.reshape(*x.shape[:2], -1)
        for number in range(1, self.layers + 1):
            x = linen.Dropout(self.dropout, deterministic=not train)(x)
            x, _ = LSTM(self.hidden, bidirectional=True, name=f'lstm{number}')(x)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.num_classes + 1, name='output')(x)


def laia(
    num_classes: Count = 95,
    features: Sequence[Count] = (16, 32, 48, 64, 80),
    pools: Sequence[Sequence[Count]] = ((2, 2), (2, 2), (2, 2)),
    hidden: Count = 256,
    layers: Count = 5,
    conv_dropout: DropRate = 0.2,
    dropout: DropRate = 0.5,
    dtype: str | None = None,
) -> Laia:
    """Builds the network; the defaults are those of the paper.

    Args:
      num_classes: characters, without the blank.
      features: channels of the convolutions.
      pools: (height, width) of the windows that follow the first convolutions. The product of the widths is the number
        of columns per frame: 8 for lines 128 pixels high, 4 for lower ones, whose letters are narrower.
      hidden: units of each LSTM, per direction.
      layers: bidirectional LSTMs.
      conv_dropout: rate before the third and all later convolutions.
      dropout: rate before each LSTM and before the last layer.
      dtype: of the convolutions ('bfloat16'). LSTMs and parameters are float32 in any case.

    Raises:
      UsageError: there are more pools than convolutions, or one is not a pair.
    """
    windows: Any = tuple(tuple(pool) for pool in pools)
    if len(windows) > len(features) or any(len(window) != 2 for window in windows):
        raise UsageError(
            f'model.pools={windows} must be pairs (height, width), at most one for each of {len(features)} convolutions'
        )
    kind = None if dtype is None else jnp.dtype(dtype)
    return Laia(num_classes, tuple(features), windows, hidden, layers, conv_dropout, dropout, kind)
