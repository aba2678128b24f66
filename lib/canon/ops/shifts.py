"""Windows as sums over shifted slices: the building blocks of the forms for XLA's CPU compiler.

A k x k window that slides over an image is k x k slices of the image, each shifted by one tap and strided. XLA:CPU
turns a sum (or maximum) over them into one vectorised loop. Its transpose, from windows back to pixels, is again such a
sum for each of the stride x stride phases of the pixels, without a scatter.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon.ops.padding import Pair, count_windows

MAX_TAPS = 49  # the code of a larger window would grow long: the plain form takes it


class Windows(NamedTuple):
    """The positions of windows over an image, as Python numbers, so that it can be a static argument."""

    size: tuple[int, ...]  # (height, width) of the image
    window: tuple[int, ...]  # (height, width) of the window
    stride: Pair
    padding: tuple[Pair, Pair]  # from canon.ops.padding.resolve_padding
    dilation: Pair = (1, 1)

    @property
    def out(self) -> Pair:
        """The number of windows along each axis."""
        return count_windows(self.padding, self.size, self.window, self.stride, self.dilation)

    @property
    def taps(self) -> list[Pair]:
        """The places (i, j) within a window, row by row."""
        return [(i, j) for i in range(self.window[0]) for j in range(self.window[1])]

    def describe(self) -> np.ndarray:
        """Returns the numbers that kernels of `canon.native` take: six for the rows, then six for the columns."""
        lows = [low for low, _ in self.padding]
        axes = zip(self.size, self.out, self.window, self.stride, self.dilation, lows, strict=True)
        return np.array([*axes], np.int64).reshape(-1)


def pad_images(images: jax.Array, padding: Sequence[Pair], value: float | np.ndarray = 0) -> jax.Array:
    """Pads [B, H, W, C] (or crops, where `padding` is negative), and materialises the result in memory."""
    config = ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0))
    # The barrier keeps XLA from fusing the padding into every tap, which would compute it k x k times.
    return lax.optimization_barrier(lax.pad(images, jnp.array(value, images.dtype), config))


def slice_taps(image: jax.Array, windows: Windows) -> list[jax.Array]:
    """Returns for each tap the pixels under it, [B, H', W', C], of an image that `pad_images` padded."""
    (b, _, _, c), (h, w), (s, t) = image.shape, windows.out, windows.stride
    corners = [(i * windows.dilation[0], j * windows.dilation[1]) for i, j in windows.taps]
    return [
        lax.slice(image, (0, y, x, 0), (b, y + (h - 1) * s + 1, x + (w - 1) * t + 1, c), (1, s, t, 1))
        for y, x in corners
    ]


def sum_over_taps(
    arrays: Sequence[tuple[jax.Array, float]], windows: Windows, term: Callable[..., jax.Array]
) -> jax.Array:
    """Computes [B, H, W, C]: for each pixel the sum over all windows and taps that cover it. Transposes `slice_taps`.

    Args:
      arrays: pairs of an array [B, H', W', C], a value per window, and its value outside of the windows.
      windows: their positions.
      term: (index of the tap, *slices of the arrays) -> the summand.
    """
    axes = zip(
        windows.size, windows.padding, windows.window, windows.stride, windows.dilation, windows.out, strict=True
    )
    down, across = (_Axis(n, low, k, s, d, out) for n, (low, _), k, s, d, out in axes)
    padded = [pad_images(a, (down.margins, across.margins), value) for a, value in arrays]
    phases = []
    for a in range(windows.stride[0]):
        for b in range(windows.stride[1]):
            terms = [
                term(i * windows.window[1] + j, *(v[:, y : y + down.pixels, x : x + across.pixels] for v in padded))
                for i, y in down.taps(a)
                for j, x in across.taps(b)
            ]
            phases.append(sum(terms[1:], terms[0]) if terms else None)
    image = interleave(phases, windows.stride)
    return image[:, down.skip : down.skip + windows.size[0], across.skip : across.skip + windows.size[1]]


def interleave(phases: Sequence[jax.Array | None], stride: Pair) -> jax.Array:
    """Interleaves phases (0, 0), (0, 1), ... of [B, h, w, C] to [B, h stride, w stride, C]; None stands for zeros."""
    some = next(p for p in phases if p is not None)
    if stride == (1, 1):
        return some
    b, h, w, c = some.shape
    full = [jnp.zeros_like(some) if p is None else p for p in phases]
    rows = [jnp.stack(full[i : i + stride[1]], 3) for i in range(0, len(full), stride[1])]
    return jnp.stack(rows, 2).reshape(b, h * stride[0], w * stride[1], c)


class _Axis(NamedTuple):
    """One axis of `sum_over_taps`. Pixel stride q + phase of the padded image is under tap t of window q - offset for
    those taps with dilation t = stride offset + phase.
    """

    size: int
    low: int  # pixels of padding before the image
    window: int
    stride: int
    dilation: int
    out: int  # windows

    @property
    def first(self) -> int:
        """The q of the image's first pixel."""
        return self.low // self.stride

    @property
    def skip(self) -> int:
        """Pixels from the first one with that q to the image."""
        return self.low - self.first * self.stride

    @property
    def pixels(self) -> int:
        """The number of q that the image covers."""
        return (self.low + self.size - 1) // self.stride - self.first + 1

    @property
    def furthest(self) -> int:
        """The largest offset."""
        return (self.window - 1) * self.dilation // self.stride

    @property
    def margins(self) -> Pair:
        """Padding around the windows that keeps all slices from `taps` inside."""
        return self.furthest - self.first, self.first + self.pixels - self.out

    def taps(self, phase: int) -> list[Pair]:
        """Returns pairs (tap, start of its slice of `pixels` windows)."""
        return [
            (i, self.furthest - i * self.dilation // self.stride)
            for i in range(self.window)
            if i * self.dilation % self.stride == phase
        ]
