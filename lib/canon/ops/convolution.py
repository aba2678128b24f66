"""Convolution (cross-correlation, as usual in the field) of images [B, H, W, C] with kernels [h, w, C / groups, N]."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from canon import backend, native
from canon.errors import UsageError
from canon.ops import winograd
from canon.ops.depthwise import depthwise_conv
from canon.ops.padding import Padding, pair, resolve_padding
from canon.ops.shifts import MAX_TAPS, Windows, pad_images

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_FEW_CHANNELS = 4  # of images that `canon.native` convolves
_MAX_PIECES = 32  # a convolution of more groups is not split into one per group


def conv(
    images: jax.Array,
    kernel: jax.Array,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Convolves images [B, H, W, C] with kernel [h, w, C / groups, N] to [B, H', W', N].

    Args:
      images: [B, H, W, C].
      kernel: [h, w, C / groups, N].
      stride: between windows, a number or (height, width).
      padding: a convention of `canon.ops.padding`.
      dilation: between the taps of a window.
      groups: of channels; C of them are a depthwise convolution with N / C filters per channel.

    Raises:
      UsageError: the channels do not fit the kernel and the groups.
    """
    stride, dilation = pair(stride, 'stride'), pair(dilation, 'dilation')
    _check(images, kernel, groups)
    explicit = resolve_padding(padding, images.shape[1:3], kernel.shape[:2], stride, dilation)
    windows = Windows(images.shape[1:3], kernel.shape[:2], stride, explicit, dilation)
    return (_conv_on_cpu if backend.cpu_form() else _plain)(images, kernel, windows, groups)


def _plain(images: jax.Array, kernel: jax.Array, windows: Windows, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        windows.stride,
        windows.padding,
        rhs_dilation=windows.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _conv_on_cpu(images: jax.Array, kernel: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """Rewrites what XLA:CPU is slow at, gradients above all, as matrix products and dense convolutions."""
    channels, filters = images.shape[-1], kernel.shape[3]
    if groups == 1:
        if winograd.is_faster(images, kernel, windows):
            return winograd.winograd_conv(images, kernel, windows)  # 16 products instead of 36
        if windows.window == (1, 1):
            return _pointwise(images, kernel, windows)
        if _suits_kernel(images, kernel, windows) and native.is_available():
            return _kernel_conv(images, kernel, windows)
        return _plain(images, kernel, windows, 1)
    if groups == channels and len(windows.taps) <= MAX_TAPS:
        # N / C filters per channel are a depthwise convolution of repeated channels.
        return depthwise_conv(jnp.repeat(images, filters // channels, -1), kernel, windows)
    if groups <= _MAX_PIECES:  # a dense convolution per group; the gradients of a grouped one are slow
        pieces = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
        return jnp.concatenate([_conv_on_cpu(x, k, windows, 1) for x, k in pieces], -1)
    return _plain(images, kernel, windows, groups)


def _suits_kernel(images: jax.Array, kernel: jax.Array, windows: Windows) -> bool:
    """Returns whether the kernel of `canon.native` computes this convolution, and sooner than XLA does."""
    inside = all(low >= 0 for low, _ in windows.padding)  # cropped at the end are pixels that no window reaches
    plain = inside and windows.dilation == (1, 1) and 0 not in kernel.shape
    return plain and images.shape[-1] <= _FEW_CHANNELS and images.dtype == kernel.dtype == jnp.float32


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_conv(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Computes the form of `canon.native`, for images of a few channels; reverse mode only, as all `jax.custom_vjp`."""
    return _convolve(images, kernel, windows)


def _convolve(images, kernel, windows):
    result = jax.ShapeDtypeStruct((len(images), *windows.out, kernel.shape[3]), images.dtype)
    twin = partial(_plain, windows=windows, groups=1)
    return native.call('convolve', twin, result, images, kernel, windows=windows.describe())


def _kernel_conv_forward(images, kernel, windows):
    return _convolve(images, kernel, windows), (images, kernel)  # not `_kernel_conv`: this may be differentiated again


def _kernel_conv_backward(windows, residuals, dy):
    images, kernel = residuals

    result = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)

    def differentiate(images, dy):
        return jax.linear_transpose(lambda k: _plain(images, k, windows, 1), result)(dy)[0]

    name, numbers = 'convolve_kernel_gradient', windows.describe()
    dkernel = native.call(name, differentiate, result, images, dy, windows=numbers)
    # Few need the gradient by the first images: XLA removes it where it is not used.
    return jax.linear_transpose(lambda x: _plain(x, kernel, windows, 1), images)(dy)[0], dkernel


_kernel_conv.defvjp(_kernel_conv_forward, _kernel_conv_backward)


def _pointwise(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Computes a 1x1 convolution as one matrix product over the pixels of its windows."""
    if windows.stride != (1, 1) or any(any(r) for r in windows.padding):
        # The stride drops pixels before the product, not outputs after it.
        images = pad_images(images, windows.padding)[:, :: windows.stride[0], :: windows.stride[1]]
    pixels = images.reshape(-1, images.shape[-1])
    return (pixels @ kernel[0, 0]).reshape(*images.shape[:3], kernel.shape[3])


def conv_transpose(
    images: jax.Array,
    kernel: jax.Array,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Transposes `conv`: images [B, H, W, C] with kernel [h, w, N / groups, C] -> [B, H', W', N].

    It is the gradient by the images of a convolution from N to C channels with that kernel and symmetric `padding`:
    H' = (H - 1) stride - 2 padding + (h - 1) dilation + 1 + output_padding, as in torch's ConvTranspose2d.

    Args:
      images: [B, H, W, C].
      kernel: [h, w, N / groups, C].
      stride: of the transposed convolution: H' grows with it.
      padding: pixels that are cut off at each side.
      output_padding: pixels that are added at the bottom and right.
      dilation: between the taps of a window.
      groups: of channels.

    Raises:
      UsageError: the channels do not fit, or `output_padding` is neither below the stride nor below the dilation.
    """
    stride, dilation = pair(stride, 'stride'), pair(dilation, 'dilation')
    padding, extra = _non_negative_pair(padding, 'padding'), _non_negative_pair(output_padding, 'output_padding')
    _check_ranks(images, kernel)
    if groups < 1 or images.shape[-1] != kernel.shape[3] or images.shape[-1] % groups:
        raise UsageError(
            f'a transposed convolution of images {images.shape} with a kernel {kernel.shape}, groups={groups}: '
            f'the kernel takes {kernel.shape[3]} channels, a multiple of groups'
        )
    # Beyond that the convolution it transposes would have more windows.
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise UsageError(f'output_padding={extra} must be less than the stride {stride} or the dilation {dilation}')
    # `lhs_dilation` puts stride - 1 zeros between the pixels; a padding of (k - 1) d would be the full correlation, of
    # which the padding of the transposed convolution cuts p off again.
    explicit = [
        ((k - 1) * d - p, (k - 1) * d - p + e)
        for k, d, p, e in zip(kernel.shape[:2], dilation, padding, extra, strict=True)
    ]
    return lax.conv_general_dilated(
        images,
        _transpose_kernel(kernel, groups),
        (1, 1),
        explicit,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _transpose_kernel(kernel: jax.Array, groups: int) -> jax.Array:
    """Rotates [h, w, N / groups, C] by 180 degrees and swaps its channels within each group: [h, w, C / groups, N]."""
    h, w, per_group, channels = kernel.shape
    # lax numbers the outputs of a grouped convolution group by group, so the groups come before N / groups.
    kernel = kernel[::-1, ::-1].reshape(h, w, per_group, groups, channels // groups)
    return kernel.transpose(0, 1, 4, 3, 2).reshape(h, w, channels // groups, groups * per_group)


def _non_negative_pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) and v >= 0 for v in values):
        raise UsageError(f'{name}={value!r} of a transposed convolution is neither a number nor (height, width)')
    return values


def _check_ranks(images: jax.Array, kernel: jax.Array) -> None:
    if images.ndim != 4 or kernel.ndim != 4:
        raise UsageError(
            f'a convolution takes images [B, H, W, C] and a kernel [h, w, C, N], not {images.shape} and {kernel.shape}'
        )


def _check(images: jax.Array, kernel: jax.Array, groups: int) -> None:
    _check_ranks(images, kernel)
    if groups < 1:
        raise UsageError(f'groups={groups} is not a positive integer')
    channels, expected, filters = images.shape[-1], kernel.shape[2] * groups, kernel.shape[3]
    if channels != expected:
        raise UsageError(
            f'images {images.shape} do not fit kernel {kernel.shape} with groups={groups}: it takes {expected} channels'
        )
    if filters % groups:
        raise UsageError(f'{filters} filters cannot be divided into groups={groups}')
