"""Images and what a warp makes of them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

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
            picture = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
            # The corner of the first pixel is (0, 0), as it is for the points.
            ax.imshow(picture, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0), interpolation='nearest')
            ax.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
        upper = axes[2 * row, column]
        upper.plot(*points.T, linestyle='none', marker='o', markersize=3, color='C1')
        arrows = upper.quiver(
            *points.T, *moves[i].T, angles='xy', scale_units='xy', scale=1, color='C1', width=0.012, clip_on=False
        )
        arrows.set_in_layout(False)  # arrows that are not clipped would leave no room for the pictures
    figure.suptitle(title, fontsize=10)
    return figure
