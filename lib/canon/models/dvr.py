"""DVR: a shape as a level set of an occupancy network with a texture field, learnt from pictures with masks.

Niemeyer, Mescheder, Oechsle & Geiger 2020, "Differentiable volumetric rendering: learning implicit 3D representations
without 3D supervision". One network of 5 residual blocks of 512 serves both; without an encoder, as the paper uses it
to reconstruct one object from many views, it has 2,630,660 parameters. A pixel shows the colour where its ray first
meets the surface (`canon.ops.surfaces.find_first_crossing`).
"""

from __future__ import annotations

import flax.linen as linen
import jax
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn import Dense


class DVR(linen.Module):
    """The occupancy and texture network: `blocks` residual blocks of `width`."""

    width: int
    blocks: int

    @linen.compact
    def __call__(self, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns occupancy logits [...], positive inside, and colours [..., 3] in [0, 1], at points [..., 3]."""
        h = _uniform_dense(points, self.width, 'point')
        for block in range(self.blocks):
            inner = _uniform_dense(linen.relu(h), self.width, f'block_{block}_0')
            # A block starts as the identity, up to a bias: the authors initialise its second layer with zeros.
            h = h + _uniform_dense(linen.relu(inner), self.width, f'block_{block}_1', init.zeros)
        out = _uniform_dense(linen.relu(h), 4, 'out')  # one network for the occupancy logit and the colour
        # The occupancy stays a logit: its level 0 is the surface, and the loss takes logits.
        return out[..., 0], linen.sigmoid(out[..., 1:])


def dvr(width: int = 512, blocks: int = 5) -> DVR:
    """Returns the authors' network. Its surface is the level tau = 0.5 of the occupancy, logit 0.

    Args:
      width: units per layer.
      blocks: residual blocks of two layers.

    Raises:
      UsageError: a size is not positive.
    """
    for key, size in dict(width=width, blocks=blocks).items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    return DVR(width, blocks)


def _uniform_dense(x: jax.Array, features: int, name: str, kernel_init=None) -> jax.Array:
    """Applies a dense layer initialised as torch's: weights and biases uniform in +-1 / sqrt(inputs)."""
    bound = x.shape[-1] ** -0.5

    def uniform(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return Dense(features, kernel_init=kernel_init or uniform, bias_init=uniform, name=name)(x)
