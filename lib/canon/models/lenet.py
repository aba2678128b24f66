"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, II.B.

`lenet5` is what is called LeNet-5 today: the paper's sizes, with C3 connected to all maps of S2, plain average pooling
and a linear output. It has 61,706 parameters for 32x32x1 images and ten classes.

`lenet5_1998` is the network of the paper, with 60,000 trainable parameters:

| layer | maps or units | parameters | |
|---|---|---|---|
| C1 | 6 of 28x28 | 156 | 5x5 |
| S2 | 6 of 14x14 | 12 | the sum over 2x2, times a coefficient, plus a bias |
| C3 | 16 of 10x10 | 1,516 | 5x5, each connected to three to six maps of S2 (Table I) |
| S4 | 16 of 5x5 | 32 | as S2 |
| C5 | 120 | 48,120 | 5x5 on all of S4 |
| F6 | 84 | 10,164 | |
| output | 10 | 0 | squared distances of F6 from fixed 7x12 bitmaps of the characters (eq. 7) |

with f(a) = 1.7159 tanh(2a / 3) after every layer but the output. The error rate on MNIST's test set is 0.95 %, and
0.8 % with distorted training images. Images are scaled so that white is -0.1 and black 1.175.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, DropRate
from canon.nn import Conv, Network, check_images

_ACTIVATIONS: dict[str, Callable] = {'tanh': ops.tanh, 'relu': ops.relu, 'sigmoid': ops.sigmoid}
_POOLS: dict[str, Callable] = {'average': ops.avg_pool, 'max': ops.max_pool}

# Table I: the maps of S2 that each map of C3 is connected to.
_C3 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# The digits as 7x12 bitmaps, copied from Figure 3 by eye: its pixels are not published as numbers.
_DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  .#####.  ....##.  #######  ..####.  #######  .#####.  .#####.
.##.##.  ..###..  ##...##  ##...##  ...###.  ##.....  .##....  .....##  ##...##  ##...##
##...##  .####..  .....##  .....##  ..####.  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...##..  .....##  .....##  .##.##.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  ....##.  ..####.  ##..##.  ######.  ######.  ....##.  .#####.  ##...##
##...##  ...##..  ...##..  .....##  ##..##.  .....##  ##...##  ...##..  ##...##  .######
##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ...##..  ##...##  .....##
##...##  ...##..  .##....  .....##  ....##.  .....##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  ....##.  ##...##  ##...##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  ....##.  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""

_MNIST = dict(size=32, channels=1)
TABLE = (
    cite('lenet.lenet5', 61_706, None, None, None, **_MNIST),
    cite('lenet.lenet5_1998', 60_000, 99.05, None, 'LeCun et al. 1998, MNIST, no distortions', **_MNIST),
)


class LeNet5(Network):
    """C1 6@5x5, S2, C3 16@5x5, S4, C5 120@5x5, F6 84, output; images [B, 32, 32, C] -> logits [B, num_classes].

    Stages C1, S2, C3, S4, C5; all but the subsamplings after the activation.
    """

    num_classes: int
    activation: str
    pool: str
    dropout: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 32, 'LeNet-5')
        act, pool = _ACTIVATIONS[self.activation], _POOLS[self.pool]
        conv = partial(Conv, dtype=self.dtype, kernel_init=init.lecun_normal())
        stages = {}
        x = stages['C1'] = act(conv(6, 5, name='C1')(images))
        x = stages['S2'] = pool(x, 2)
        x = stages['C3'] = act(conv(16, 5, name='C3')(x))
        x = stages['S4'] = pool(x, 2)
        # A convolution as in the paper, though its map is 1x1: larger images would give more than one place.
        x = stages['C5'] = act(conv(120, 5, name='C5')(x))
        if features:
            return stages
        x = x.reshape(x.shape[0], -1)
        # Dense layers start from linen's LeCun normal, like the convolutions above.
        x = act(nn.Dense(84, dtype=self.dtype, name='F6')(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='output')(x)


class LeNet5Of1998(Network):
    """Images [B, 32, 32, C] -> the negative distances -y of eq. 7, [B, num_classes]; the largest is the prediction.

    Stages C1, S2, C3, S4, C5, each after f.
    """

    num_classes: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        check_images(images, 32, 'LeNet-5')
        f = ops.scaled_tanh
        conv = partial(Conv, kernel_size=5, dtype=self.dtype, kernel_init=_uniform)
        subsample = partial(_Subsampling, dtype=self.dtype)
        stages = {}
        x = stages['C1'] = f(conv(6, name='C1')(images))
        x = stages['S2'] = f(subsample(name='S2')(x))
        x = stages['C3'] = f(_PartialConv(_C3, 5, self.dtype, name='C3')(x))
        x = stages['S4'] = f(subsample(name='S4')(x))
        x = stages['C5'] = f(conv(120, name='C5')(x))
        if features:
            return stages
        x = x.reshape(x.shape[0], -1)
        x = f(nn.Dense(84, dtype=self.dtype, kernel_init=_uniform, name='F6')(x))
        codes = jnp.asarray(_codes()[: self.num_classes], x.dtype)
        # Eq. 7 is a penalty, the smaller the better: its negative serves as logits.
        return -jnp.square(x[:, None] - codes).sum(-1)


class _Subsampling(nn.Module):
    """Sums over 2x2 pixels, times a coefficient per channel, plus a bias; `kernel` and `bias` are [C]."""

    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param('kernel', lambda key: _uniform(key, (4, channels))[0])  # a coefficient has a fan-in of 4
        bias = self.param('bias', init.zeros, (channels,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return 4 * ops.avg_pool(x, 2) * kernel + bias  # 4 times the average is the sum


class _PartialConv(nn.Module):
    """A convolution whose output n sees the channels inputs[n] alone; `kernel` [size, size, connections], `bias`."""

    inputs: tuple[tuple[int, ...], ...]
    size: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in = np.array([len(channels) for channels in self.inputs])  # in maps
        outputs, channels = np.repeat(np.arange(len(fan_in)), fan_in), np.concatenate(self.inputs)
        bounds = 2.4 / (self.size**2 * fan_in[outputs])

        def initial(key):
            return jax.random.uniform(key, (self.size, self.size, len(bounds)), jnp.float32, -bounds, bounds)

        kernel = self.param('kernel', initial)
        bias = self.param('bias', init.zeros, (len(fan_in),), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        # A dense kernel with zeros at the missing connections: one convolution, and no gradient flows to the zeros.
        full = jnp.zeros((self.size, self.size, x.shape[-1], len(fan_in)), kernel.dtype)
        return ops.conv(x, full.at[:, :, channels, outputs].set(kernel)) + bias


def lenet5(
    num_classes: Count = 10,
    activation: str = 'tanh',
    pool: str = 'average',
    dropout: DropRate = 0.0,
    dtype: str | None = None,
) -> LeNet5:
    """Builds LeNet-5 in its modern form, for images of 32x32.

    Args:
      num_classes: number of logits.
      activation: 'tanh', 'relu' or 'sigmoid'.
      pool: 'average' or 'max'.
      dropout: rate on F6, 0 in the paper.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: `activation` or `pool` is unknown.
    """
    for key, value, choices in (('activation', activation, _ACTIVATIONS), ('pool', pool, _POOLS)):
        if value not in choices:
            raise UsageError(f'model.{key}={value!r} is unknown; there are {", ".join(choices)}')
    return LeNet5(num_classes, activation, pool, dropout, None if dtype is None else jnp.dtype(dtype))


def lenet5_1998(num_classes: Count = 10, dtype: str | None = None) -> LeNet5Of1998:
    """Builds LeNet-5 as published, for 32x32 images of up to ten digits.

    Logits are the negative penalties: train with `canon.losses.maximum_a_posteriori` for the paper's eq. 9, or with the
    negative logit of the label for its eq. 8. Weights are initialised from U(+-2.4 / F), F the fan-in of the unit
    (section II and appendix A), the coefficients of S2 and S4 with F = 4; biases, which the paper does not mention
    separately, with 0.

    Args:
      num_classes: number of logits, at most ten.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: there are more classes than bitmaps.
    """
    if not 1 <= num_classes <= 10:
        raise UsageError(f'model.num_classes={num_classes}: LeNet-5 of 1998 has bitmaps of the ten digits only')
    return LeNet5Of1998(num_classes, None if dtype is None else jnp.dtype(dtype))


def _uniform(key, shape, dtype=jnp.float32) -> jax.Array:
    bound = 2.4 / np.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _codes() -> np.ndarray:
    """Returns the bitmaps row by row, [10, 84] of -1 and 1."""
    rows = [line.split() for line in _DIGITS.strip().splitlines()]
    pictures = [''.join(row[digit] for row in rows) for digit in range(10)]
    # +-1 is where f bends most: units that reach their targets are not saturated (appendix A).
    return np.array([[1.0 if pixel == '#' else -1.0 for pixel in picture] for picture in pictures], np.float32)
