"""DVR: a shape as the level of an occupancy network, its colours as a texture field, learnt from pictures with masks.

Niemeyer, Mescheder, Oechsle & Geiger 2020, "Differentiable volumetric rendering: learning implicit 3D representations
without 3D supervision". One network of 5 residual blocks of 512 for both, 2,630,660 parameters without an encoder, as
the paper takes for the reconstruction of one object from many views. What a pixel shows is the colour where its ray
first meets the level (`canon.ops.surfaces.find_first_crossing`).
"""

from __future__ import annotations

import flax.linen as linen
import jax
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn import Dense


class DVR(linen.Module):
    """See `dvr` for the fields."""

    width: int
    blocks: int

    @linen.compact
    def __call__(self, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits of occupancy [..], positive inside, and colours in 0..1 [.., 3], at points [.., 3]."""
        h = _dense(points, self.width, 'point')
        for block in range(self.blocks):
            inner = _dense(linen.relu(h), self.width, f'block_{block}_0')
            h = h + _dense(linen.relu(inner), self.width, f'block_{block}_1', init.zeros)
        out = _dense(linen.relu(h), 4, 'out')
        return out[..., 0], linen.sigmoid(out[..., 1:])


def dvr(width: int = 512, blocks: int = 5) -> DVR:
    """The authors' network; the logit of its level tau = 0.5 is 0. Raises UsageError for sizes that are none."""
    for key, size in dict(width=width, blocks=blocks).items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    return DVR(width, blocks)


def _dense(x: jax.Array, features: int, name: str, kernel=None) -> jax.Array:
    """torch's default: weights and biases even in +-1 / sqrt(inputs)."""
    bound = x.shape[-1] ** -0.5

    def even(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return Dense(features, kernel_init=kernel or even, bias_init=even, name=name)(x)
