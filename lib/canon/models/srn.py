"""SRN: a scene as a field of features, rendered by a learnt ray marcher.

Sitzmann, Zollhöfer & Wetzstein 2019, "Scene representation networks: continuous 3D-structure-aware neural scene
representations". A network maps each position to 256 features (eq. 1); an LSTM of 16 units marches along each ray in
ten steps whose lengths it predicts (eq. 2 to 4); a per-pixel network maps the features at the end to a colour (eq. 5).
Here it learns one scene from pictures alone, without the paper's hypernetwork over many scenes. 550,228 parameters; the
authors' code has 64 more, since torch's LSTM has two biases per gate where one suffices.
"""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import NonNegative
from canon.nn import LSTM, Dense

_GRADIENT_LIMIT = 10.0  # on the gradient that reaches the LSTM's output at each step, as in the authors' code


class SRN(linen.Module):
    """The field, the ray marcher and the pixel generator.

    Attributes:
      width, layers: of the field.
      generator_layers: of the pixel generator.
      hidden: units of the LSTM.
      steps: of marching.
      start, spread: mean and standard deviation of the distance at which marching starts.
    """

    width: int
    layers: int
    generator_layers: int
    hidden: int
    steps: int
    start: float
    spread: float

    @linen.compact
    def __call__(
        self, origins: jax.Array, directions: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns colours [P, 3], about [0, 1] but not clipped, and distances [P] in units of the directions.

        Args:
          origins, directions: rays [P, 3].
          key: draws the distances at which marching starts; None starts all rays at `start`.
        """
        field = NormalisedLayers(self.width, self.layers, name='field')
        marcher = LSTM(self.hidden, kernel_init=init.he_normal(), name='marcher')
        step_length = Dense(1, name='length')
        norms = jnp.linalg.norm(directions, axis=-1)
        t = jnp.full(len(directions), self.start, directions.dtype)
        if key is not None:
            t = t + self.spread * jax.random.normal(key, t.shape, t.dtype)
        state = marcher.start(len(directions))
        # Unrolled: ten steps of one small LSTM, whose parameters they share.
        for _ in range(self.steps):
            h, state = marcher.step(state, field(_points_at(origins, directions, t)))
            t = t + step_length(clip_gradient(h))[:, 0] / norms  # steps are lengths in the world
        # The colour is a function of the features at the end alone, so that views agree where they see the same point.
        features = field(_points_at(origins, directions, t))
        h = NormalisedLayers(self.width, self.generator_layers, name='generator')(features)
        # The paper's pictures are in [-1, 1].
        return Dense(3, kernel_init=init.he_normal(), name='colour')(h) / 2 + 0.5, t


class NormalisedLayers(linen.Module):
    """`layers` times a linear map, layer normalisation and ReLU: the block of the authors' code."""

    width: int
    layers: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in range(self.layers):
            x = Dense(self.width, kernel_init=init.he_normal(), name=f'layer_{layer}')(x)
            x = linen.relu(linen.LayerNorm(epsilon=1e-5, name=f'norm_{layer}')(x))
        return x


@jax.custom_vjp
def clip_gradient(h: jax.Array) -> jax.Array:
    """Returns h; its gradient is clipped elementwise to [-10, 10]."""
    return h


clip_gradient.defvjp(
    lambda h: (h, None), lambda _, cotangent: (jnp.clip(cotangent, -_GRADIENT_LIMIT, _GRADIENT_LIMIT),)
)


def srn(
    width: int = 256,
    layers: int = 4,
    generator_layers: int = 5,
    hidden: int = 16,
    steps: int = 10,
    start: NonNegative = 0.05,
    spread: NonNegative = 5e-4,
) -> SRN:
    """Returns the paper's network.

    Args:
      width, layers: of the field.
      generator_layers: of the pixel generator.
      hidden: units of the LSTM.
      steps: of marching.
      start, spread: mean and standard deviation of the distance at which marching starts, 0.05 and 5e-4 in the paper's
        units: `start` lies before the scene.

    Raises:
      UsageError: a size is not positive.
    """
    sizes = dict(width=width, layers=layers, generator_layers=generator_layers, hidden=hidden, steps=steps)
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    return SRN(width, layers, generator_layers, hidden, steps, start, spread)


def _points_at(origins: jax.Array, directions: jax.Array, t: jax.Array) -> jax.Array:
    return origins + t[:, None] * directions
