"""Windows as sums over shifted slices: what the forms for XLA's CPU compiler are made of.

A window of k x k pixels slid over an image is k x k slices of the image, each shifted by one tap and strided. XLA:CPU
turns a sum (or maximum) over them into one vectorised loop. Its transpose, from windows back to pixels, is again such a
sum for each of the stride x stride phases of the pixels, and no scatter.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon.ops.padding import Pair, outputs

MOST_TAPS = 49  # a larger window's code would grow long: leave it to the plain form


class Windows(NamedTuple):
    """Where windows lie over an image: all of it Python numbers, so that it can be a static argument."""

    size: tuple[int, ...]  # of the image
    window: tuple[int, ...]
    stride: Pair
    rows: tuple[Pair, Pair]  # from canon.ops.padding.pads
    dilation: Pair = (1, 1)

    @property
    def out(self) -> Pair:
        """How many windows there are along each axis."""
        return outputs(self.rows, self.size, self.window, self.stride, self.dilation)

    @property
    def taps(self) -> list[Pair]:
        """Row by row."""
        return [(i, j) for i in range(self.window[0]) for j in range(self.window[1])]


def padded(images: jax.Array, rows: Sequence[Pair], value: float | np.ndarray = 0) -> jax.Array:
    """[B, H, W, C] with rows added (or left out, where negative), in memory: not computed again for every tap."""
    config = ((0, 0, 0), *((low, high, 0) for low, high in rows), (0, 0, 0))
    return lax.optimization_barrier(lax.pad(images, jnp.array(value, images.dtype), config))


def shifted(image: jax.Array, at: Windows) -> list[jax.Array]:
    """For each tap, what the windows see there: [B, H', W', C] of a `padded` image."""
    (b, _, _, c), (h, w), (s, t) = image.shape, at.out, at.stride
    corners = [(i * at.dilation[0], j * at.dilation[1]) for i, j in at.taps]
    return [
        lax.slice(image, (0, y, x, 0), (b, y + (h - 1) * s + 1, x + (w - 1) * t + 1, c), (1, s, t, 1))
        for y, x in corners
    ]


def back(arrays: Sequence[tuple[jax.Array, float]], at: Windows, term: Callable[..., jax.Array]) -> jax.Array:
    """The transpose of `shifted`: [B, H, W, C], for each pixel the sum over the windows and taps that see it.

    arrays: ([B, H', W', C], its value outside of the windows). term: (number of the tap, *slices of the arrays).
    """
    parts = zip(at.size, at.rows, at.window, at.stride, at.dilation, at.out, strict=True)
    down, across = (_Axis(n, low, k, s, d, out) for n, (low, _), k, s, d, out in parts)
    seen = [padded(a, (down.margins, across.margins), value) for a, value in arrays]
    phases = []
    for a in range(at.stride[0]):
        for b in range(at.stride[1]):
            terms = [
                term(i * at.window[1] + j, *(v[:, y : y + down.pixels, x : x + across.pixels] for v in seen))
                for i, y in down.taps(a)
                for j, x in across.taps(b)
            ]
            phases.append(sum(terms[1:], terms[0]) if terms else None)
    image = interleave(phases, at.stride)
    return image[:, down.skip : down.skip + at.size[0], across.skip : across.skip + at.size[1]]


def interleave(phases: Sequence[jax.Array | None], stride: Pair) -> jax.Array:
    """Phases (0, 0), (0, 1) .. of [B, h, w, C] -> [B, h stride, w stride, C]; None is zero."""
    some = next(p for p in phases if p is not None)
    if stride == (1, 1):
        return some
    b, h, w, c = some.shape
    full = [jnp.zeros_like(some) if p is None else p for p in phases]
    rows = [jnp.stack(full[i : i + stride[1]], 3) for i in range(0, len(full), stride[1])]
    return jnp.stack(rows, 2).reshape(b, h * stride[0], w * stride[1], c)


class _Axis(NamedTuple):
    """One axis on the way back. Pixel stride q + phase of the padded image is seen by window q - offset at those taps
    whose dilation tap = stride offset + phase.
    """

    size: int
    low: int  # rows of padding before the image
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
        """Pixels from there to the image."""
        return self.low - self.first * self.stride

    @property
    def pixels(self) -> int:
        """How many q the image lies in."""
        return (self.low + self.size - 1) // self.stride - self.first + 1

    @property
    def furthest(self) -> int:
        """The largest offset."""
        return (self.window - 1) * self.dilation // self.stride

    @property
    def margins(self) -> Pair:
        """To add around the windows, so that all the slices from `taps` lie inside."""
        return self.furthest - self.first, self.first + self.pixels - self.out

    def taps(self, phase: int) -> list[Pair]:
        """(tap, where its slice of `pixels` windows starts)"""
        return [
            (i, self.furthest - i * self.dilation // self.stride)
            for i in range(self.window)
            if i * self.dilation % self.stride == phase
        ]
