"""DeepSDF: signed distances of a class of shapes, from a code for each and a place.

Park, Florence, Straub, Newcombe & Lovegrove 2019, "DeepSDF: learning continuous signed distance functions for shape
representation". An auto-decoder: nothing encodes a shape; its code is learnt with the network, and that of a new shape
is found by descent with the network held still. 1,843,195 parameters besides the codes, as the authors' code has.
"""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import DropRate
from canon.ops import dense

_UNIFORM = init.variance_scaling(1 / 3, 'fan_in', 'uniform')  # torch's: U(-1/sqrt(n), 1/sqrt(n))


class WeightNormDense(linen.Module):
    """x (g v / |v|) + b with |v| of each output's column (Salimans & Kingma 2016, eq. 2); at first g = |v|.

    Parameters `kernel` v [inputs, features], `scale` g and `bias` [features]. normed=False is x v + b.
    """

    features: int
    normed: bool = True

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        kernel = self.param('kernel', _UNIFORM, (inputs, self.features))
        bias = self.param('bias', _bias(inputs), (self.features,))
        if not self.normed:
            return dense.product(x, kernel) + bias
        length = jnp.linalg.norm(kernel, axis=0)
        scale = self.param('scale', lambda _: length)
        return dense.product(x, kernel * (scale / length)) + bias


class DeepSDF(linen.Module):
    """See `deepsdf` for the fields."""

    layers: int
    width: int
    skip: int | None
    code: int
    dropout: float
    weight_norm: bool

    @linen.compact
    def __call__(self, codes: jax.Array, points: jax.Array, train: bool = False) -> jax.Array:
        """Signed distances [B, N], in -1..1, of places [B, N, 3] for codes [B, code]."""
        codes = jnp.broadcast_to(codes[:, None], (*points.shape[:2], codes.shape[-1]))
        inputs = jnp.concatenate((codes, points), -1)
        h = inputs
        for layer in range(self.layers):
            if layer == self.skip:
                h = jnp.concatenate((h, inputs), -1)
            # The layer before is narrower by what is put beside it, so that all are `width` wide.
            width = self.width - inputs.shape[-1] if layer + 1 == self.skip else self.width
            h = linen.relu(WeightNormDense(width, self.weight_norm, name=f'layer_{layer}')(h))
            h = linen.Dropout(self.dropout, deterministic=not train)(h)
        return jnp.tanh(WeightNormDense(1, False, name='distance')(h)[..., 0])


def deepsdf(
    layers: int = 8,
    width: int = 512,
    skip: int | None = 4,
    code: int = 256,
    dropout: DropRate = 0.2,
    weight_norm: bool = True,
) -> DeepSDF:
    """The published decoder: 8 layers of 512 with normalised weights, the input again before the fifth, tanh last.

    dropout: after each of the layers. Raises UsageError for sizes that are none, or an input as wide as the layers.
    """
    if min(layers, width, code) < 1:
        raise UsageError(f'model.layers={layers}, model.width={width} and model.code={code} are at least 1')
    if skip is not None and not (0 < skip < layers and code + 3 < width):
        raise UsageError(
            f'model.skip={skip} lies between the first of {layers} layers and the last, '
            f'and a code of {code} with its place must be narrower than model.width={width}'
        )
    return DeepSDF(layers, width, skip, code, dropout, weight_norm)


def _bias(inputs: int) -> Any:
    return lambda key, shape: jax.random.uniform(key, shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)
