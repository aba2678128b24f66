"""Networks of domain adaptation: a feature extractor, a classifier of its features, and a discriminator of domains.

Ganin et al., "Domain-adversarial training of neural networks", 2016, figure 1. One network serves every method, so that
methods are compared on equal terms; those that use no discriminator or no second classifier leave it untrained. The
parameters are in `extractor`, `classifier`, `second_classifier` and `discriminator`, for `optim.partition`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from canon import ops
from canon.errors import UsageError
from canon.named import Count, DropRate
from canon.nn import BatchNorm, Conv, check_images

Norm = Literal['none', 'batch']
DomainInput = Callable[[jax.Array, jax.Array], jax.Array]  # (features [B, D], logits [B, C]) -> [B, .]


class DigitExtractor(nn.Module):
    """Images [B, H, W, C] -> features [B, units]: two 5x5 convolutions with pooling, and a dense layer, all with ReLU.

    The extractor of Ganin et al. 2016, figure 4a, with `channels` maps in place of 32 and 48, and the first dense
    layer of its classifier. With `norm='batch'` a batch normalisation is before each ReLU; each domain of a batch is
    normalised by statistics of its own. Dropout is before and after the dense layer.
    """

    channels: tuple[int, int]
    units: int
    norm: Norm = 'none'
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 8, 'the extractor of digits')
        x = images
        for number, channels in enumerate(self.channels, 1):
            x = Conv(channels, 5, padding=2, use_bias=self.norm == 'none', name=f'conv{number}')(x)
            x = ops.max_pool(ops.relu(self._normalise(x, f'bn{number}', train)), 2)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = nn.Dense(self.units, use_bias=self.norm == 'none', name='dense')(drop(x.reshape(len(x), -1)))
        return drop(ops.relu(self._normalise(x, 'bn3', train)))

    def _normalise(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return x if self.norm == 'none' else BatchNorm(name=name)(x, train)


class FlatExtractor(nn.Module):
    """Images [B, H, W, C] or vectors [B, D] -> features [B, units]: dense layers with ReLU, of Glorot-uniform weights.

    With two layers of 390 units it is that of coloured digits in the code of Arjovsky et al. 2019 for IRM.
    """

    units: int
    layers: int = 2

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = images.reshape(len(images), -1)
        for number in range(1, self.layers + 1):
            x = ops.relu(nn.Dense(self.units, kernel_init=nn.initializers.glorot_uniform(), name=f'dense{number}')(x))
        return x


class ProjectedExtractor(nn.Module):
    """Images or vectors of several sizes -> features [B, units]: a projection of each size, then layers that all share.

    Heterogeneous adaptation (Day & Khoshgoftaar 2017, "A survey on heterogeneous transfer learning"): domains of
    different dimension have no features in common until each is projected into one space. The size tells the space:
    inputs of D = H W C values go through `project_D`.
    """

    sizes: tuple[int, ...]
    units: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = images.reshape(len(images), -1)
        if x.shape[1] not in self.sizes:
            raise UsageError(
                f'model.sizes={self.sizes} has no {x.shape[1]}, the values of an image of'
                f' {"x".join(map(str, images.shape[1:]))}; list the size of every domain'
            )
        # All projections exist from the start: a batch of initialisation has one domain alone.
        sizes = self.sizes if self.is_initializing() else (x.shape[1],)
        projected = {
            size: nn.Dense(self.units, name=f'project_{size}')(x if size == x.shape[1] else jnp.zeros((1, size)))
            for size in sizes
        }
        return ops.relu(nn.Dense(self.units, name='shared')(ops.relu(projected[x.shape[1]])))


class Discriminator(nn.Module):
    """Features [B, D] -> logits of domains [B, domains]: two hidden layers with ReLU."""

    units: int
    domains: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number in (1, 2):
            x = ops.relu(nn.Dense(self.units, name=f'dense{number}')(x))
        return nn.Dense(self.domains, name='output')(x)


class AdaptationNetwork(nn.Module):
    """A feature extractor with its heads.

    Attributes:
      extractor: (images [B, ...], train) -> features [B, D].
      classifier: features -> logits [B, C].
      second_classifier: of MCD, with an initialisation of its own.
      discriminator: of what `domain_input` makes of features and logits -> logits of domains.
    """

    extractor: nn.Module
    classifier: nn.Module
    second_classifier: nn.Module
    discriminator: nn.Module

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns the logits of the classifier [B, C]."""
        return self.classifier(self.extractor(images, train))

    def encode(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Returns features [B, D]."""
        return self.extractor(images, train)

    def classify(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the logits of both classifiers, [B, C] each."""
        return self.classifier(features), self.second_classifier(features)

    def discriminate(self, x: jax.Array) -> jax.Array:
        """Returns the logits of the domains, [B, domains]."""
        return self.discriminator(x)

    def initialise(self, images: jax.Array, domain_input: DomainInput) -> jax.Array:
        """Calls every part once, for `init`."""
        features = self.extractor(images, False)
        logits = self.classify(features)
        return self.discriminator(domain_input(features, logits[0]))


def digit_network(
    num_classes: Count = 10,
    channels: tuple[Count, Count] = (16, 32),
    units: Count = 64,
    domains: Count = 2,
    discriminator_units: Count = 64,
    norm: Norm = 'none',
    dropout: DropRate = 0.0,
) -> AdaptationNetwork:
    """Builds a small network for images of digits of 8x8 to 32x32.

    Args:
      num_classes: of the classifiers.
      channels: of the two convolutions.
      units: width of the features.
      domains: logits of the discriminator; the domains of a batch.
      discriminator_units: width of its two hidden layers.
      norm: 'none', or 'batch' after each layer of the extractor.
      dropout: rate in the extractor, before and after its dense layer.
    """
    return AdaptationNetwork(
        DigitExtractor(tuple(channels), units, norm, dropout),
        nn.Dense(num_classes),
        nn.Dense(num_classes),
        Discriminator(discriminator_units, domains),
    )


def mlp_network(
    num_classes: Count = 2, units: Count = 390, layers: Count = 2, domains: Count = 2, discriminator_units: Count = 64
) -> AdaptationNetwork:
    """Builds the network of coloured digits of Arjovsky et al. 2019 (IRM), and of vectors of any length.

    The authors' code has one logit and the logistic loss; two logits have the same posterior, and IRM's penalty of
    their softmax is the same.

    Args:
      num_classes: of the classifiers.
      units: width of the dense layers, and of the features.
      layers: dense layers of the extractor.
      domains: logits of the discriminator; the domains of a batch.
      discriminator_units: width of its two hidden layers.
    """
    heads = [nn.Dense(num_classes, kernel_init=nn.initializers.glorot_uniform()) for _ in range(2)]
    return AdaptationNetwork(FlatExtractor(units, layers), *heads, Discriminator(discriminator_units, domains))


def projected_network(
    num_classes: Count = 10,
    sizes: tuple[Count, ...] = (64, 256),
    units: Count = 128,
    domains: Count = 2,
    discriminator_units: Count = 64,
) -> AdaptationNetwork:
    """Builds a network for domains of different dimension, which learnt projections join (`ProjectedExtractor`).

    Args:
      num_classes: of the classifiers.
      sizes: values per image of each domain, H W C; domains of one size share their projection.
      units: width of the projections and of the features.
      domains: logits of the discriminator; the domains of a batch.
      discriminator_units: width of its two hidden layers.
    """
    extractor = ProjectedExtractor(tuple(sizes), units)
    return AdaptationNetwork(
        extractor, nn.Dense(num_classes), nn.Dense(num_classes), Discriminator(discriminator_units, domains)
    )
