"""What is inside a convolutional network: its first filters, the maps they make, how its values are spread."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter


def filters(kernels: np.ndarray, name: str = '') -> Figure:
    """kernels [h, w, 1 or 3, N] as images, zero in grey and each stretched to its own largest weight.

    As figure 3 of Krizhevsky et al. 2012. At most 256 are shown.
    """
    kernels = np.asarray(kernels, np.float32)[..., :256]
    height, width, _, number = kernels.shape
    largest = np.abs(kernels).max((0, 1, 2), keepdims=True)
    images = np.moveaxis(0.5 + kernels / np.maximum(2 * largest, 1e-12), -1, 0)
    columns = min(number, 16)
    sheet = mosaic(images, columns, space=max(height // 6, 1))
    across = max(0.5 * columns, 2.4)
    figure = Figure(figsize=(across, across * sheet.shape[0] / sheet.shape[1] + 0.3), layout='constrained')
    axes = figure.add_subplot()
    axes.imshow(sheet, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    axes.axis('off')
    axes.set_title(f'{name}: {number} filters {height}x{width}'.removeprefix(': '), fontsize=10)
    return figure


def feature_maps(images: np.ndarray, stages: Mapping[str, np.ndarray], channels: int = 8) -> Figure:
    """images [N, H, W, 1 or 3] above their maps {stage: [N, h, w, C]}: the channels that vary most over the images.

    A channel is the same at one place in every column; each map is stretched from its least to its greatest value.
    """
    columns, rows = len(images), len(stages) + 1
    figure = Figure(figsize=(2.6 * columns + 0.9, 1.5 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, image in zip(grid[0], images, strict=True):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap='gray', interpolation='nearest')
    for row, (name, maps) in zip(grid[1:], stages.items(), strict=True):
        maps = np.asarray(maps, np.float32)
        best = np.sort(np.argsort(-maps.std((0, 1, 2)), kind='stable')[:channels])
        for axes, one in zip(row, maps[..., best], strict=True):
            sheet = mosaic(np.moveaxis(_stretched(one), -1, 0)[..., None], max(channels // 2, 1), fill=np.nan)
            axes.imshow(sheet, cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
        row[0].set_ylabel(f'{name}\n{"x".join(map(str, maps.shape[1:]))}', fontsize=8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def histograms(stages: Mapping[str, np.ndarray]) -> Figure:
    """How the values of each stage are spread, on a logarithmic scale, and what share of them is exactly zero."""
    columns = min(len(stages), 5) or 1
    rows = -(-len(stages) // columns) or 1
    figure = Figure(figsize=(2.4 * columns, 1.9 * rows), layout='constrained')
    for i, (name, values) in enumerate(stages.items()):
        values = np.asarray(values, np.float32).ravel()
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.hist(values[np.isfinite(values)], bins=40, log=True, color='#4c78a8')
        axes.set_title(f'{name}: {(values == 0).mean():.0%} zero', fontsize=8)
        axes.tick_params(labelsize=7)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def mosaic(images: np.ndarray, columns: int, space: int = 1, fill: float = 1.0) -> np.ndarray:
    """images [N, h, w, C] side by side, `columns` in a row with `space` pixels between, [H, W] or [H, W, C]."""
    number, height, width, depth = images.shape
    rows = -(-number // columns)
    sheet = np.full((rows * (height + space) - space, columns * (width + space) - space, depth), fill, np.float32)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + space), (i % columns) * (width + space)
        sheet[top : top + height, left : left + width] = image
    return sheet[..., 0] if depth == 1 else sheet


def _stretched(maps: np.ndarray) -> np.ndarray:
    """maps [h, w, C], each channel from 0 to 1."""
    low, high = maps.min((0, 1)), maps.max((0, 1))
    return (maps - low) / np.maximum(high - low, 1e-12)
