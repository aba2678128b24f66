"""Pictures of warps: what is drawn where."""

import warnings

import numpy as np
from matplotlib.quiver import Quiver

from canon import plots


def test_images_are_drawn_above_their_warps_with_the_moves_of_the_points():
    images = np.arange(2 * 8 * 10).reshape(2, 8, 10, 1).astype(np.uint8)
    points = np.array([[0, 0], [10, 0], [0, 8], [10, 8]], float)
    moves = np.random.default_rng(0).uniform(-2, 2, (2, 4, 2))
    figure = plots.draw_moving_points(images, 255 - images, points, moves)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # matplotlib warns of a layout that leaves no room
        figure.canvas.draw()
    upper, lower = figure.axes[:2], figure.axes[2:]
    for i in range(2):
        np.testing.assert_array_equal(upper[i].images[0].get_array(), images[i, ..., 0])
        np.testing.assert_array_equal(lower[i].images[0].get_array(), 255 - images[i, ..., 0])
        assert tuple(upper[i].images[0].get_extent()) == (0, 10, 8, 0)
        (arrows,) = (a for a in upper[i].collections if isinstance(a, Quiver))
        np.testing.assert_allclose(np.stack([arrows.U, arrows.V], -1), moves[i])
        np.testing.assert_allclose(arrows.XY, points)
    assert plots.draw_moving_points(images[:0], images[:0], points, moves[:0]).get_suptitle()
