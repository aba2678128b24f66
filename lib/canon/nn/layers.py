"""Layers of convolutional networks: linen modules over `canon.ops`, with float32 parameters whatever the `dtype`."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.ops.padding import Padding, pair

he_normal = init.variance_scaling(2.0, 'fan_out', 'normal')  # He et al. 2015, eq. 14; torchvision's 'kaiming' too


class Dense(nn.Dense):
    """`linen.Dense` over `canon.ops.dense`, for inputs [..., C] with any number of leading axes."""

    dot_general: Any = ops.dense.dot_general


class DenseGeneral(nn.DenseGeneral):
    """`linen.DenseGeneral` over `canon.ops.dense`."""

    dot_general: Any = ops.dense.dot_general


class Conv(nn.Module):
    """Convolution, [B, H, W, C] -> [B, H', W', features]; parameters `kernel` [h, w, C / groups, features], `bias`."""

    features: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: Padding = 0  # a number (both sides, as in Caffe and torch), 'same', 'valid', ...: `canon.ops.padding`
    dilation: int | Sequence[int] = 1
    groups: int = 1
    use_bias: bool = True
    dtype: Any = None  # of the computation; None keeps that of the images
    kernel_init: Callable = he_normal
    bias_init: Callable = init.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_groups(self, x.shape[-1], self.features)
        shape = (*pair(self.kernel_size, 'kernel_size'), x.shape[-1] // self.groups, self.features)
        kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
        bias = self.param('bias', self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = ops.conv(x, kernel, self.stride, self.padding, self.dilation, self.groups)
        return y if bias is None else y + bias


class ConvTranspose(nn.Module):
    """Transposed convolution (`canon.ops.conv_transpose`); parameters `kernel` [h, w, features / groups, C], `bias`."""

    features: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] = 0
    output_padding: int | Sequence[int] = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = init.variance_scaling(1.0, 'fan_in', 'normal', in_axis=-1, out_axis=-2)
    bias_init: Callable = init.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_groups(self, x.shape[-1], self.features)
        shape = (*pair(self.kernel_size, 'kernel_size'), self.features // self.groups, x.shape[-1])
        kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
        bias = self.param('bias', self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = ops.conv_transpose(x, kernel, self.stride, self.padding, self.output_padding, self.dilation, self.groups)
        return y if bias is None else y + bias


def _check_groups(layer: Conv | ConvTranspose, channels: int, features: int) -> None:
    if layer.groups < 1 or channels % layer.groups or features % layer.groups:
        raise UsageError(
            f'{layer.name or type(layer).__name__}: {channels} channels and {features} features cannot be divided into '
            f'groups={layer.groups}'
        )


class SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution (Howard et al. 2017, section 3.1), with nothing in between."""

    features: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: Padding = 'same'
    multiplier: int = 1  # depthwise filters per channel
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        x = Conv(
            channels * self.multiplier,
            self.kernel_size,
            self.stride,
            self.padding,
            groups=channels,
            use_bias=False,
            dtype=self.dtype,
            name='depthwise',
        )(x)
        return Conv(self.features, 1, use_bias=self.use_bias, dtype=self.dtype, name='pointwise')(x)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last, with statistics in float32.

    Parameters `scale`, `bias`; in the collection 'batch_stats' `mean`, `var`. Training normalises by the statistics s
    of the batch (of the whole batch, however it is laid out over devices) and updates the running ones,
    r <- decay r + (1 - decay) s. Evaluation normalises by the running statistics.

    With `constant` it is an affine map that no training changes, and `scale` and `bias` are in 'batch_stats' as well:
    no parameters, so that no optimizer and no weight decay sees them (torchvision's FrozenBatchNorm2d).
    """

    decay: float = 0.9  # 1 - torch's momentum
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    unbiased: bool = True  # the running variance takes n / (n - 1) times the batch's, as the paper and torch, not flax
    frozen: bool = False  # training normalises by the running statistics too, and does not update them
    constant: bool = False  # frozen, and scale and bias are not trained
    dtype: Any = None
    scale_init: Callable = init.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shape = (x.shape[-1],)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32)
        scale = self._value('scale', self.scale_init, shape) if self.use_scale else jnp.ones(shape)
        bias = self._value('bias', init.zeros, shape) if self.use_bias else jnp.zeros(shape)
        x = x.astype(self.dtype or x.dtype)
        if not train or self.frozen or self.constant:
            return ops.batch_norm(x, scale, bias, mean.value, var.value, self.eps)
        y, batch_mean, batch_var = ops.batch_norm_train(x, scale, bias, self.eps)
        if not self.is_initializing():
            n = x.size // x.shape[-1]
            if self.unbiased:
                batch_var = batch_var * (n / max(n - 1, 1))
            mean.value = self.decay * mean.value + (1 - self.decay) * batch_mean
            var.value = self.decay * var.value + (1 - self.decay) * batch_var
        return y

    def _value(self, name: str, initial: Callable, shape: tuple[int, ...]) -> jax.Array:
        if self.constant:  # without a key: such scales start as 0 or 1
            return self.variable('batch_stats', name, initial, None, shape, jnp.float32).value
        return self.param(name, initial, shape, jnp.float32)


class L2Norm(nn.Module):
    """L2 normalisation across channels with a learned scale per channel (`canon.ops.l2_normalize`), as in SSD.

    Its parameter is `channel_scale` [C]: unlike the `scale` of a `BatchNorm` it comes without statistics.
    """

    initial_scale: float = 20.0
    eps: float = 1e-10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('channel_scale', init.constant(self.initial_scale), (x.shape[-1],), jnp.float32)
        return ops.l2_normalize(x, scale, self.eps)


def reestimate(forward: Callable[[Any, Any], Any], batch_stats: Any, batches: Any, decay: float | None = None) -> Any:
    """Estimates 'batch_stats' again over `batches`: for averaged weights, AdaBN, or the paper's inference (Alg. 2).

    Means and variances are averaged over the batches, like the paper's E[mu_B] and E[var_B] (unbiased if the layers
    are). Batches whose statistics are not finite do not count.

    Args:
      forward: (batch_stats, batch) -> the batch_stats after a pass in training mode.
      batch_stats: the statistics to replace; their values do not matter.
      batches: an iterable of what `forward` takes.
      decay: of all BatchNorm layers; None measures each layer's own by a second pass over the first batch.

    Returns:
      The new batch_stats; the old ones if no batch has finite statistics.

    Raises:
      UsageError: there are no batches.
    """
    zero = jax.tree.map(jnp.zeros_like, batch_stats)
    total, count, rest, batch = zero, 0, None, None
    for batch in batches:
        update = forward(zero, batch)  # (1 - decay) times the batch's own statistics
        if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(update)):
            continue
        if rest is None:
            rest = jax.tree.map(lambda _: 1 - decay, zero) if decay else _one_minus_decay(forward, update, batch)
        total, count = jax.tree.map(jnp.add, total, update), count + 1
    if batch is None:
        raise UsageError('batch statistics cannot be estimated from no batches')
    return jax.tree.map(lambda t, r: t / (count * r), total, rest) if count else batch_stats


def _one_minus_decay(forward: Callable, update: Any, batch: Any) -> Any:
    """Measures 1 - decay of each layer, whose update is decay * old + (1 - decay) * new, with a large `old`."""
    large = 2.0**20  # a power of two, so that the division below is exact
    moved = forward(jax.tree.map(lambda x: jnp.full_like(x, large), update), batch)
    return jax.tree.map(lambda m, u: 1 - (m - u) / large, moved, update)


def make_divisible(channels: float, divisor: int = 8, least: int | None = None) -> int:
    """Rounds `channels` to a multiple of `divisor`, at least `least` (or the divisor) and 0.9 `channels`.

    This is how the MobileNets' authors round widths (code of Sandler et al. 2018).
    """
    rounded = max(divisor if least is None else least, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scale_channels(channels: int, width: float, groups: int = 1) -> int:
    """Multiplies `channels` by a width, rounded to a multiple of `groups`. Raises UsageError if none are left."""
    scaled = groups * round(channels * width / groups)
    if scaled < 1:
        raise UsageError(f'model.width={width} leaves none of {channels} channels; widen it')
    return scaled
