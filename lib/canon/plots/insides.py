"""The inside of convolutional networks: first-layer filters, feature maps and histograms of activations."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from canon.plots.images import to_colours

_MAX_FILTERS = 256  # 16 rows of 16, which are still large enough to see


def draw_filters(kernels: np.ndarray, name: str = '') -> Figure:
    """Draws filters as images, as figure 3 of Krizhevsky et al. 2012; at most 256 of them.

    Zero is grey, and each filter is scaled by its own largest weight.

    Args:
      kernels: [h, w, 1 or 3, N].
      name: of the layer.
    """
    kernels = np.asarray(kernels, np.float32)[..., :_MAX_FILTERS]
    height, width, _, number = kernels.shape
    # One scale per filter: under a common scale weak filters would all be grey.
    largest = np.abs(kernels).max((0, 1, 2), keepdims=True)
    images = np.moveaxis(0.5 + kernels / np.maximum(2 * largest, 1e-12), -1, 0)
    columns = min(number, 16)
    sheet = tile_images(images, columns, space=max(height // 6, 1))
    figure_width = max(0.5 * columns, 2.4)
    figure = Figure(figsize=(figure_width, figure_width * sheet.shape[0] / sheet.shape[1] + 0.3), layout='constrained')
    axes = figure.add_subplot()
    axes.imshow(sheet, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    axes.axis('off')
    axes.set_title(f'{name}: {number} filters {height}x{width}'.removeprefix(': '), fontsize=10)
    return figure


def draw_feature_maps(images: np.ndarray, stages: Mapping[str, np.ndarray], channels: int = 8) -> Figure:
    """Draws images above their feature maps: of each stage the channels that vary most over the images.

    A channel has the same place in every column. Each map is stretched from its minimum to its maximum.

    Args:
      images: [N, H, W, C], one per column.
      stages: {name: [N, h, w, C]}, one per row.
      channels: drawn per stage.
    """
    columns, rows = len(images), len(stages) + 1
    figure = Figure(figsize=(2.6 * columns + 0.9, 1.5 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, image in zip(grid[0], images, strict=True):
        axes.imshow(to_colours(image), cmap='gray', interpolation='nearest')
    for row, (name, maps) in zip(grid[1:], stages.items(), strict=True):
        maps = np.asarray(maps, np.float32)
        # The same channels for all images, so that columns can be compared.
        chosen = np.sort(np.argsort(-maps.std((0, 1, 2)), kind='stable')[:channels])
        for axes, maps_of_image in zip(row, maps[..., chosen], strict=True):
            tiles = np.moveaxis(_stretch_channels(maps_of_image), -1, 0)[..., None]
            # NaN is drawn in no colour: the space between maps stays white.
            sheet = tile_images(tiles, max(channels // 2, 1), fill=np.nan)
            axes.imshow(sheet, cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
        row[0].set_ylabel(f'{name}\n{"x".join(map(str, maps.shape[1:]))}', fontsize=8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def draw_histograms(stages: Mapping[str, np.ndarray]) -> Figure:
    """Draws the distribution of the values of each stage {name: array}, and the share that is exactly zero.

    Counts are on a logarithmic scale; values that are not finite are left out.
    """
    columns = min(len(stages), 5) or 1
    rows = -(-len(stages) // columns) or 1
    figure = Figure(figsize=(2.4 * columns, 1.9 * rows), layout='constrained')
    for i, (name, values) in enumerate(stages.items()):
        values = np.asarray(values, np.float32).ravel()
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.hist(values[np.isfinite(values)], bins=40, log=True, color='#4c78a8')
        axes.set_title(f'{name}: {(values == 0).mean():.0%} zero', fontsize=8)
        axes.tick_params(labelsize=7)
        axes.yaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten would overlap
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def tile_images(images: np.ndarray, columns: int, space: int = 1, fill: float = 1.0) -> np.ndarray:
    """Tiles images into one, row by row: [H, W] for one channel, otherwise [H, W, C].

    Args:
      images: [N, h, w, C].
      columns: images per row.
      space: pixels between images.
      fill: value between images, and where the last row ends early.
    """
    number, height, width, depth = images.shape
    rows = -(-number // columns)
    sheet = np.full((rows * (height + space) - space, columns * (width + space) - space, depth), fill, np.float32)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + space), (i % columns) * (width + space)
        sheet[top : top + height, left : left + width] = image
    return sheet[..., 0] if depth == 1 else sheet


def _stretch_channels(maps: np.ndarray) -> np.ndarray:
    """Stretches each channel of [h, w, C] to 0..1."""
    low, high = maps.min((0, 1)), maps.max((0, 1))
    return (maps - low) / np.maximum(high - low, 1e-12)
