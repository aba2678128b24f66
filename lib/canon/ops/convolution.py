"""Convolution (cross-correlation, as the field says it) of images [B, H, W, C] with kernels [h, w, C / groups, N]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from canon import backend
from canon.errors import UsageError
from canon.ops import winograd
from canon.ops.depthwise import depthwise
from canon.ops.padding import Padding, pads, pair
from canon.ops.shifts import MOST_TAPS, Windows, padded

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_MOST_PIECES = 32  # a grouped convolution is cut into no more


def conv(
    images: jax.Array,
    kernel: jax.Array,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """images [B, H, W, C] with kernel [h, w, C / groups, N] -> [B, H', W', N].

    padding: see `canon.ops.padding`. groups = C is a depthwise convolution, with N / C filters for each channel.
    Raises UsageError for channels that do not fit the kernel and the groups.
    """
    stride, dilation = pair(stride, 'stride'), pair(dilation, 'dilation')
    _check(images, kernel, groups)
    rows = pads(padding, images.shape[1:3], kernel.shape[:2], stride, dilation)
    at = Windows(images.shape[1:3], kernel.shape[:2], stride, rows, dilation)
    return (_for_cpu if backend.cpu_form() else _plain)(images, kernel, at, groups)


def _plain(images: jax.Array, kernel: jax.Array, at: Windows, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        at.stride,
        at.rows,
        rhs_dilation=at.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _for_cpu(images: jax.Array, kernel: jax.Array, at: Windows, groups: int) -> jax.Array:
    """XLA:CPU is fast at matrix products and at dense convolutions; the rest, its gradients above all, is not."""
    channels, filters = images.shape[-1], kernel.shape[3]
    if groups == 1:
        if winograd.pays(images, kernel, at):
            return winograd.winograd(images, kernel, at)
        return _pointwise(images, kernel, at) if at.window == (1, 1) else _plain(images, kernel, at, 1)
    if groups == channels and len(at.taps) <= MOST_TAPS:
        return depthwise(jnp.repeat(images, filters // channels, -1), kernel, at)
    if groups <= _MOST_PIECES:
        pieces = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
        return jnp.concatenate([_for_cpu(x, k, at, 1) for x, k in pieces], -1)
    return _plain(images, kernel, at, groups)


def _pointwise(images: jax.Array, kernel: jax.Array, at: Windows) -> jax.Array:
    """A 1x1 convolution: one matrix product over the pixels that its windows see."""
    if at.stride != (1, 1) or any(any(r) for r in at.rows):
        images = padded(images, at.rows)[:, :: at.stride[0], :: at.stride[1]]
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
    """The transpose of `conv`: images [B, H, W, C] with kernel [h, w, N / groups, C] -> [B, H', W', N].

    It is the gradient by its images of a convolution from N to C channels with that kernel and the symmetric `padding`:
    H' = (H - 1) stride - 2 padding + (h - 1) dilation + 1 + output_padding, as torch's ConvTranspose2d has it.
    Raises UsageError for channels that do not fit, and where output_padding is not less than stride or dilation.
    """
    stride, dilation = pair(stride, 'stride'), pair(dilation, 'dilation')
    padding, extra = _numbers(padding, 'padding'), _numbers(output_padding, 'output_padding')
    _check_ranks(images, kernel)
    if groups < 1 or images.shape[-1] != kernel.shape[3] or images.shape[-1] % groups:
        raise UsageError(
            f'a transposed convolution of images {images.shape} with a kernel {kernel.shape}, groups={groups}: '
            f'the kernel wants {kernel.shape[3]} channels, a multiple of groups'
        )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise UsageError(f'output_padding={extra} must be less than the stride {stride} or the dilation {dilation}')
    rows = [
        ((k - 1) * d - p, (k - 1) * d - p + e)
        for k, d, p, e in zip(kernel.shape[:2], dilation, padding, extra, strict=True)
    ]
    return lax.conv_general_dilated(
        images,
        _transposed(kernel, groups),
        (1, 1),
        rows,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _transposed(kernel: jax.Array, groups: int) -> jax.Array:
    """[h, w, N / groups, C] turned by half and with its channels exchanged group by group: [h, w, C / groups, N]."""
    h, w, per_group, channels = kernel.shape
    kernel = kernel[::-1, ::-1].reshape(h, w, per_group, groups, channels // groups)
    return kernel.transpose(0, 1, 4, 3, 2).reshape(h, w, channels // groups, groups * per_group)


def _numbers(value: int | Sequence[int], what: str) -> tuple[int, int]:
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) and v >= 0 for v in both):
        raise UsageError(f'{what}={value!r} of a transposed convolution is neither a number nor (height, width)')
    return both


def _check_ranks(images: jax.Array, kernel: jax.Array) -> None:
    if images.ndim != 4 or kernel.ndim != 4:
        raise UsageError(
            f'a convolution takes images [B, H, W, C] and a kernel [h, w, C, N], not {images.shape} and {kernel.shape}'
        )


def _check(images: jax.Array, kernel: jax.Array, groups: int) -> None:
    _check_ranks(images, kernel)
    if groups < 1:
        raise UsageError(f'groups={groups} is not a positive integer')
    channels, wanted, filters = images.shape[-1], kernel.shape[2] * groups, kernel.shape[3]
    if channels != wanted:
        raise UsageError(
            f'images {images.shape} meet a kernel {kernel.shape} with groups={groups}, which wants {wanted} channels'
        )
    if filters % groups:
        raise UsageError(f'{filters} filters cannot be shared out over groups={groups}')
