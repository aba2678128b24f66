"""DomainBed's network for coloured and rotated MNIST: Gulrajani & Lopez-Paz 2021.

"In search of lost domain generalization", appendix on network architectures; constants are those of the authors' code.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from canon import ops
from canon.models.domain_adversarial import AdaptationNetwork, Discriminator
from canon.named import Count
from canon.nn import Conv, check_images

_CHANNELS, _STRIDES, _GROUPS = (64, 128, 128, 128), (1, 2, 1, 1), 8


class ConvExtractor(nn.Module):
    """Images [B, H, W, C] -> features [B, 128]: four 3x3 convolutions, each with ReLU and then GroupNorm, and a mean.

    No dense layer follows the mean: the authors report that one hurts generalisation over rotations.
    """

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 8, 'the network of DomainBed')
        x = images
        for number, (channels, stride) in enumerate(zip(_CHANNELS, _STRIDES, strict=True), 1):
            x = ops.relu(Conv(channels, 3, stride, padding=1, name=f'conv{number}')(x))
            x = nn.GroupNorm(_GROUPS, epsilon=1e-5, name=f'norm{number}')(x)
        return x.mean((1, 2))


def mnist_network(num_classes: Count = 10, domains: Count = 2, discriminator_units: Count = 256) -> AdaptationNetwork:
    """Builds DomainBed's MNIST_CNN with its heads: 371,136 parameters of the extractor for two channels.

    Args:
      num_classes: of the classifiers.
      domains: logits of the discriminator; the domains of a batch.
      discriminator_units: width of its two hidden layers.
    """
    return AdaptationNetwork(
        ConvExtractor(), nn.Dense(num_classes), nn.Dense(num_classes), Discriminator(discriminator_units, domains)
    )
