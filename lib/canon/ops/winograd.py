"""3x3 convolution with stride 1 by minimal filtering, F(2x2, 3x3): Winograd; Lavin & Gray 2016, section 4.1.

The outputs are cut into tiles of 2x2, each computed from a tile d of 4x4 pixels, and with a filter g [3, 3]

    Y = A^T [(G g G^T) * (B^T d B)] A        summed over channels,

where * multiplies elementwise: 16 products where the sum over windows has 36. The sum over channels becomes a matrix
product for each of the 16 elements; the transforms only add and halve. The error is that of the plain form, and an
output depends on its own 3x3 pixels alone, bit for bit, which larger tiles (F(4x4, 3x3), with fewer products yet) lose.
The gradient by the images is such a convolution again, and the gradient by the kernel has its sums over pixels between
the same transforms, so both save as much where channels are many. Reverse mode only, like every `jax.custom_vjp`.
With dilation d the pixels of each phase modulo d are images of their own, and their convolutions have no dilation.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon.ops.padding import Pair
from canon.ops.shifts import Windows, interleave, pad_images

# Equation 10's B^T, G and A^T.
_PIXELS = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_ROTATED_FILTER = _FILTER[:, ::-1]  # for a filter rotated by 180 degrees

# Time relative to the plain form on 2 CPU cores with AVX2, float32, batch 8: forward, and forward with both gradients.
#     56x56, 64 channels   0.75, 0.86        28x28, 48   0.81, 0.90        7x7 (8x8 with zeros), 512     0.80, 0.86
#     28x28, 128           0.67, 0.69        28x28, 32   0.99, 1.00        7x7, 512, batch 4             0.97, 1.00
#     14x14, 256           0.58, 0.61        28x28, 16   1.26, 0.93        7x7, 512, batch 1             1.36, 1.38
# The transform of the filters costs as much as some 32 tiles. With 64 channels the gradient by the kernel is the one
# product that loses, 1.3 (0.87 with 96). Transformed images have 4 times the elements: _MAX_ELEMENTS are 256 MB.
_MIN_CHANNELS, _MIN_KERNEL_GRADIENT_CHANNELS, _MAX_ELEMENTS = 64, 96, 2**26


def is_faster(images: jax.Array, kernel: jax.Array, windows: Windows) -> bool:
    """Returns whether `winograd_conv` beats XLA:CPU's own convolution, at a reasonable cost of memory."""
    if (*kernel.shape[:2], *windows.stride) != (3, 3, 1, 1):
        return False
    if images.dtype != kernel.dtype or images.dtype not in (jnp.float32, jnp.float64):
        return False
    channels, outputs = kernel.shape[2:], images.shape[0] * math.prod(windows.out)
    tiles = images.shape[0] * math.prod(
        d * -(-_count_in_phase(n, d) // 2) for n, d in zip(windows.out, windows.dilation, strict=True)
    )
    return (
        min(channels) >= _MIN_CHANNELS and tiles + 32 <= 0.42 * outputs and 16 * tiles * max(channels) <= _MAX_ELEMENTS
    )


def winograd_conv(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Convolves images [B, H, W, C] with kernel [3, 3, C, N] to [B, H', W', N]; float32 or float64, stride 1."""
    if windows.dilation == (1, 1):
        return _conv(images, kernel, windows)
    d, e = windows.dilation
    h, w = (_count_in_phase(n, k) for n, k in zip(windows.out, (d, e), strict=True))
    size = (h + 2, w + 2)  # of the pixels of a phase
    ends = [
        (low, k * s - n - low) for n, k, s, (low, _) in zip(windows.size, (d, e), size, windows.padding, strict=True)
    ]
    phases = pad_images(images, ends).reshape(-1, size[0], d, size[1], e, images.shape[-1])
    phases = phases.transpose(2, 4, 0, 1, 3, 5).reshape(-1, *size, images.shape[-1])
    outputs = _conv(phases, kernel, Windows(size, (3, 3), (1, 1), ((0, 0), (0, 0))))
    pieces = outputs.reshape(d * e, images.shape[0], h, w, kernel.shape[-1])
    return interleave(list(pieces), (d, e))[:, : windows.out[0], : windows.out[1]]


def _count_in_phase(outputs: int, dilation: int) -> int:
    return -(-outputs // dilation)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(images: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    return _outputs(_products(_tiles(images, windows), _filters(_FILTER, kernel), 1, 0), windows.out)


def _forward(images, kernel, windows):
    return _conv(images, kernel, windows), (images, kernel)


def _backward(windows, residuals, dy):
    images, kernel = residuals
    padding = tuple((2 - low, 2 - high) for low, high in windows.padding)
    back = Windows(windows.out, (3, 3), (1, 1), padding)  # ty: ignore[invalid-argument-type]
    dimages = _outputs(_products(_tiles(dy, back), _filters(_ROTATED_FILTER, kernel), 1, 1), windows.size)
    return dimages, _kernel_gradient(images, kernel, dy, windows)


def _kernel_gradient(images, kernel, dy, windows):
    if min(kernel.shape[2:]) < _MIN_KERNEL_GRADIENT_CHANNELS:
        layout = ('NHWC', 'HWIO', 'NHWC')
        plain = partial(
            lax.conv_general_dilated, window_strides=(1, 1), padding=windows.padding, dimension_numbers=layout
        )
        return jax.vjp(lambda k: plain(images, k), kernel)[1](dy)[0]
    dfilters = _products(_tiles(images, windows), _output_tiles(dy, windows), 0, 0)
    dkernel = jnp.asarray(np.kron(_FILTER, _FILTER).T, dy.dtype) @ dfilters.reshape(16, -1)
    return dkernel.reshape(kernel.shape)


_conv.defvjp(_forward, _backward)


def _products(left: jax.Array, right: jax.Array, of_left: int, of_right: int) -> jax.Array:
    """Multiplies, for each element of a tile, the two as matrices [.., C] or [.., N], over axis `of_..` of each."""
    a, b = (x.reshape(16, -1, x.shape[-1]) for x in (left, right))
    return lax.dot_general(a, b, (((1 + of_left,), (1 + of_right,)), ((0,), (0,))))


def _filters(matrix: np.ndarray, kernel: jax.Array) -> jax.Array:
    """Computes G g G^T, [4 * 4, C, N]."""
    return (jnp.asarray(np.kron(matrix, matrix), kernel.dtype) @ kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])


def _tiles(images: jax.Array, windows: Windows) -> jax.Array:
    """Computes B^T d B, [4, 4, B, H'/2, W'/2, C], rounded up."""
    return _transform(_PIXELS, pad_images(images, _even_padding(windows.padding, windows.out)))


def _output_tiles(dy: jax.Array, windows: Windows) -> jax.Array:
    """Computes A dY A^T, the factor of `_tiles` in the gradient by the filters, [4, 4, B, H'/2, W'/2, N]."""
    return _transform(_OUTPUT.T, pad_images(dy, _even_padding(((0, 0), (0, 0)), windows.out)))


def _outputs(products: jax.Array, out: Pair) -> jax.Array:
    """Computes A^T M A of products [16, tiles, N], [B, H', W', N]."""
    h, w = (-(-n // 2) for n in out)
    m = products.reshape(4, 4, -1, h, w, products.shape[-1])
    rows = [_sum(a, list(m)) for a in _OUTPUT.tolist()]
    return interleave([_sum(b, list(row)) for row in rows for b in _OUTPUT.tolist()], (2, 2))[:, : out[0], : out[1]]


def _even_padding(padding: tuple[Pair, Pair], out: Pair) -> tuple[Pair, Pair]:
    """Adds a pixel at the end of each axis with an odd number of outputs."""
    (top, bottom), (left, right) = padding
    return (top, bottom + out[0] % 2), (left, right + out[1] % 2)


def _transform(matrix: np.ndarray, image: jax.Array) -> jax.Array:
    """Computes matrix X matrix^T of the blocks X of an image that start at every second pixel, [4, 4, B, h, w, C].

    First along columns, then along rows, with the intermediate in memory: sums of two terms each, which XLA:CPU
    compiles faster than sums of four and runs as fast.
    """
    down = lax.optimization_barrier(_transform_axis(matrix, image, 1, 0))
    return _transform_axis(matrix, down, 3, 1)


def _transform_axis(matrix: np.ndarray, image: jax.Array, axis: int, place: int) -> jax.Array:
    """Multiplies by the matrix along the pixels of `axis`; its rows become a new axis at `place`."""
    taps = matrix.shape[1]
    ends = image.shape[axis] - taps + 1
    slices = [lax.slice_in_dim(image, i, i + ends, 2, axis) for i in range(taps)]
    return jnp.stack([_sum(row, slices) for row in matrix.tolist()], place)


def _sum(factors: Sequence[float], terms: Sequence[jax.Array]) -> jax.Array:
    scaled = [t if f == 1 else f * t for f, t in zip(factors, terms, strict=True) if f]
    return sum(scaled[1:], scaled[0])
