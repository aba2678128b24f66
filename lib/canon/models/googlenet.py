"""GoogLeNet: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going deeper with
convolutions", 2014; table 1, figure 3 and, for the auxiliary heads, section 5.

| stage | at 224 | 1x1 | 3x3 after | 5x5 after | pool |
|---|---|---|---|---|---|
| conv1 7x7/2, max pool 3x3/2, LRN | 56x56x64 | | | | |
| conv2 1x1 64, 3x3 192, LRN, max pool 3x3/2 | 28x28x192 | | | | |
| inception 3a, 3b, max pool 3x3/2 | 14x14x480 | `INCEPTIONS` has the numbers | | | |
| inception 4a .. 4e, max pool 3x3/2 | 7x7x832 | auxiliary heads after 4a and 4d | | | |
| inception 5a, 5b, average pool | 1x1x1024 | | | | |

6,998,552 parameters, 13,378,280 with both heads. The top-5 error is 10.07 % for one network on one crop and 6.67 % for
seven on 144 crops (table 3). The heads' losses have weight 0.3. Where the paper is silent, we follow Caffe's
bvlc_googlenet, made with the help of an author: padding, pooling that rounds up, LRN with alpha / n and k = 1, and
initialisation from U(+-sqrt(3 / fan_in)) with biases of 0.2 before every ReLU (the paper's is Gaussian).

`variant='torchvision'` is torchvision's network: batch normalisation (eps 1e-3) instead of biases and LRN, 3x3 where
the paper has 5x5 (a mistake that its weights preserve), 2x2 for the last max pool, heads on an adaptive 4x4 average,
dropout 0.2, initialisation from N(0, 0.01^2). 6,624,904 parameters, 13,004,888 with heads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.models import cite
from canon.named import Count, DropRate
from canon.nn import ConvUnit, Mixed, Network, Unit, check_images, to_inception_range

# Table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
INCEPTIONS = {
    '3a': (64, (96, 128), (16, 32), 32),
    '3b': (128, (128, 192), (32, 96), 64),
    '4a': (192, (96, 208), (16, 48), 64),
    '4b': (160, (112, 224), (24, 64), 64),
    '4c': (128, (128, 256), (24, 64), 64),
    '4d': (112, (144, 288), (32, 64), 64),
    '4e': (256, (160, 320), (32, 128), 128),
    '5a': (256, (160, 320), (32, 128), 128),
    '5b': (384, (192, 384), (48, 128), 128),
}
TABLE = (
    cite('googlenet.googlenet', 6_998_552, 68.7, 88.9, 'bvlc_googlenet, one crop', 1.5e9, auxiliary=False),
    cite(
        'googlenet.googlenet',
        6_624_904,
        69.778,
        89.53,
        'torchvision V1',
        1.498e9,
        variant='torchvision',
        auxiliary=False,
    ),
)


class GoogLeNet(Network):
    """Images [B, H, W, C] -> logits; features: conv1, conv2, inception_3a .. inception_5b."""

    num_classes: int
    norm: bool  # torchvision's form
    auxiliary: bool
    dropout: float
    auxiliary_dropout: float
    transform_input: bool
    width: float
    reductions: bool
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        # Heads exist from the start, so that training finds their parameters, but evaluation does not compute them.
        heads = self.auxiliary and not features and (train or self.is_initializing())
        channels = 3 if self.transform_input else None
        # The smallest images of which every window, and the heads' 5x5 pool, finds a pixel.
        least = 15 if self.norm else 47 if heads else 31
        check_images(images, least, 'GoogLeNet with its heads' if heads and least == 47 else 'GoogLeNet', channels)
        unit = partial(ConvUnit, width=self.width, norm=self.norm, dtype=self.dtype, **self._initial())
        pool = partial(ops.max_pool, window=3, stride=2, ceil_mode=True)
        x = to_inception_range(images) if self.transform_input else images
        stages = {}

        stages['conv1'] = x = unit(64, 7, 2, 3, name='conv1')(x, train)
        x = self._lrn(pool(x))
        x = unit(64, name='conv2_reduce')(x, train)
        stages['conv2'] = x = unit(192, 3, name='conv2')(x, train)
        x = pool(self._lrn(x))
        for name in INCEPTIONS:
            if name == '4a':
                x = pool(x)
            if name == '5a':
                # torchvision pools 2x2 here; Caffe, like the paper, 3x3.
                x = ops.max_pool(x, 2, ceil_mode=True) if self.norm else pool(x)
            x = Mixed(self._branches(name), unit, name=f'inception_{name}')(x, train)
            stages[f'inception_{name}'] = x
            if heads and name in ('4a', '4d'):
                self._head(name, x, unit, train)
        if features:
            return stages

        # A mean over all places, 7x7 for images of 224, so that other sizes give one vector too.
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=self._initial()['kernel_init'], name='fc')(x)

    def _branches(self, name: str) -> dict:
        ones, threes, fives, projection = INCEPTIONS[name]
        return {
            'branch1x1': (Unit(ones),),
            'branch3x3': (*self._reduce(threes[0]), Unit(threes[1], 3)),
            'branch5x5': (*self._reduce(fives[0]), Unit(fives[1], 3 if self.norm else 5)),
            'branch_pool': (partial(ops.max_pool, window=3, stride=1, padding=1), *self._reduce(projection)),
        }

    def _reduce(self, channels: int) -> tuple[Unit, ...]:
        return (Unit(channels),) if self.reductions else ()

    def _lrn(self, x: jax.Array) -> jax.Array:
        return x if self.norm else ops.lrn(x, 5, 1e-4, 0.75, k=1.0, divide_by_n=True)

    def _head(self, name: str, x: jax.Array, unit: Callable, train: bool) -> None:
        # Either pool takes the 14x14 of images of 224 to 4x4; the adaptive one does so for every size.
        pool = partial(ops.adaptive_avg_pool, size=4)
        if not self.norm:
            pool = partial(ops.avg_pool, window=5, stride=3, ceil_mode=True)
        options: dict[str, Any] = dict(dtype=self.dtype, name=f'head_{name}', **self._initial())
        logits = GoogLeNetHead(self.num_classes, pool, unit, self.auxiliary_dropout, **options)(x, train)
        if not self.is_initializing():  # `init` would return the sown logits as variables
            self.sow('auxiliary', f'auxiliary_{name}', logits)

    def _initial(self) -> dict[str, Any]:
        if self.norm:
            return {'kernel_init': init.normal(0.01), 'bias_init': init.zeros}
        return {'kernel_init': init.variance_scaling(1.0, 'fan_in', 'uniform'), 'bias_init': init.constant(0.2)}


class GoogLeNetHead(nn.Module):
    """An auxiliary classifier (section 5): average pool, 1x1 convolution 128, fully connected 1024, dropout, linear.

    The fully connected layer has the size of the pooled map of the images it was initialised with, 4x4 for 224.
    """

    num_classes: int
    pool: Callable
    unit: Callable
    dropout: float
    kernel_init: Callable
    bias_init: Callable
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.unit(128, name='conv')(self.pool(x), train)
        x, channels = x.reshape(x.shape[0], -1), x.shape[-1]
        if not self.is_initializing():  # flax would name neither the head nor the way out
            rows = self.get_variable('params', 'fc1')['kernel'].shape[0]
            if rows != x.shape[-1]:
                raise UsageError(
                    f'the auxiliary {self.name} was made for {rows // channels} pixels and gets '
                    f'{x.shape[-1] // channels}; '
                    'train on images of the size it was initialised with, or set auxiliary=False'
                )
        x = jax.nn.relu(
            nn.Dense(1024, dtype=self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init, name='fc1')(x)
        )
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=self.kernel_init, name='fc2')(x)


def googlenet(
    num_classes: Count = 1000,
    variant: str = 'paper',
    auxiliary: bool = True,
    dropout: DropRate | None = None,
    auxiliary_dropout: DropRate = 0.7,
    transform_input: bool = False,
    width: float = 1.0,
    reductions: bool = True,
    dtype: str | None = None,
) -> GoogLeNet:
    """Builds GoogLeNet.

    Args:
      num_classes: number of logits.
      variant: 'paper' or 'torchvision'.
      auxiliary: adds the two heads, whose logits are sown into the collection 'auxiliary' as auxiliary_4a and
        auxiliary_4d during training.
      dropout: rate before the classifier; None takes 0.4 for the paper's variant and 0.2 for torchvision's.
      auxiliary_dropout: rate before the classifiers of the heads.
      transform_input: maps images normalised by ImageNet's mean and deviation to Inception's (x - 0.5) / 0.5, which
        torchvision's published weights expect.
      width: multiplies the channels of all convolutions (not in the paper).
      reductions: False leaves out the 1x1 convolutions before the 3x3 and 5x5 ones and after the pooling: the naive
        module of figure 2(a), whose pooling branch makes each module wider than the previous one.
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the variant is unknown, or the width leaves no channels.
    """
    rates = {'paper': 0.4, 'torchvision': 0.2}
    if variant not in rates:
        raise UsageError(f'model.variant={variant!r} is unknown; there are {", ".join(rates)}')
    return GoogLeNet(
        num_classes,
        variant == 'torchvision',
        auxiliary,
        rates[variant] if dropout is None else dropout,
        auxiliary_dropout,
        transform_input,
        width,
        reductions,
        None if dtype is None else jnp.dtype(dtype),
    )
