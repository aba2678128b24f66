"""IGR: one shape as a signed distance, learned by implicit geometric regularisation (Gropp et al. 2020).

Gropp, Yariv, Haim, Atzmon & Lipman 2020, "Implicit geometric regularization for learning shapes". 8 layers of 512,
1,839,614 parameters. Geometric initialisation (Atzmon & Lipman 2020, SAL, theorem 1): at first the network approximates
the signed distance of a sphere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import Count, NonNegative, Positive, Range
from canon.nn import Dense


class IGR(linen.Module):
    """The network. Attributes are the arguments of `igr`."""

    layers: int
    width: int
    skip: int | None
    beta: float
    radius: float

    @linen.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """Predicts the field [...] at points [..., 3]."""
        hidden = points
        for layer in range(self.layers):
            if layer == self.skip:
                # Dividing by sqrt(2) keeps the variance, on which the geometric initialisation relies.
                hidden = jnp.concatenate((hidden, points), -1) / math.sqrt(2)
            # Narrower by the point before the skip connection, so that the next layer has `width` inputs.
            width = self.width - 3 if layer + 1 == self.skip else self.width
            # Such kernels and zero biases keep |x| in expectation through ReLU layers (SAL, theorem 1).
            kernel = init.normal(math.sqrt(2 / width))
            hidden = self._softplus(Dense(width, kernel_init=kernel, name=f'layer_{layer}')(hidden))
        # Nearly equal positive weights then sum to about |x|, from which the bias subtracts the radius.
        kernel = _normal(math.sqrt(math.pi / self.width), 1e-5)
        out = Dense(1, kernel_init=kernel, bias_init=init.constant(-self.radius), name='distance')(hidden)
        return out[..., 0]

    def _softplus(self, x: jax.Array) -> jax.Array:
        """Computes log(1 + exp(beta x)) / beta, a ReLU with continuous derivatives; the ReLU itself for beta = 0."""
        return jax.nn.softplus(self.beta * x) / self.beta if self.beta else linen.relu(x)


def igr(
    layers: Count = 8,
    width: Annotated[int, Range(4)] = 512,
    skip: int | None = 4,
    beta: NonNegative = 100.0,
    radius: Positive = 1.0,
) -> IGR:
    """Builds the published network: 8 layers of 512 with softplus.

    Args:
      layers: hidden layers.
      width: of the hidden layers.
      skip: the hidden layer whose input is concatenated with the point; None has no skip connection.
      beta: sharpness of the softplus; 0 is a ReLU.
      radius: of the sphere that the network approximates at initialisation.

    Raises:
      UsageError: there is no layer `skip`.
    """
    if skip is not None and not 0 < skip < layers:
        raise UsageError(f'model.skip={skip} must lie between the first and the last of {layers} layers')
    return IGR(layers, width, skip, beta, radius)


def _normal(mean: float, deviation: float) -> Callable:
    return lambda key, shape, dtype=jnp.float32: mean + deviation * jax.random.normal(key, shape, dtype)
