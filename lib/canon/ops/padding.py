"""Padding conventions of convolution and pooling: how many pixels each side gets, and how many windows fit.

| padding | windows | side of the odd pixel |
|---|---|---|
| p, (p_h, p_w), ('torch', p), ('caffe', p) | floor((n + 2p - k) / s) + 1 | neither: the last pixels are unused |
| 'same' (TensorFlow, XLA) | ceil(n / s) | bottom/right |
| 'same_lower' | ceil(n / s) | top/left |
| 'valid' | floor((n - k) / s) + 1 | |
| ((top, bottom), (left, right)) or ('explicit', ...) | floor((n + top + bottom - k) / s) + 1 | |

k is the extent of the window, (size - 1) dilation + 1. With `ceil_mode` (pooling only) Caffe and torch round up, and
drop a last window that would start in the bottom/right padding. The conventions differ where it is easily overlooked:
for a 7x7 window with stride 2 on 224 pixels, symmetric padding of 3 uses 3 above and 2 below, 'same' 2 and 3.
"""

from collections.abc import Sequence

from canon.errors import UsageError

Pair = tuple[int, int]
Padding = int | str | Sequence


def pair(value: int | Sequence[int], name: str = 'size') -> Pair:
    """Returns (value, value) for a number, (height, width) as it is. Raises UsageError unless both are positive."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise UsageError(f'{name}={value!r} is neither a positive integer nor (height, width)')
    return values


def resolve_padding(
    padding: Padding,
    size: Sequence[int],
    window: Sequence[int],
    stride: Pair,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Pair, Pair]:
    """Computes the explicit padding ((top, bottom), (left, right)) after which strided windows fit exactly.

    Args:
      padding: a convention of the table above.
      size: (height, width) of the image.
      window: (height, width) of the window.
      stride: between windows.
      dilation: of the window.
      ceil_mode: rounds the number of windows up.

    Returns:
      Pixels per side. Bottom and right may be negative, for pixels that no window reaches.

    Raises:
      UsageError: the convention is unknown, or not a single window fits.
    """
    extent = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    axes = zip(nominal_padding(padding, size, extent, stride), size, extent, stride, strict=True)
    return tuple(_fit(low, high, n, k, s, ceil_mode) for (low, high), n, k, s in axes)  # ty: ignore[invalid-explicit-return]


def count_windows(
    padding: tuple[Pair, Pair], size: Sequence[int], window: Sequence[int], stride: Pair, dilation: Pair = (1, 1)
) -> Pair:
    """Counts the windows along each axis, given the explicit `padding` that `resolve_padding` returns."""
    axes = zip(padding, size, window, stride, dilation, strict=True)
    return tuple((n + sum(low_high) - (k - 1) * d - 1) // s + 1 for low_high, n, k, s, d in axes)  # ty: ignore[invalid-explicit-return]


def nominal_padding(padding: Padding, size: Sequence[int], extent: Sequence[int], stride: Pair) -> Sequence[Pair]:
    """Returns (low, high) of each axis as the convention states them, before windows are counted."""
    if isinstance(padding, int):
        return _symmetric((padding, padding))
    if padding == 'valid':
        return _symmetric((0, 0))
    if padding in ('same', 'same_lower'):
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, extent, stride, strict=True)]
        halves = [(t // 2, t - t // 2) for t in totals]
        # They differ if the total is odd: TensorFlow puts the extra pixel at the end, 'same_lower' at the beginning.
        return halves if padding == 'same' else [(high, low) for low, high in halves]
    if not isinstance(padding, str) and len(padding) == 2:
        first, second = padding
        if first in ('torch', 'caffe', 'explicit'):  # a label for the reader; the second entry decides
            return nominal_padding(second, size, extent, stride)
        if isinstance(first, int) and isinstance(second, int):
            return _symmetric((first, second))
        if all(isinstance(side, Sequence) and len(side) == 2 for side in padding):
            return [tuple(side) for side in padding]
    raise UsageError(
        f"padding={padding!r} is unknown; there are numbers, 'same', 'same_lower', 'valid', ('torch', p), ('caffe', p) "
        'or ((top, bottom), (left, right))'
    )


def _symmetric(padding: Pair) -> Sequence[Pair]:
    if min(padding) < 0:
        raise UsageError(f'padding={padding} is negative')
    return [(p, p) for p in padding]


def _fit(low: int, high: int, n: int, k: int, s: int, ceil_mode: bool) -> Pair:
    """Extends or cuts the high side of one axis so that the last window ends at the last pixel."""
    # Rounded up, a window fits even if it lacks pixels, as long as they are fewer than a stride.
    spare = n + low + high - k
    if spare < 0 and not (ceil_mode and spare > -s):
        raise UsageError(
            f'a window of {k} does not fit on {n} pixels with {low} + {high} of padding; use a larger image'
        )
    count = (-(-spare // s) if ceil_mode else spare // s) + 1
    if ceil_mode and (count - 1) * s >= n + low:  # it would start in the padding: Caffe and torch drop it
        count -= 1
    # Negative if the last window ends before the last pixel: that side is then cropped and not padded.
    return low, (count - 1) * s + k - n - low
