"""CRNN: Shi, Bai, Yao, "An end-to-end trainable neural network for image-based sequence recognition and its application
to scene text recognition", 2015 (arXiv 1507.05717), table 1.

Seven convolutions turn an image of height 32 into a sequence of column features, two bidirectional LSTMs read it, and a
linear layer scores 37 classes per frame, a blank and 36 characters, for `canon.losses.ctc`. 8,326,693 parameters (the
paper: 8.3 M).

Where the paper and the authors' code differ, the paper is the default: BatchNorm follows conv 5 and 6 (the code: 3, 5
and 7; see `batch_norm`). What the paper leaves open is as in the code: pools 3 and 4 are 2x2 with a stride of 2 rows
and 1 column and one column of padding, so that 100 columns give 26 frames. Each bidirectional LSTM ends in a linear
layer, 256 wide after the first: only then is the parameter count the published one (8.7 M without).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.named import Count
from canon.nn import LSTM, BatchNorm, Conv, Dense, check_images

HEIGHT = 32  # four poolings halve it to 2 rows, which the 2x2 convolution takes to one


class CRNN(linen.Module):
    """Images [B, 32, W, C] -> logits float32 [B, W // 4 + 1, num_classes + 1]; class 0 is the blank.

    Frame t is centred on column 4 t of the image. The attributes are those of `crnn`.
    """

    num_classes: int
    features: tuple[int, ...]
    hidden: int
    batch_norm: tuple[int, ...]
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 8, 'CRNN')
        if images.shape[1] != HEIGHT:
            raise UsageError(f'CRNN takes images {HEIGHT} pixels high, not {images.shape[1]}; resize them')
        x = self.extract_columns(images, train)
        x = BiLSTM(self.hidden, self.hidden, name='lstm1')(x)
        return BiLSTM(self.hidden, self.num_classes + 1, name='lstm2')(x)

    def extract_columns(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the convolutions: [B, 32, W, C] -> float32 [B, W // 4 + 1, features[-1]]."""
        for number, features in enumerate(self.features, 1):
            # The last convolution takes the two remaining rows to one, without padding.
            size, padding = (2, 0) if number == 7 else (3, 1)
            x = Conv(features, size, padding=padding, dtype=self.dtype, name=f'conv{number}')(x)
            if number in self.batch_norm:
                x = BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train)
            x = ops.relu(x)
            if number in (1, 2):
                x = ops.max_pool(x, 2)
            elif number in (4, 6):  # halves the height only: characters are narrow, and every column is a frame
                x = ops.max_pool(x, 2, (2, 1), padding=(0, 1))
        return x[:, 0].astype(jnp.float32)  # one row is left


class BiLSTM(linen.Module):
    """A bidirectional LSTM and a linear layer of its outputs: [B, T, C] -> [B, T, features].

    It computes in float32: a bfloat16 state would lose small contributions over many frames.
    """

    hidden: int
    features: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # The initialisation of flax's LSTM cell: LeCun's normal kernels, and forget biases of 0.
        options: dict[str, Any] = dict(forget_bias=0.0, kernel_init=init.lecun_normal())
        x, _ = LSTM(self.hidden, bidirectional=True, **options, name='lstm')(x)
        return Dense(self.features, name='output')(x)


def crnn(
    num_classes: Count = 36,
    features: Sequence[Count] = (64, 128, 256, 256, 512, 512, 512),
    hidden: Count = 256,
    batch_norm: Sequence[int] = (5, 6),
    dtype: str | None = None,
) -> CRNN:
    """Builds CRNN.

    Args:
      num_classes: characters, without the blank.
      features: channels of the seven convolutions.
      hidden: units of each LSTM, per direction.
      batch_norm: numbers of the convolutions, 1 to 7, that BatchNorm follows.
      dtype: of the convolutions ('bfloat16'). LSTMs and parameters are float32 in any case.

    Raises:
      UsageError: there are not seven `features`, or `batch_norm` has a number that is not a convolution's.
    """
    if len(features) != 7:
        raise UsageError(f'model.features={tuple(features)} has {len(features)} widths; CRNN has seven convolutions')
    if not set(batch_norm) <= set(range(1, 8)):
        raise UsageError(f'model.batch_norm={tuple(batch_norm)} holds numbers of convolutions, 1 to 7')
    return CRNN(num_classes, tuple(features), hidden, tuple(batch_norm), None if dtype is None else jnp.dtype(dtype))
