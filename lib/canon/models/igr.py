"""IGR: one shape as a signed distance that is learnt from points of its surface, by asking for gradients of length 1.

Gropp, Yariv, Haim, Atzmon & Lipman 2020, "Implicit geometric regularization for learning shapes". 8 layers of 512,
1,839,614 parameters. The network begins as the signed distance of a sphere (Atzmon & Lipman 2020, SAL, theorem 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import Positive
from canon.nn import Dense


class IGR(linen.Module):
    """See `igr` for the fields."""

    layers: int
    width: int
    skip: int | None
    beta: float
    radius: float

    @linen.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """The field [..] at places [.., 3]."""
        h = points
        for layer in range(self.layers):
            if layer == self.skip:
                h = jnp.concatenate((h, points), -1) / math.sqrt(2)
            width = self.width - 3 if layer + 1 == self.skip else self.width
            kernel = init.normal(math.sqrt(2 / width))
            h = self._bent(Dense(width, kernel_init=kernel, name=f'layer_{layer}')(h))
        last = _about(math.sqrt(math.pi / self.width), 1e-5)
        out = Dense(1, kernel_init=last, bias_init=init.constant(-self.radius), name='distance')(h)
        return out[..., 0]

    def _bent(self, x: jax.Array) -> jax.Array:
        """log(1 + exp(beta x)) / beta: a ReLU with a gradient that has one; beta = 0 is the ReLU."""
        return jax.nn.softplus(self.beta * x) / self.beta if self.beta else linen.relu(x)


def igr(layers: int = 8, width: int = 512, skip: int | None = 4, beta: float = 100.0, radius: Positive = 1.0) -> IGR:
    """The published network: softplus of `beta`, the place again before the fifth layer, both over sqrt(2).

    radius: of the sphere that it is at the start. Raises UsageError for sizes that are none.
    """
    if layers < 1 or width < 4 or beta < 0:
        raise UsageError(f'model.layers={layers} is at least 1, width={width} at least 4, and beta={beta} not negative')
    if skip is not None and not 0 < skip < layers:
        raise UsageError(f'model.skip={skip} lies between the first of {layers} layers and the last')
    return IGR(layers, width, skip, beta, radius)


def _about(mean: float, deviation: float) -> Callable:
    return lambda key, shape, dtype=jnp.float32: mean + deviation * jax.random.normal(key, shape, dtype)
