"""Occupancy networks: whether a place is inside a shape, from a cloud of points of its surface.

Mescheder, Oechsle, Niemeyer, Nowozin & Geiger 2019, "Occupancy networks: learning 3D reconstruction in function space".
A PointNet with residual blocks makes a code of the cloud (6,825,472 parameters); the decoder's batch normalisations
have their scale and shift from it (3,548,417): 10,373,889 together, as the authors' code has for clouds.
"""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import nn
from canon.errors import UsageError

_UNIFORM = init.variance_scaling(1 / 3, 'fan_in', 'uniform')  # torch's: U(-1/sqrt(n), 1/sqrt(n))


class ConditionalBatchNorm(linen.Module):
    """gamma(c) (x - mean) / sqrt(var + 1e-5) + beta(c), x [B, N, F] and c [B, C]: de Vries et al. 2017.

    Both are affine in c; at first gamma is 1 and beta 0, whatever c.
    """

    @linen.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        size = x.shape[-1]
        gamma = nn.Dense(size, kernel_init=init.zeros, bias_init=init.ones, name='gamma')(code)
        beta = nn.Dense(size, kernel_init=init.zeros, name='beta')(code)
        normed = nn.BatchNorm(use_scale=False, use_bias=False, name='norm')(x, train)
        return gamma[:, None] * normed + beta[:, None]


class ConditionalBlock(linen.Module):
    """x + W1 relu(CBN(W0 relu(CBN(x)))), W1 zero at first: the paper's supplement, figure 1."""

    @linen.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        h = linen.relu(ConditionalBatchNorm(name='norm_0')(x, code, train))
        h = _dense(x.shape[-1], 'dense_0')(h)
        h = linen.relu(ConditionalBatchNorm(name='norm_1')(h, code, train))
        return x + nn.Dense(x.shape[-1], kernel_init=init.zeros, name='dense_1')(h)


class Block(linen.Module):
    """W1 relu(W0 relu(x)) beside x, or its projection where the width changes; W1 zero at first."""

    features: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = _dense(self.features, 'dense_0')(linen.relu(x))
        h = nn.Dense(self.features, kernel_init=init.zeros, name='dense_1')(linen.relu(h))
        if x.shape[-1] == self.features:
            return x + h
        return h + nn.Dense(self.features, use_bias=False, kernel_init=_UNIFORM, name='shortcut')(x)


class PointEncoder(linen.Module):
    """A code [B, code] of clouds [B, T, 3]: blocks that each see their points beside the greatest of all of them."""

    code: int
    hidden: int
    blocks: int

    @linen.compact
    def __call__(self, cloud: jax.Array) -> jax.Array:
        h = _dense(2 * self.hidden, 'place')(cloud)
        for block in range(self.blocks):
            if block:
                greatest = jnp.broadcast_to(h.max(1, keepdims=True), h.shape)
                h = jnp.concatenate((h, greatest), -1)
            h = Block(self.hidden, name=f'block_{block}')(h)
        return _dense(self.code, 'code')(linen.relu(h.max(1)))


class Decoder(linen.Module):
    """Logits [B, N] of places [B, N, 3] under codes [B, code]."""

    width: int
    blocks: int

    @linen.compact
    def __call__(self, points: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        h = _dense(self.width, 'place')(points)
        for block in range(self.blocks):
            h = ConditionalBlock(name=f'block_{block}')(h, code, train)
        h = linen.relu(ConditionalBatchNorm(name='norm')(h, code, train))
        return _dense(1, 'logit')(h)[..., 0]


class OccupancyNetwork(linen.Module):
    """See `point_cloud` for the fields."""

    code: int
    hidden: int
    width: int
    blocks: int

    def setup(self) -> None:
        self.encoder = PointEncoder(self.code, self.hidden, self.blocks)
        self.decoder = Decoder(self.width, self.blocks)

    def __call__(self, points: jax.Array, cloud: jax.Array, train: bool = False) -> jax.Array:
        """Logits [B, N] of whether places [B, N, 3] are inside the shapes of clouds [B, T, 3]."""
        return self.decode(points, self.encode(cloud), train)

    def encode(self, cloud: jax.Array) -> jax.Array:
        return self.encoder(cloud)

    def decode(self, points: jax.Array, code: jax.Array, train: bool = False) -> jax.Array:
        return self.decoder(points, code, train)


def point_cloud(code: int = 512, hidden: int = 512, width: int = 256, blocks: int = 5) -> OccupancyNetwork:
    """The published network for clouds of points: a decoder of 5 blocks of 256, an encoder of 5 of 512.

    Raises UsageError for sizes that are none.
    """
    for key, size in dict(code=code, hidden=hidden, width=width, blocks=blocks).items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    return OccupancyNetwork(code, hidden, width, blocks)


def _dense(features: int, name: str) -> nn.Dense:
    """torch's initialisation of weights; biases, which torch draws from the same interval, begin at 0."""
    return nn.Dense(features, kernel_init=_UNIFORM, name=name)
