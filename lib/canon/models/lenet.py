"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.

Here is the form that today goes by the name: the paper's sizes (section II.B), with C3 connected to all of S2, plain
average pooling and a linear output in place of the RBF units. 61,706 parameters for 32x32x1 images and ten classes.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from canon.errors import UsageError

_ACTIVATIONS: dict[str, Callable] = {'tanh': nn.tanh, 'relu': nn.relu, 'sigmoid': nn.sigmoid}
_POOLS: dict[str, Callable] = {'average': nn.avg_pool, 'max': nn.max_pool}


class LeNet5(nn.Module):
    """C1 6@5x5, S2, C3 16@5x5, S4, C5 120@5x5, F6 84, output; images [B, 32, 32, C] -> logits [B, num_classes]."""

    num_classes: int
    activation: str
    pool: str
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        if images.ndim != 4 or min(images.shape[1:3]) < 32:
            raise UsageError(f'LeNet-5 wants images [B, 32, 32, C] or larger, not {images.shape}; pad or resize them')
        act, pool = _ACTIVATIONS[self.activation], _POOLS[self.pool]
        x = images
        for features, name in ((6, 'C1'), (16, 'C3')):
            x = act(nn.Conv(features, (5, 5), padding='VALID', dtype=self.dtype, name=name)(x))
            x = pool(x, (2, 2), (2, 2))
        x = act(nn.Conv(120, (5, 5), padding='VALID', dtype=self.dtype, name='C5')(x))
        x = x.reshape(x.shape[0], -1)
        x = act(nn.Dense(84, dtype=self.dtype, name='F6')(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='output')(x)


def lenet5(
    num_classes: int = 10,
    activation: str = 'tanh',
    pool: str = 'average',
    dropout: float = 0.0,
    dtype: str | None = None,
) -> LeNet5:
    """LeNet-5 in its modern form. dtype: that of the computation ('bfloat16'); parameters stay float32.

    dropout: rate on F6, 0 in the paper. Raises UsageError for an unknown activation or pool.
    """
    for key, value, known in (('activation', activation, _ACTIVATIONS), ('pool', pool, _POOLS)):
        if value not in known:
            raise UsageError(f'model.{key}={value!r} is unknown; there are {", ".join(known)}')
    return LeNet5(num_classes, activation, pool, dropout, None if dtype is None else jnp.dtype(dtype))
