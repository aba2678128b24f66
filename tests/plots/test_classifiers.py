"""Figures of classifiers, read back from their artists."""

import numpy as np
import pytest

from canon import plots
from canon.plots.insides import tile_images


def image_of(figure, index=0):
    return figure.axes[index].images[0].get_array()


def test_a_mosaic_is_filled_row_by_row():
    sheet = tile_images(np.arange(1.0, 4.0)[:, None, None, None] * np.ones((3, 2, 2, 1)), columns=2, space=1, fill=0)
    expected = [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0], [3, 3, 0, 0, 0], [3, 3, 0, 0, 0]]
    np.testing.assert_array_equal(sheet, expected)


@pytest.mark.parametrize('channels', [1, 3])
def test_filters_are_stretched_each_for_itself_with_zero_in_grey(channels):
    kernels = np.zeros((2, 2, channels, 3))
    kernels[0, 0, 0, 0], kernels[1, 1, 0, 1] = -5.0, 0.01
    sheet = image_of(plots.draw_filters(kernels)).reshape(2, 8, -1)[..., 0]
    np.testing.assert_allclose(sheet[:, :2], [[0, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(sheet[:, 3:5], [[0.5, 0.5], [0.5, 1]])
    np.testing.assert_allclose(sheet[:, 6:], 0.5)


def test_feature_maps_are_the_channels_that_vary_most_at_one_place_in_every_column():
    maps = np.zeros((2, 2, 2, 5), np.float32)
    maps[0, 0, 0, 3], maps[1, 1, 1, 1] = 1, 2
    figure = plots.draw_feature_maps(np.zeros((2, 4, 4, 3), np.uint8), {'stage': maps}, channels=2)
    left, right = (np.asarray(image_of(figure, i)) for i in (2, 3))
    np.testing.assert_array_equal(left[[0, 1, 3, 4]], [[0, 0], [0, 0], [1, 0], [0, 0]])  # channel 1 above channel 3
    np.testing.assert_array_equal(right[[0, 1, 3, 4]], [[0, 0], [0, 1], [0, 0], [0, 0]])


def test_histograms_report_the_share_of_zeros():
    figure = plots.draw_histograms({'relu': np.array([0, 0, 0, 1.0]), 'linear': np.array([1.0, 2.0, np.nan])})
    assert [axes.get_title() for axes in figure.axes] == ['relu: 75% zero', 'linear: 0% zero']


def test_of_many_classes_the_worst_and_the_best_are_drawn():
    right = np.random.default_rng(0).permutation(np.arange(100))
    counts = np.diag(right) + np.roll(np.diag(100 - right), 1, axis=1)
    counts[7] = 0  # without examples
    axes = plots.draw_class_accuracy(counts, [f'c{i}' for i in range(100)]).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    accuracies = np.sort(np.delete(right, 7)) / 100
    np.testing.assert_allclose(widths, [*accuracies[:20], *accuracies[-20:]])
    first = int(np.flatnonzero(right == round(100 * accuracies[0]))[0])
    assert axes.get_yticklabels()[0].get_text() == f'c{first} ({right[first]} of 100)'
    assert f'{accuracies.mean():.4f}' in axes.get_lines()[-1].get_label()


def test_a_reliability_diagram_shows_accuracy_and_the_gap_to_confidence():
    axes = plots.draw_reliability([0, 4, 5], [0, 2.0, 4.5], [0, 3, 1], error=0.5).axes
    bars = [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in axes[0].patches]
    np.testing.assert_allclose(bars[:3], [[0, 0, 0], [1 / 3, 0, 0.75], [2 / 3, 0, 0.2]])
    np.testing.assert_allclose(bars[3:], [[0, 0, 0], [1 / 3, 0.75, -0.25], [2 / 3, 0.2, 0.7]])
    np.testing.assert_allclose([bar.get_height() for bar in axes[1].patches], [0, 4 / 9, 5 / 9])


def test_a_gallery_shows_images_of_any_number_of_channels():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    expected = {
        1: image[0, ..., 0],
        2: np.concatenate([image[0, ..., :2], np.zeros((2, 2, 1))], -1),
        3: image[0],
        6: image[0, ..., 1],  # the mean of 0, 1, 2 and again
    }
    for channels, shown in expected.items():
        pixels = np.concatenate([image, image], -1)[..., :channels]
        np.testing.assert_array_equal(image_of(plots.draw_gallery(pixels, ['x'])), shown)
        np.testing.assert_array_equal(image_of(plots.draw_feature_maps(pixels, {'maps': np.ones((1, 2, 2, 1))})), shown)
