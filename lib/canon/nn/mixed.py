"""Building blocks of Inception networks: convolutions with normalisation, and parallel branches given as tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.nn.layers import BatchNorm, Conv, SeparableConv, scale_channels
from canon.ops.padding import Padding


class ConvUnit(nn.Module):
    """A convolution `conv`, batch normalisation `bn` and an activation."""

    features: int
    kernel_size: int | Sequence[int] = 1
    stride: int = 1
    padding: Padding = 'same'
    multiplier: int | None = None  # of a separable convolution: depthwise filters per channel; None: a full one
    width: float = 1.0  # multiplies `features`
    norm: bool = True  # False: a bias instead of the normalisation
    decay: float = 0.9
    eps: float = 1e-3
    activation: str | Callable = 'relu'
    kernel_init: Callable = init.he_normal()
    bias_init: Callable = init.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shape = (scale_channels(self.features, self.width), self.kernel_size, self.stride, self.padding)
        if self.multiplier is not None:
            x = SeparableConv(*shape, self.multiplier, not self.norm, self.dtype, name='conv')(x)
        else:
            initial: dict[str, Any] = dict(kernel_init=self.kernel_init, bias_init=self.bias_init)
            x = Conv(*shape, use_bias=not self.norm, dtype=self.dtype, **initial, name='conv')(x)
        if self.norm:  # it follows the convolution, whose bias it would subtract
            x = BatchNorm(self.decay, self.eps, dtype=self.dtype, name='bn')(x, train)
        return ops.activation(self.activation)(x)


class Unit(NamedTuple):
    """A convolution of a branch: the first arguments of a `ConvUnit`."""

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding = 'same'
    multiplier: int | None = None


Step = Unit | tuple[Unit, ...] | Callable[[jax.Array], jax.Array]


class Mixed(nn.Module):
    """Parallel branches over the same images, their channels concatenated in the order of the table.

    Convolutions are named by branch and position, 'branch3x3_1', 'branch3x3_2'; parallel ones 'branch3x3_2a',
    'branch3x3_2b'; the only one of a branch by the branch.

    Attributes:
      branches: {name: steps}. A step is a `Unit`, a tuple of parallel units, or a function of arrays (a pooling).
      unit: makes the convolution of a `Unit` and a name, such as `ConvUnit`.
    """

    branches: Mapping[str, Sequence[Step]]
    unit: Callable[..., nn.Module] = ConvUnit

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return jnp.concatenate([self._branch(name, x, train) for name in self.branches], -1)

    def _branch(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        steps, position = self.branches[name], 0
        # A branch of one convolution is named without a number, like the publishers' modules.
        single = sum(isinstance(step, tuple) for step in steps) == 1
        for step in steps:
            if not isinstance(step, tuple):
                x = step(x)
                continue
            position += 1
            label = name if single else f'{name}_{position}'
            if isinstance(step, Unit):
                x = self.unit(*step, name=label)(x, train)
            else:
                parallel = zip('abcd', step, strict=False)
                x = jnp.concatenate([self.unit(*u, name=label + letter)(x, train) for letter, u in parallel], -1)
        return x


def to_inception_range(images: jax.Array) -> jax.Array:
    """Maps images [B, H, W, 3] normalised by ImageNet's mean and deviation to 2 v - 1, v in [0, 1] a pixel's value.

    torchvision's published weights of GoogLeNet and Inception v3 expect that range.
    """
    mean, deviation = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
    return (images * (2 * deviation) + (2 * mean - 1)).astype(images.dtype)
