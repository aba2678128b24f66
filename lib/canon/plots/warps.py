"""Images and what a warp makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from canon.plots.images import to_colours
from canon.plots.pictures import hide_frame


def draw_moving_points(
    images: np.ndarray,
    warped: np.ndarray,
    points: np.ndarray,
    moves: np.ndarray,
    title: str = 'expected moves of the fiducial points, and one warp drawn from them',
) -> Figure:
    """Draws images with the moves of their control points as arrows, each above its warped image.

    Args:
      images: [N, H, W, 1 or 3], uint8.
      warped: the images after the warp, of the same shape.
      points: [P, 2] in pixels, the same in all images.
      moves: [N, P, 2] in pixels.
      title: of the figure.
    """
    columns = max(min(4, len(images)), 1)
    rows = max(-(-len(images) // columns), 1)
    height, width = images.shape[1:3] if len(images) else (32, 100)
    # Room for points that lie on the border and move outwards.
    margin = max(float(np.abs(moves).max(initial=0)), 2.0) + 2
    cell = 2.4 * (2 * height + 4 * margin) / (width + 2 * margin)
    figure = Figure(figsize=(2.4 * columns, cell * rows + 0.4), layout='constrained')
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for ax in axes.ravel():
        hide_frame(ax)
    for i, pair in enumerate(zip(images, warped, strict=True)):
        row, column = divmod(i, columns)
        for offset, pixels in enumerate(pair):
            ax = axes[2 * row + offset, column]
            _show_pixels(ax, pixels, height, width)
            ax.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
        _draw_moves(axes[2 * row, column], points, moves[i])
    figure.suptitle(title, fontsize=10)
    return figure


def draw_warp_history(
    images: np.ndarray,
    history: Mapping[str, tuple[np.ndarray, np.ndarray]],
    points: np.ndarray,
    title: str = 'warps of the same words as the agent learns',
) -> Figure:
    """Draws the same images under the warps of several times: a column per image, a row per time.

    The first row has the images as they are. Each other row has their warps, with the expected moves of the control
    points as arrows around them.

    Args:
      images: [N, H, W, 1 or 3], uint8.
      history: {label of the row: (warped images of the same shape, moves [N, P, 2] in pixels)}, in order.
      points: [P, 2] in pixels, the same in all images.
      title: of the figure.
    """
    height, width = images.shape[1:3]
    margin = max([float(np.abs(moves).max(initial=0)) for _, moves in history.values()] + [2.0]) + 2
    scale = 2.4 / (width + 2 * margin)
    # The first row needs no room for arrows.
    heights = [height + 8, *[height + 2 * margin] * len(history)]
    figure = Figure(figsize=(2.4 * len(images) + 0.7, scale * sum(heights) + 0.5), layout='constrained')
    axes = figure.subplots(len(heights), len(images), squeeze=False, height_ratios=heights)
    rows = [('as it is', images, None), *((label, *values) for label, values in history.items())]
    for row, (label, pictures, moves) in enumerate(rows):
        for column, pixels in enumerate(pictures):
            ax = axes[row, column]
            hide_frame(ax)
            _show_pixels(ax, pixels, height, width)
            room = (heights[row] - height) / 2
            ax.set(xlim=(-margin, width + margin), ylim=(height + room, -room))
            if moves is not None:
                _draw_moves(ax, points, moves[column])
        axes[row, 0].text(
            -margin - 3, height / 2, label, rotation=90, ha='right', va='center', fontsize=9
        )  # `hide_frame` hides the labels of axes, too
    figure.suptitle(title, fontsize=10)
    return figure


def draw_move_clouds(
    points: np.ndarray, moves: np.ndarray, size: tuple[int, int], reach: float, title: str = ''
) -> Figure:
    """Draws how the moves of control points are distributed over many images.

    Each point of the border has a square of moves from -reach to reach along both axes, at its centre a cross, a dot
    per image, and an arrow to the mean.

    Args:
      points: [P, 2] in pixels, on the upper and the lower border.
      moves: [N, P, 2] in pixels.
      size: height and width of the images.
      reach: the largest move along an axis, in pixels.
      title: of the figure.
    """
    columns = len(points) // 2
    figure = Figure(figsize=(1.55 * columns + 0.4, 3.9), layout='constrained')
    axes = figure.subplots(2, columns, squeeze=False)
    for number, (ax, (x, y)) in enumerate(zip(axes.ravel(), points, strict=True)):
        own = moves[:, number]
        ax.axhline(0, color='0.8', linewidth=0.8)
        ax.axvline(0, color='0.8', linewidth=0.8)
        ax.plot(*own.T, linestyle='none', marker='.', markersize=3, color='C0', alpha=0.5)
        ax.annotate(
            '', own.mean(0), (0, 0), arrowprops=dict(arrowstyle='-|>', color='C1', lw=1.6, shrinkA=0, shrinkB=0)
        )
        # The axis of images points down, and so does this one.
        ax.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect='equal')
        ax.set_title(f'({x:.0f}, {y:.0f})', fontsize=8)
        ax.tick_params(labelsize=7)
        ax.label_outer()
    figure.suptitle(
        title or f'expected moves of the fiducial points (x, y) of images of {size[1]}x{size[0]}', fontsize=10
    )
    figure.supxlabel('pixels to the right', fontsize=8)
    figure.supylabel('pixels down', fontsize=8)
    return figure


def _show_pixels(ax, pixels: np.ndarray, height: int, width: int) -> None:
    # The corner of the first pixel is (0, 0), as it is for the points.
    ax.imshow(to_colours(pixels), cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0), interpolation='nearest')


def _draw_moves(ax, points: np.ndarray, moves: np.ndarray) -> None:
    ax.plot(*points.T, linestyle='none', marker='o', markersize=3, color='C1')
    arrows = ax.quiver(
        *points.T, *moves.T, angles='xy', scale_units='xy', scale=1, color='C1', width=0.012, clip_on=False
    )
    arrows.set_in_layout(False)  # arrows that are not clipped would leave no room for the pictures
