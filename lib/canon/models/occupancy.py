"""Occupancy networks: whether points are inside a shape, given a point cloud of its surface (Mescheder et al. 2019).

Mescheder, Oechsle, Niemeyer, Nowozin & Geiger 2019, "Occupancy networks: learning 3D reconstruction in function space".
A PointNet with residual blocks encodes the cloud (6,825,472 parameters). The decoder's batch normalisations take their
scale and shift from the code (3,548,417). Together 10,373,889, as in the authors' code for point clouds.
"""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import nn
from canon.named import Count

# PyTorch's default for linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_UNIFORM = init.variance_scaling(1 / 3, 'fan_in', 'uniform')


class ConditionalBatchNorm(linen.Module):
    """Conditional batch normalisation (de Vries et al. 2017): gamma(c) (x - mean) / sqrt(var + 1e-5) + beta(c).

    gamma and beta are affine in the code c; at initialisation gamma = 1 and beta = 0 for every code.
    """

    @linen.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        """Normalises x [B, N, F] over shapes and points, conditioned on codes [B, C]."""
        size = x.shape[-1]
        # One factor and one offset per shape and feature: the code reaches the decoder by these alone.
        gamma = nn.Dense(size, kernel_init=init.zeros, bias_init=init.ones, name='gamma')(code)
        beta = nn.Dense(size, kernel_init=init.zeros, name='beta')(code)
        # Statistics are shared by all shapes of a batch; only scale and shift are the shape's own.
        normalised = nn.BatchNorm(use_scale=False, use_bias=False, name='norm')(x, train)
        return gamma[:, None] * normalised + beta[:, None]


class ConditionalBlock(linen.Module):
    """A residual block of the decoder: x + W1 relu(CBN(W0 relu(CBN(x)))), with W1 = 0 at initialisation.

    Mescheder et al. 2019, supplement, figure 1.
    """

    @linen.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        hidden = linen.relu(ConditionalBatchNorm(name='norm_0')(x, code, train))
        hidden = _dense(x.shape[-1], 'dense_0')(hidden)
        hidden = linen.relu(ConditionalBatchNorm(name='norm_1')(hidden, code, train))
        return x + nn.Dense(x.shape[-1], kernel_init=init.zeros, name='dense_1')(hidden)


class EncoderBlock(linen.Module):
    """A residual block of the encoder: x + W1 relu(W0 relu(x)), with W1 = 0 at initialisation.

    Where the number of features changes, the shortcut is a linear projection of x.
    """

    features: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = _dense(self.features, 'dense_0')(linen.relu(x))
        hidden = nn.Dense(self.features, kernel_init=init.zeros, name='dense_1')(linen.relu(hidden))
        if x.shape[-1] == self.features:
            return x + hidden
        return hidden + nn.Dense(self.features, use_bias=False, kernel_init=_UNIFORM, name='shortcut')(x)


class PointEncoder(linen.Module):
    """Encodes point clouds [B, T, 3] as codes [B, code]: blocks over points with max pooling in between."""

    code: int
    hidden: int
    blocks: int

    @linen.compact
    def __call__(self, cloud: jax.Array) -> jax.Array:
        # Twice as wide, as are the inputs of all later blocks: a point's features and the maxima.
        features = _dense(2 * self.hidden, 'place')(cloud)
        for block in range(self.blocks):
            if block:  # each point sees itself and the maximum over all points
                pooled = jnp.broadcast_to(features.max(1, keepdims=True), features.shape)
                features = jnp.concatenate((features, pooled), -1)
            features = EncoderBlock(self.hidden, name=f'block_{block}')(features)
        # The maximum over points does not depend on their order (PointNet).
        return _dense(self.code, 'code')(linen.relu(features.max(1)))


class OccupancyDecoder(linen.Module):
    """Decodes logits [B, N] of points [B, N, 3] under codes [B, code]."""

    width: int
    blocks: int

    @linen.compact
    def __call__(self, points: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        hidden = _dense(self.width, 'place')(points)
        for block in range(self.blocks):
            hidden = ConditionalBlock(name=f'block_{block}')(hidden, code, train)
        hidden = linen.relu(ConditionalBatchNorm(name='norm')(hidden, code, train))
        return _dense(1, 'logit')(hidden)[..., 0]


class OccupancyNetwork(linen.Module):
    """Encoder and decoder. Attributes are the arguments of `point_cloud`."""

    code: int
    hidden: int
    width: int
    blocks: int

    def setup(self) -> None:
        self.encoder = PointEncoder(self.code, self.hidden, self.blocks)
        self.decoder = OccupancyDecoder(self.width, self.blocks)

    def __call__(self, points: jax.Array, cloud: jax.Array, train: bool = False) -> jax.Array:
        """Predicts logits [B, N] that points [B, N, 3] are inside the shapes of clouds [B, T, 3]."""
        return self.decode(points, self.encode(cloud), train)

    def encode(self, cloud: jax.Array) -> jax.Array:
        """Encodes clouds [B, T, 3] as codes [B, code]."""
        return self.encoder(cloud)

    def decode(self, points: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        """Predicts logits [B, N] of points [B, N, 3] under codes [B, code]."""
        return self.decoder(points, code, train)


def point_cloud(code: Count = 512, hidden: Count = 512, width: Count = 256, blocks: Count = 5) -> OccupancyNetwork:
    """Builds the published network for point clouds: an encoder of 5 blocks of 512, a decoder of 5 blocks of 256.

    Args:
      code: size of the latent codes.
      hidden: features of the encoder's blocks.
      width: features of the decoder's blocks.
      blocks: of each.
    """
    return OccupancyNetwork(code, hidden, width, blocks)


def _dense(features: int, name: str) -> nn.Dense:
    """Makes a dense layer with PyTorch's initial weights; its biases start at 0, not uniform as PyTorch's do."""
    return nn.Dense(features, kernel_init=_UNIFORM, name=name)
