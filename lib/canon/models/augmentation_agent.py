"""The agent of Learn to Augment: Luo, Zhu, Jin, Wang, "Learn to augment: joint data augmentation and network
optimization for text recognition", 2020 (arXiv 2003.06606).

A small network looks at an image of text and predicts, for each of 2 (N + 1) fiducial points on its upper and lower
border and for each axis, whether the point should move forwards or backwards. How far is not predicted: it is drawn
anew for every image (`canon.tasks.text.augmentation`).

Six 3x3 convolutions of 16, 64, 128, 128, 64 and 16 maps, four 2x2 poolings and a linear layer: 320,288 parameters for
grey images and N = 3. The paper trains it along with the recogniser, by Adadelta.
"""

from collections.abc import Sequence

import flax.linen as linen
import jax
import jax.numpy as jnp

from canon import ops
from canon.errors import UsageError
from canon.named import Count
from canon.nn import BatchNorm, Conv, check_images

_SIZE = 32, 100  # pixels that the agent sees, whatever the size of the images
_NORMALISED, _POOLED = (3, 5, 6), (1, 2, 4, 6)  # convolutions that BatchNorm, and pooling, follow


class AugmentationAgent(linen.Module):
    """Images [B, H, W, C] -> logits float32 [B, points, 2, 2]: of point, axis (x, y) and sign (backwards, forwards).

    Points are in the order of `canon.tasks.text.augmentation.fiducial_points`.
    """

    points: int
    features: tuple[int, ...]
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 1, 'AugmentationAgent')
        x = images
        if x.shape[1:3] != _SIZE:  # the linear layer needs one size
            x = jax.image.resize(x, (len(x), *_SIZE, x.shape[-1]), 'linear')
        for number, features in enumerate(self.features, 1):
            normalised = number in _NORMALISED
            x = Conv(features, 3, padding=1, use_bias=not normalised, dtype=self.dtype, name=f'conv{number}')(x)
            if normalised:
                x = BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train)
            x = ops.relu(x)
            if number in _POOLED:
                x = ops.max_pool(x, 2)
        x = x.reshape(len(x), -1).astype(jnp.float32)
        # Logits of zero at first: every direction is equally likely before anything has been learnt.
        x = linen.Dense(4 * self.points, kernel_init=linen.initializers.zeros, name='output')(x)
        return x.reshape(-1, self.points, 2, 2)


def augmentation_agent(
    patches: Count = 3, features: Sequence[Count] = (16, 64, 128, 128, 64, 16), dtype: str | None = None
) -> AugmentationAgent:
    """Builds the agent.

    Args:
      patches: N, patches that the image is divided into, side by side.
      features: maps of the six convolutions.
      dtype: of the convolutions ('bfloat16'). Parameters are float32 in any case.

    Raises:
      UsageError: there are not six `features`.
    """
    if len(features) != 6:
        raise UsageError(f'agent.features={tuple(features)} has {len(features)} widths; the agent has six convolutions')
    return AugmentationAgent(2 * (patches + 1), tuple(features), None if dtype is None else jnp.dtype(dtype))
