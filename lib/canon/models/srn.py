"""SRN: a scene as a field of features, and a renderer that is learnt with it: where a ray ends, and what is seen there.

Sitzmann, Zollhöfer & Wetzstein 2019, "Scene representation networks: continuous 3D-structure-aware neural scene
representations". A network gives each place 256 features (eq. 1); an LSTM of 16 units marches along each ray, ten steps
of a length that it says (eq. 2 to 4); a network of the pixel alone turns the features at the end into a colour (eq. 5).
Learnt from pictures only, of one scene, without the paper's hypernetwork over many. 550,228 parameters: the authors'
code has 64 more, since torch's LSTM has two biases where one does.
"""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import NonNegative
from canon.nn import LSTM, Dense

_LIMIT = 10.0  # of the gradient that reaches the LSTM's output at a step, as in the authors' code


class SRN(linen.Module):
    """See `srn` for the fields."""

    width: int
    layers: int
    generator_layers: int
    hidden: int
    steps: int
    start: float
    spread: float

    @linen.compact
    def __call__(
        self, origins: jax.Array, ways: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Colours [P, 3], about 0..1 and not cut to it, and distances [P] in lengths of ways, of rays [P, 3].

        key: of the noise on where marching begins; without one there is none.
        """
        field = Features(self.width, self.layers, name='field')
        marcher = LSTM(self.hidden, kernel_init=init.he_normal(), name='marcher')
        length = Dense(1, name='length')
        size = jnp.linalg.norm(ways, axis=-1)
        t = jnp.full(len(ways), self.start, ways.dtype)
        if key is not None:
            t = t + self.spread * jax.random.normal(key, t.shape, t.dtype)
        state = marcher.start(len(ways))
        for _ in range(self.steps):
            h, state = marcher.step(state, field(_at(origins, ways, t)))
            t = t + length(clipped(h))[:, 0] / size
        h = Features(self.width, self.generator_layers, name='generator')(field(_at(origins, ways, t)))
        # The paper's pictures are in -1..1.
        return Dense(3, kernel_init=init.he_normal(), name='colour')(h) / 2 + 0.5, t


class Features(linen.Module):
    """Layers of a linear map, layer normalisation and ReLU, as the paper's code has them throughout."""

    width: int
    layers: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in range(self.layers):
            x = Dense(self.width, kernel_init=init.he_normal(), name=f'layer_{layer}')(x)
            x = linen.relu(linen.LayerNorm(epsilon=1e-5, name=f'norm_{layer}')(x))
        return x


@jax.custom_vjp
def clipped(h: jax.Array) -> jax.Array:
    """h, whose gradient is cut to [-10, 10], element by element."""
    return h


clipped.defvjp(lambda h: (h, None), lambda _, change: (jnp.clip(change, -_LIMIT, _LIMIT),))


def srn(
    width: int = 256,
    layers: int = 4,
    generator_layers: int = 5,
    hidden: int = 16,
    steps: int = 10,
    start: NonNegative = 0.05,
    spread: NonNegative = 5e-4,
) -> SRN:
    """The paper's constants. start, spread: where marching begins, N(0.05, 5e-4) in the paper's units: set it by near.

    Raises UsageError for sizes that are none.
    """
    sizes = dict(width=width, layers=layers, generator_layers=generator_layers, hidden=hidden, steps=steps)
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    return SRN(width, layers, generator_layers, hidden, steps, start, spread)


def _at(origins: jax.Array, ways: jax.Array, t: jax.Array) -> jax.Array:
    return origins + t[:, None] * ways
