"""DeepSDF: the signed distance of a shape from its latent code and a point (Park et al. 2019).

Park, Florence, Straub, Newcombe & Lovegrove 2019, "DeepSDF: learning continuous signed distance functions for shape
representation". The decoder of an auto-decoder (`canon.tasks.shapes.deepsdf`), which has no encoder. 1,843,195
parameters without the codes, as in the authors' code.
"""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import Count, DropRate
from canon.ops import dense

# PyTorch's default for linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_UNIFORM = init.variance_scaling(1 / 3, 'fan_in', 'uniform')


class WeightNormDense(linen.Module):
    """A dense layer with weight normalisation (Salimans & Kingma 2016, eq. 2): x (g v / |v|) + b.

    |v| is the norm of each output's column, and g = |v| at initialisation. Parameters: `kernel` v [inputs, features],
    `scale` g [features], `bias` b [features].

    Attributes:
      features: outputs.
      normalise: if False, a plain dense layer x v + b with the same initialisation.
    """

    features: int
    normalise: bool = True

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        kernel = self.param('kernel', _UNIFORM, (inputs, self.features))
        bias = self.param('bias', _uniform_bias(inputs), (self.features,))
        if not self.normalise:
            return dense.product(x, kernel) + bias
        # With g = |v| the layer starts as the plain one, x v + b.
        norm = jnp.linalg.norm(kernel, axis=0)
        scale = self.param('scale', lambda _: norm)
        return dense.product(x, kernel * (scale / norm)) + bias


class DeepSDF(linen.Module):
    """The decoder. Attributes are the arguments of `deepsdf`."""

    layers: int
    width: int
    skip: int | None
    code: int
    dropout: float
    weight_norm: bool

    @linen.compact
    def __call__(self, codes: jax.Array, points: jax.Array, train: bool = False) -> jax.Array:
        """Predicts signed distances [B, N] in -1..1 at points [B, N, 3] of shapes with codes [B, code]."""
        # Every point sees the whole code: a shape is a function of position once its code is fixed.
        codes = jnp.broadcast_to(codes[:, None], (*points.shape[:2], codes.shape[-1]))
        inputs = jnp.concatenate((codes, points), -1)
        hidden = inputs
        for layer in range(self.layers):
            if layer == self.skip:
                hidden = jnp.concatenate((hidden, inputs), -1)
            # The layer before the skip connection is narrower by the inputs, so that the next one has `width` inputs.
            width = self.width - inputs.shape[-1] if layer + 1 == self.skip else self.width
            hidden = linen.relu(WeightNormDense(width, self.weight_norm, name=f'layer_{layer}')(hidden))
            hidden = linen.Dropout(self.dropout, deterministic=not train)(hidden)
        # The last layer is plain, and a tanh bounds the distance: as in the authors' code.
        return jnp.tanh(WeightNormDense(1, False, name='distance')(hidden)[..., 0])


def deepsdf(
    layers: Count = 8,
    width: Count = 512,
    skip: int | None = 4,
    code: Count = 256,
    dropout: DropRate = 0.2,
    weight_norm: bool = True,
) -> DeepSDF:
    """Builds the published decoder: 8 layers of 512 with weight normalisation, and a final tanh.

    Args:
      layers: hidden layers.
      width: of the hidden layers.
      skip: the hidden layer whose input is concatenated with the network's; None has no skip connection.
      code: size of the latent codes.
      dropout: rate after each hidden layer.
      weight_norm: whether the hidden layers have weight normalisation.

    Raises:
      UsageError: there is no layer `skip`, or the inputs are wider than the layers.
    """
    if skip is not None and not (0 < skip < layers and code + 3 < width):
        raise UsageError(
            f'model.skip={skip} must lie between the first and the last of {layers} layers, and a code of {code} with '
            f'its point must be narrower than model.width={width}'
        )
    return DeepSDF(layers, width, skip, code, dropout, weight_norm)


def _uniform_bias(inputs: int) -> Any:
    bound = inputs**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
