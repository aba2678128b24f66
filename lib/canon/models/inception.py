"""The Inception networks after GoogLeNet, each a table of layers in order, with the branches of every module.

Ioffe, Szegedy, "Batch normalization", 2015; Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception
architecture for computer vision", 2015; Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, ...", 2016.

| | where | parameters | single crop, top-1 / top-5 error |
|---|---|---|---|
| `bn_inception` | Batch normalization, figure 5 | 11,194,984 | 25.2 / 7.82 % (figure 4) |
| `inception_v2` | Rethinking, table 1 | 25,954,248; with head 30,355,632 | 23.4 % (table 3) |
| `inception_v3` | Rethinking, section 10 | 23,834,568; with head 27,161,264 | 21.2 / 5.6 % (table 3) |
| `inception_v4` | Inception-v4, figures 3 to 9 | 42,679,816 | 19.8 / 4.8 % (TF-Slim) |

Rethinking's table 3 excludes 1,762 validation images. In every network each convolution is followed by batch
normalisation (eps 1e-3) and ReLU. Kernels are initialised as in the authors' released code: truncated normals of
variance 2 / fan-in, in v3 of deviation 0.1, with 0.01 and 0.001 in its auxiliary head.

Arguments of all constructors:
  num_classes: number of logits.
  dropout: rate before the classifier.
  norm_decay: decay of the running statistics of batch normalisation per step.
  width: multiplies the channels of all convolutions; 1 in the papers.
  dtype: of the computation, such as 'bfloat16'; parameters stay float32.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon import ops
from canon.models import cite
from canon.named import Count, DropRate
from canon.nn import ConvUnit, Mixed, Network, Unit, check_images, to_inception_range

TABLE = (
    cite('inception.bn_inception', 11_194_984, 74.8, 92.18, 'Ioffe & Szegedy 2015, Figure 4', 2.0e9),
    cite(
        'inception.inception_v2',
        25_954_248,
        76.6,
        None,
        'Szegedy et al. 2015, Table 3',
        3.8e9,
        size=299,
        auxiliary=False,
    ),
    cite(
        'inception.inception_v3',
        23_834_568,
        78.8,
        94.4,
        'Szegedy et al. 2015, Table 3',
        4.8e9,
        size=299,
        auxiliary=False,
    ),
    cite('inception.inception_v3', 23_834_568, 77.294, 93.45, 'torchvision V1', 5.713e9, size=299, auxiliary=False),
    cite('inception.inception_v4', 42_679_816, 80.2, 95.2, 'TF-Slim', size=299),
)


class Inception(Network):
    """Images [B, H, W, C] -> logits; stages: every convolution and module of `layers`, by name.

    Attributes:
      title: name of the network in messages.
      num_classes: number of logits.
      layers: {name: layer}, a `Unit`, the branches of a module, or a function of arrays (a pooling).
      unit: makes the convolution of a `Unit`.
      dropout: rate before the classifier.
      dtype: of the computation.
      least: smallest height and width of images.
      head: makes the auxiliary classifier, applied to the stage `head_after`.
      head_after: name of that stage.
      transform_input: whether images are mapped to Inception's range.
      kernel_init: of the classifier.
    """

    title: str
    num_classes: int
    layers: Mapping[str, Any]
    unit: Callable[..., nn.Module]
    dropout: float
    dtype: Any
    least: int = 75
    head: Callable[..., nn.Module] | None = None
    head_after: str = ''
    transform_input: bool = False
    kernel_init: Callable = init.he_normal()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        # The head exists from the start, so that training finds its parameters, but evaluation does not compute it.
        heads = self.head is not None and not features and (train or self.is_initializing())
        check_images(images, self.least, self.title, 3 if self.transform_input else None)
        if heads:  # its 5x5 convolution needs the 5x5 that the pool leaves of 17x17
            check_images(images, 299, f'{self.title} with its auxiliary head (auxiliary=False leaves it out)')
        x = to_inception_range(images) if self.transform_input else images
        stages = {}
        for name, layer in self.layers.items():
            if isinstance(layer, Unit):
                stages[name] = x = self.unit(*layer, name=name)(x, train)
            elif isinstance(layer, Mapping):
                stages[name] = x = Mixed(layer, self.unit, name=name)(x, train)
            else:  # a pooling is not a stage: it has no features of its own
                x = layer(x)
            if heads and name == self.head_after:
                logits = self.head(name='head')(x, train)
                if not self.is_initializing():  # `init` would return the sown logits as a variable
                    self.sow('auxiliary', 'auxiliary', logits)
        if features:
            return stages
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=self.kernel_init, name='fc')(x)


class InceptionHead(nn.Module):
    """The auxiliary classifier on the last 17x17: average 5x5 / 3, 1x1 128, `width`, linear (Rethinking, figure 8).

    norm: whether the fully connected layer, a 5x5 convolution, is normalised (BN-auxiliary).
    """

    num_classes: int
    unit: Callable[..., nn.Module]
    width: int
    norm: bool
    full_init: Callable
    kernel_init: Callable
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.unit(128, name='conv0')(ops.avg_pool(x, 5, 3), train)
        full = Unit(self.width, 5, 1, 'valid')
        x = self.unit(*full, norm=self.norm, kernel_init=self.full_init, name='conv1')(x, train).mean((1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=self.kernel_init, name='fc')(x)


# At the border the authors' code divides an average by the number of pixels inside the image, torchvision by nine.
_AVERAGE = partial(ops.avg_pool, window=3, stride=1, padding='same', count_include_pad=False)
_AVERAGE_OF_NINE = partial(ops.avg_pool, window=3, stride=1, padding='same')
_MAX = partial(ops.max_pool, window=3, stride=1, padding='same')
_HALVE = partial(ops.max_pool, window=3, stride=2)
_HALVE_SAME = partial(ops.max_pool, window=3, stride=2, padding='same')


def bn_inception(
    num_classes: Count = 1000,
    activation: str = 'relu',
    batch_norm: bool = True,
    separable_stem: bool = False,
    dropout: DropRate = 0.0,
    norm_decay: float = 0.9,
    width: float = 1.0,
    dtype: str | None = None,
) -> Inception:
    """Builds BN-Inception, figure 5, padded as in the authors' code ('same'), with pool projections of 96 in 4c and 4d.

    Figure 5 prints 128 there, which contradicts its own 576 channels; the authors' code has 96. The paper trains
    without dropout. Other arguments: those of all constructors, at the top of the module; and:

    Args:
      activation: after every convolution; 'sigmoid' is the paper's BN-x5-Sigmoid.
      batch_norm: False has biases instead.
      separable_stem: makes conv1 separable with 8 depthwise filters per channel, as the paper notes of it; False is a
        full convolution.
    """
    layers = {
        'conv1': Unit(64, 7, 2, 'same', 8 if separable_stem else None),
        'pool1': _HALVE_SAME,
        'conv2_reduce': Unit(64),
        'conv2': Unit(192, 3),
        'pool2': _HALVE_SAME,
        'inception_3a': _bn_module(64, (64, 64), (64, 96), _AVERAGE, 32),
        'inception_3b': _bn_module(64, (64, 96), (64, 96), _AVERAGE, 64),
        'inception_3c': _bn_halving((128, 160), (64, 96)),
        'inception_4a': _bn_module(224, (64, 96), (96, 128), _AVERAGE, 128),
        'inception_4b': _bn_module(192, (96, 128), (96, 128), _AVERAGE, 128),
        'inception_4c': _bn_module(160, (128, 160), (128, 160), _AVERAGE, 96),
        'inception_4d': _bn_module(96, (128, 192), (160, 192), _AVERAGE, 96),
        'inception_4e': _bn_halving((128, 192), (192, 256)),
        'inception_5a': _bn_module(352, (192, 320), (160, 224), _AVERAGE, 128),
        'inception_5b': _bn_module(352, (192, 320), (192, 224), _MAX, 128),
    }
    kind = _dtype(dtype)
    options = dict(norm=batch_norm, decay=norm_decay, activation=ops.activation(activation), dtype=kind)
    unit = partial(ConvUnit, width=width, **options)
    return Inception('BN-Inception', num_classes, layers, unit, dropout, kind, least=32)


def _bn_module(ones: int, threes: tuple[int, int], doubles: tuple[int, int], pool: Callable, projection: int) -> dict:
    """Returns a row of figure 5: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool and its projection."""
    return {
        'branch1x1': (Unit(ones),),
        'branch3x3': (Unit(threes[0]), Unit(threes[1], 3)),
        'branch3x3dbl': (Unit(doubles[0]), Unit(doubles[1], 3), Unit(doubles[1], 3)),
        'branch_pool': (pool, Unit(projection)),
    }


def _bn_halving(threes: tuple[int, int], doubles: tuple[int, int]) -> dict:
    """Returns a row of figure 5 with stride 2: no 1x1, and the maximum without a projection."""
    return {
        'branch3x3': (Unit(threes[0]), Unit(threes[1], 3, 2)),
        'branch3x3dbl': (Unit(doubles[0]), Unit(doubles[1], 3), Unit(doubles[1], 3, 2)),
        'branch_pool': (_HALVE_SAME,),
    }


def inception_v2(
    num_classes: Count = 1000,
    auxiliary: bool = True,
    dropout: DropRate = 0.2,
    norm_decay: float = 0.9,
    width: float = 1.0,
    dtype: str | None = None,
) -> Inception:
    """Builds Inception-v2 of "Rethinking", section 6: table 1, with modules as its figures 5, 6 and 7 draw them.

    The paper refers to a supplement for the sizes inside the modules; here they are v3's, which give the table's
    widths: 288, 768, 1280, 2048. Where v3 has four modules on 17x17 the table has five, here 128, 160, 160, 160 and 192
    filters wide. The number of parameters is therefore ours; the paper prints none. Other arguments: those of all
    constructors, at the top of the module; and:

    Args:
      auxiliary: adds the head of figure 8, whose fully connected layer (1024) is not normalised, unlike v3's.
    """
    average, kind = _AVERAGE, _dtype(dtype)
    layers = {
        'conv_1a': Unit(32, 3, 2, 'valid'),
        'conv_2a': Unit(32, 3, 1, 'valid'),
        'conv_2b': Unit(64, 3),
        'pool_3a': _HALVE,
        'conv_3b': Unit(80, 3, 1, 'valid'),  # 3x3 in table 1; the released v3 has 1x1
        'conv_4a': Unit(192, 3, 2, 'valid'),  # its stride stands where v3 pools
        'conv_4b': Unit(288, 3),  # 35x35 in and out: padded, though table 1 marks one convolution only
        **{f'mixed_5{letter}': _figure_5(3, 64, average) for letter in 'bcd'},
        'mixed_6a': _reduction_35(),
        **{f'mixed_6{k}': _figure_6(n, average) for k, n in zip('bcdef', (128, 160, 160, 160, 192), strict=True)},
        'mixed_7a': _reduction_17(),
        **{f'mixed_7{letter}': _figure_7(average) for letter in 'bc'},
    }
    unit = partial(ConvUnit, width=width, decay=norm_decay, dtype=kind)
    he = init.he_normal()
    head = partial(InceptionHead, num_classes, unit, 1024, False, full_init=he, kernel_init=he, dtype=kind)
    return Inception(
        'Inception v2',
        num_classes,
        layers,
        unit,
        dropout,
        kind,
        head=head if auxiliary else None,
        head_after='mixed_6f',
    )


def inception_v3(
    num_classes: Count = 1000,
    auxiliary: bool = True,
    transform_input: bool = False,
    dropout: DropRate = 0.5,
    norm_decay: float = 0.9,
    width: float = 1.0,
    dtype: str | None = None,
) -> Inception:
    """Builds Inception-v3 as its authors released it, and torchvision and timm publish it.

    Other arguments: those of all constructors, at the top of the module; and:

    Args:
      auxiliary: adds the batch-normalised head on mixed_6e; its logits are 'auxiliary'. It takes images of 299x299 or
        larger, the rest of the network 75x75.
      transform_input: maps images normalised by ImageNet's mean and deviation to Inception's (x - 0.5) / 0.5, which
        torchvision's published weights expect; timm's take (x - 0.5) / 0.5 directly.
    """
    average, kind = _AVERAGE_OF_NINE, _dtype(dtype)
    layers = {
        'conv_1a': Unit(32, 3, 2, 'valid'),
        'conv_2a': Unit(32, 3, 1, 'valid'),
        'conv_2b': Unit(64, 3),
        'pool_3a': _HALVE,
        'conv_3b': Unit(80, 1),
        'conv_4a': Unit(192, 3, 1, 'valid'),
        'pool_5a': _HALVE,
        **{f'mixed_5{k}': _figure_5(5, n, average) for k, n in zip('bcd', (32, 64, 64), strict=True)},
        'mixed_6a': _reduction_35(),
        **{f'mixed_6{k}': _figure_6(n, average) for k, n in zip('bcde', (128, 160, 160, 192), strict=True)},
        'mixed_7a': _reduction_17(),
        **{f'mixed_7{letter}': _figure_7(average) for letter in 'bc'},
    }
    # The released code draws from truncated normals of fixed deviations, not by fan-in.
    normal = init.truncated_normal
    unit = partial(ConvUnit, width=width, decay=norm_decay, kernel_init=normal(0.1), dtype=kind)
    head = partial(
        InceptionHead, num_classes, unit, 768, True, full_init=normal(0.01), kernel_init=normal(0.001), dtype=kind
    )
    return Inception(
        'Inception v3',
        num_classes,
        layers,
        unit,
        dropout,
        kind,
        head=head if auxiliary else None,
        head_after='mixed_6e',
        transform_input=transform_input,
        kernel_init=normal(0.1),
    )


def _figure_5(size: int, projection: int, average: Callable) -> dict:
    """Returns a module on 35x35. Rethinking replaces every 5x5 by two 3x3; the released v3 keeps one 5x5 branch."""
    return {
        'branch1x1': (Unit(64),),
        f'branch{size}x{size}': (Unit(48), Unit(64, size)),
        'branch3x3dbl': (Unit(64), Unit(96, 3), Unit(96, 3)),
        'branch_pool': (average, Unit(projection)),
    }


def _figure_6(n: int, average: Callable) -> dict:
    """Returns a module on 17x17: 7x7 as 1x7 and 7x1, n filters wide inside."""
    # 4 x 192 = 768 channels, whatever n is: only the inside of the 7x7 branches widens with depth.
    return {
        'branch1x1': (Unit(192),),
        'branch7x7': (Unit(n), Unit(n, (1, 7)), Unit(192, (7, 1))),
        'branch7x7dbl': (Unit(n), Unit(n, (7, 1)), Unit(n, (1, 7)), Unit(n, (7, 1)), Unit(192, (1, 7))),
        'branch_pool': (average, Unit(192)),
    }


def _figure_7(average: Callable) -> dict:
    """Returns a module on 8x8: 3x3 as 1x3 and 3x1 in parallel."""
    # 320 + 2 x 384 + 2 x 384 + 192 = 2048 channels.
    return {
        'branch1x1': (Unit(320),),
        'branch3x3': (Unit(384), (Unit(384, (1, 3)), Unit(384, (3, 1)))),
        'branch3x3dbl': (Unit(448), Unit(384, 3), (Unit(384, (1, 3)), Unit(384, (3, 1)))),
        'branch_pool': (average, Unit(192)),
    }


def _reduction_35() -> dict:
    """Returns the module of figure 10 from 35x35 to 17x17."""
    return {
        'branch3x3': (Unit(384, 3, 2, 'valid'),),
        'branch3x3dbl': (Unit(64), Unit(96, 3), Unit(96, 3, 2, 'valid')),
        'branch_pool': (_HALVE,),
    }


def _reduction_17() -> dict:
    """Returns the module of figure 10 from 17x17 to 8x8."""
    return {
        'branch3x3': (Unit(192), Unit(320, 3, 2, 'valid')),
        'branch7x7x3': (Unit(192), Unit(192, (1, 7)), Unit(192, (7, 1)), Unit(192, 3, 2, 'valid')),
        'branch_pool': (_HALVE,),
    }


def inception_v4(
    num_classes: Count = 1000,
    dropout: DropRate = 0.2,
    norm_decay: float = 0.9,
    width: float = 1.0,
    dtype: str | None = None,
) -> Inception:
    """Builds Inception-v4, figure 9: the stem, 4 Inception-A, Reduction-A, 7 Inception-B, Reduction-B, 3 Inception-C.

    Reduction-A has k, l, m, n = 192, 224, 256, 384. The arguments are those of all constructors, at the top
    of the module.
    """
    kind = _dtype(dtype)
    layers = {
        'stem_conv1': Unit(32, 3, 2, 'valid'),
        'stem_conv2': Unit(32, 3, 1, 'valid'),
        'stem_conv3': Unit(64, 3),
        **_V4_STEM,
        **{f'inception_a{i}': _V4_A for i in range(1, 5)},
        'reduction_a': _V4_REDUCTION_A,
        **{f'inception_b{i}': _V4_B for i in range(1, 8)},
        'reduction_b': _V4_REDUCTION_B,
        **{f'inception_c{i}': _V4_C for i in range(1, 4)},
    }
    unit = partial(ConvUnit, width=width, decay=norm_decay, dtype=kind)
    return Inception('Inception v4', num_classes, layers, unit, dropout, kind)


_V4_STEM = {  # figure 3
    'stem_mixed1': {'branch_pool': (_HALVE,), 'branch3x3': (Unit(96, 3, 2, 'valid'),)},  # 64 + 96 channels
    'stem_mixed2': {  # 96 + 96
        'branch3x3': (Unit(64), Unit(96, 3, 1, 'valid')),
        'branch7x7': (Unit(64), Unit(64, (1, 7)), Unit(64, (7, 1)), Unit(96, 3, 1, 'valid')),
    },
    'stem_mixed3': {'branch3x3': (Unit(192, 3, 2, 'valid'),), 'branch_pool': (_HALVE,)},  # 192 + 192
}
_V4_A = {  # figure 4
    'branch1x1': (Unit(96),),
    'branch3x3': (Unit(64), Unit(96, 3)),
    'branch3x3dbl': (Unit(64), Unit(96, 3), Unit(96, 3)),
    'branch_pool': (_AVERAGE, Unit(96)),
}
_V4_REDUCTION_A = {  # figure 7
    'branch3x3': (Unit(384, 3, 2, 'valid'),),
    'branch3x3dbl': (Unit(192), Unit(224, 3), Unit(256, 3, 2, 'valid')),
    'branch_pool': (_HALVE,),
}
_V4_B = {  # figure 5
    'branch1x1': (Unit(384),),
    'branch7x7': (Unit(192), Unit(224, (1, 7)), Unit(256, (7, 1))),
    'branch7x7dbl': (Unit(192), Unit(192, (7, 1)), Unit(224, (1, 7)), Unit(224, (7, 1)), Unit(256, (1, 7))),
    'branch_pool': (_AVERAGE, Unit(128)),
}
_V4_REDUCTION_B = {  # figure 8
    'branch3x3': (Unit(192), Unit(192, 3, 2, 'valid')),
    'branch7x7': (Unit(256), Unit(256, (1, 7)), Unit(320, (7, 1)), Unit(320, 3, 2, 'valid')),
    'branch_pool': (_HALVE,),
}
_V4_C = {  # figure 6
    'branch1x1': (Unit(256),),
    'branch3x3': (Unit(384), (Unit(256, (1, 3)), Unit(256, (3, 1)))),
    'branch3x3dbl': (
        Unit(384),
        Unit(448, (3, 1)),
        Unit(512, (1, 3)),
        (Unit(256, (1, 3)), Unit(256, (3, 1))),
    ),
    'branch_pool': (_AVERAGE, Unit(256)),
}  # 1x3 and 3x1 in parallel replace the last 3x3


def _dtype(name: str | None) -> Any:
    return None if name is None else jnp.dtype(name)
