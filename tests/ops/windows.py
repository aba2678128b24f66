"""Convolution and pooling as an explicit loop over windows, in float64 numpy: the reference for every convention."""

import numpy as np


def starts(convention, n: int, k: int, s: int, d: int = 1, ceil_mode: bool = False) -> list[int]:
    """Where the windows of one axis start, in pixels of the image; a negative start lies in the padding.

    convention: 'same', 'same_lower', 'valid', a number (symmetric), or (before, after). One window after the other is
    laid down, as long as the convention lets it.
    """
    extent = (k - 1) * d + 1
    if convention in ('same', 'same_lower'):
        # TensorFlow: a window for each s-th pixel; the zeros that they need are halved, the odd one goes after (before)
        count = len(range(0, n, s))
        needed = max(s * (count - 1) + extent - n, 0)
        before = needed // 2 if convention == 'same' else needed - needed // 2
        return [i * s - before for i in range(count)]
    before, after = {'valid': (0, 0)}.get(convention) or (
        (convention, convention) if isinstance(convention, int) else convention
    )
    positions, position = [], -before
    while position + extent <= n + after:
        positions.append(position)
        position += s
    # Caffe, torch: rounding up adds a window that hangs over, unless it would start in the padding behind the image
    hangs = positions[-1] + extent < n + after if positions else extent - s < n + before + after
    if ceil_mode and hangs and position < n:
        positions.append(position)
    return positions


def over_windows(images, window, places, dilation, fold):
    """[B, H', W', ...]: fold(pixels [B, h, w, C], which of them are the image's [h, w], where they start) of each."""
    _, height, width, _ = images.shape
    rows = []
    for y in places[0]:
        row = []
        for x in places[1]:
            ys, xs = y + dilation[0] * np.arange(window[0]), x + dilation[1] * np.arange(window[1])
            inside = np.outer((ys >= 0) & (ys < height), (xs >= 0) & (xs < width))
            pixels = images[:, np.clip(ys, 0, height - 1)][:, :, np.clip(xs, 0, width - 1)]
            row.append(fold(pixels, inside, (y, x)))
        rows.append(np.stack(row, 1))
    return np.stack(rows, 1)


def conv(images, kernel, places, dilation, groups):
    """[B, H', W', N]"""
    outputs = kernel.shape[3] // groups

    def fold(pixels, inside, _):
        pixels = np.where(inside[:, :, None], pixels, 0)
        parts = np.split(pixels, groups, -1)
        return np.concatenate(
            [
                np.einsum('bhwc,hwcn->bn', part, kernel[..., g * outputs : (g + 1) * outputs])
                for g, part in enumerate(parts)
            ],
            -1,
        )

    return over_windows(images, kernel.shape[:2], places, dilation, fold)


def max_pool(images, window, places):
    """[B, H', W', C]"""
    return over_windows(
        images,
        window,
        places,
        (1, 1),
        lambda pixels, inside, _: np.where(inside[:, :, None], pixels, -np.inf).max((1, 2)),
    )


def avg_pool(images, window, places, include):
    """[B, H', W', C]; include: None divides by the image's own pixels, (rows, columns) of padding after it count."""

    def fold(pixels, inside, start):
        count = inside.sum()
        if include is not None:
            ends = [min(a + k, n + p) for a, k, n, p in zip(start, window, images.shape[1:3], include, strict=True)]
            count = (ends[0] - start[0]) * (ends[1] - start[1])
        return np.where(inside[:, :, None], pixels, 0).sum((1, 2)) / count

    return over_windows(images, window, places, (1, 1), fold)
