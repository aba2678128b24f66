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


def test_a_row_per_time_has_the_warps_of_that_time():
    images = np.arange(2 * 8 * 10).reshape(2, 8, 10, 1).astype(np.uint8)
    points = np.array([[0, 0], [10, 0], [0, 8], [10, 8]], float)
    moves = np.random.default_rng(0).uniform(-2, 2, (2, 2, 4, 2))
    history = {'step 1': (255 - images, moves[0]), 'step 20': (images // 2, moves[1])}
    figure = plots.draw_warp_history(images, history, points)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figure.canvas.draw()
    assert len(figure.axes) == 6
    for number, expected in enumerate([images, 255 - images, images // 2]):
        row = figure.axes[2 * number : 2 * number + 2]
        np.testing.assert_array_equal([axes.images[0].get_array() for axes in row], expected[..., 0])
        arrows = [a for axes in row for a in axes.collections if isinstance(a, Quiver)]
        if number:
            np.testing.assert_allclose([np.stack([a.U, a.V], -1) for a in arrows], moves[number - 1])
    assert [figure.axes[number].texts[0].get_text() for number in (0, 2, 4)] == ['as it is', 'step 1', 'step 20']


def test_the_moves_of_each_point_are_around_its_place():
    points = np.array([[0, 0], [5, 0], [10, 0], [0, 8], [5, 8], [10, 8]], float)
    moves = np.random.default_rng(0).uniform(-3, 3, (20, 6, 2))
    figure = plots.draw_move_clouds(points, moves, (8, 10), 3)
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == [f'({x:.0f}, {y:.0f})' for x, y in points]
    for number, axes in enumerate(figure.axes):
        np.testing.assert_allclose(axes.lines[-1].get_xydata(), moves[:, number])
        assert axes.get_ylim() == (3, -3)  # down, as in the image
        (arrow,) = axes.texts
        np.testing.assert_allclose(arrow.xy, moves[:, number].mean(0))
