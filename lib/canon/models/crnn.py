"""CRNN: Shi, Bai, Yao, "An end-to-end trainable neural network for image-based sequence recognition and its application
to scene text recognition", 2015 (arXiv 1507.05717), table 1.

Seven convolutions turn an image of height 32 into a sequence of column features, two bidirectional LSTMs read it, and a
linear layer scores 37 classes per frame, a blank and 36 characters, for `canon.losses.ctc`. 8,326,693 parameters (the
paper: 8.3 M). Each bidirectional LSTM ends in a linear layer, 256 wide after the first: only then is the parameter
count the published one (8.7 M without).

Paper, code and later forms differ; `crnn` has each by keyword, and `dtrb` those of the benchmark:

| | table 1 of the paper | the authors' code (bgshih/crnn) | deep-text-recognition-benchmark, EasyOCR |
| --- | --- | --- | --- |
| `pooling` of pools 3 and 4 | 'paper': windows 2x1, 24 frames | 'code': 2x2, a column of padding, 26 frames | 'paper' |
| `batch_norm` follows | (5, 6) | (3, 5, 7) | (5, 6), whose convolutions have no bias |
| linear layers after LSTMs | not stated | 2: 256 and classes | 3: 256, 256 and classes |

The default takes BatchNorm from the paper and pooling from the code.
"""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.named import Count
from canon.nn import LSTM, BatchNorm, Conv, Dense, check_images
from canon.nn.rectifier import Rectifier

HEIGHT = 32  # four poolings halve it to 2 rows, which the 2x2 convolution takes to one
_POOLINGS: dict[str, dict[str, Any]] = {
    'paper': dict(window=(2, 1), stride=(2, 1)),
    'code': dict(window=2, stride=(2, 1), padding=(0, 1)),
}


class CRNN(linen.Module):
    """Images [B, H, W, C] -> logits float32 [B, T, num_classes + 1]; class 0 is the blank.

    T is W // 4 + 1 with `pooling='code'`, where frame t is centred on column 4 t of the image, and W // 4 - 1 with
    'paper', where it is centred between columns 4 t + 3 and 4 t + 4. The attributes are those of `crnn`; with
    `num_classes=None` the result are the features [B, T, hidden] that the output layer reads.
    """

    num_classes: int | None
    features: tuple[int, ...]
    hidden: int
    batch_norm: tuple[int, ...]
    dtype: jnp.dtype | None
    pooling: str = 'code'
    height: int = HEIGHT
    norm_bias: bool = True
    output_layer: bool = False
    fiducials: int = 0

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 8, 'CRNN')
        if images.shape[1] != self.height:
            raise UsageError(f'CRNN takes images {self.height} pixels high, not {images.shape[1]}; resize them')
        if self.fiducials:
            images = Rectifier(self.fiducials, name='rectifier')(images, train)
        x = self.extract_columns(images, train)
        x = BiLSTM(self.hidden, self.hidden, name='lstm1')(x)
        if self.num_classes is None:
            return BiLSTM(self.hidden, self.hidden, name='lstm2')(x)
        if self.output_layer:
            x = BiLSTM(self.hidden, self.hidden, name='lstm2')(x)
            return Dense(self.num_classes + 1, name='output')(x)
        return BiLSTM(self.hidden, self.num_classes + 1, name='lstm2')(x)

    def extract_columns(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the convolutions: [B, H, W, C] -> float32 [B, T, features[-1]]."""
        for number, features in enumerate(self.features, 1):
            # The last convolution takes the two remaining rows to one, without padding.
            size, padding = (2, 0) if number == 7 else (3, 1)
            normalised = number in self.batch_norm
            use_bias = self.norm_bias or not normalised
            x = Conv(features, size, padding=padding, use_bias=use_bias, dtype=self.dtype, name=f'conv{number}')(x)
            if normalised:
                x = BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train)
            x = ops.relu(x)
            if number in (1, 2):
                x = ops.max_pool(x, 2)
            elif number in (4, 6):  # halves the height only: characters are narrow, and every column is a frame
                x = ops.max_pool(x, **_POOLINGS[self.pooling])
        # One row is left of 32; of 64 there are three, whose mean is a frame (AdaptiveAvgPool in EasyOCR).
        return x.astype(jnp.float32).mean(1)


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
    pooling: Literal['code', 'paper'] = 'code',
    height: Count = HEIGHT,
    norm_bias: bool = True,
    output_layer: bool = False,
    fiducials: int = 0,
    dtype: str | None = None,
) -> CRNN:
    """Builds CRNN.

    Args:
      num_classes: characters, without the blank.
      features: channels of the seven convolutions.
      hidden: units of each LSTM, per direction.
      batch_norm: numbers of the convolutions, 1 to 7, that BatchNorm follows.
      pooling: of pools 3 and 4: 100 columns give 26 frames with 'code', 24 with 'paper'.
      height: of the images, in pixels, at least 32; rows beyond those that 32 pixels leave are averaged.
      norm_bias: whether convolutions that BatchNorm follows have a bias, which it cancels in training.
      output_layer: gives the second LSTM a linear layer `hidden` wide, and the classes one of their own.
      fiducials: points of a rectifier in front (`canon.nn.rectifier`), an even number; 0 for none.
      dtype: of the convolutions ('bfloat16'). LSTMs and parameters are float32 in any case.

    Raises:
      UsageError: there are not seven `features`, `batch_norm` has a number that is not a convolution's, or images are
        too low for four poolings.
    """
    if len(features) != 7:
        raise UsageError(f'model.features={tuple(features)} has {len(features)} widths; CRNN has seven convolutions')
    if not set(batch_norm) <= set(range(1, 8)):
        raise UsageError(f'model.batch_norm={tuple(batch_norm)} holds numbers of convolutions, 1 to 7')
    if height < HEIGHT:
        raise UsageError(f'model.height={height} leaves no row after four poolings; it must be at least {HEIGHT}')
    return CRNN(
        num_classes,
        tuple(features),
        hidden,
        tuple(batch_norm),
        None if dtype is None else jnp.dtype(dtype),
        pooling,
        height,
        norm_bias,
        output_layer,
        fiducials,
    )


def dtrb(
    num_classes: Count = 36,
    width: Count = 512,
    hidden: Count = 256,
    height: Count = HEIGHT,
    fiducials: int = 0,
    dtype: str | None = None,
) -> CRNN:
    """Builds CRNN as deep-text-recognition-benchmark has it (None-VGG-BiLSTM-CTC; Baek et al. 2019, arXiv 1904.01906).

    EasyOCR's recognisers of its second generation are `dtrb(96, width=256, height=64)`. `canon.weights` reads the
    weights of both. Images are grey, (x / 255 - 0.5) / 0.5.

    Args:
      num_classes: characters, without the blank.
      width: channels of the last three convolutions; the first ones have an eighth, a quarter and a half.
      hidden: units of each LSTM, per direction, and of the linear layers after them.
      height: of the images, in pixels: 32, or 64 in EasyOCR.
      fiducials: points of a rectifier in front, 20 in TPS-VGG-BiLSTM-CTC; 0 for none.
      dtype: of the convolutions ('bfloat16').
    """
    features = (width // 8, width // 4, width // 2, width // 2, width, width, width)
    options: dict[str, Any] = dict(pooling='paper', height=height, norm_bias=False, output_layer=True, dtype=dtype)
    return crnn(num_classes, features, hidden, fiducials=fiducials, **options)
