"""Figures of detectors and of segmentation, read back from their artists."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from canon import plots

NAMES = ['cat', 'dog', 'bird']


def frames(axes):
    """(x0, y0, x1, y1, line style) of the boxes of an axes, sorted."""
    boxes = [p for p in axes.patches if isinstance(p, Rectangle)]
    return sorted(
        (*p.get_xy(), p.get_x() + p.get_width(), p.get_y() + p.get_height(), p.get_linestyle()) for p in boxes
    )


def words(axes):
    return sorted(t.get_text() for t in axes.texts)


# --- detection -------------------------------------------------------------------------------------------------------


def test_detections_are_drawn_next_to_the_truth():
    image = np.full((40, 60, 3), 90, np.uint8)
    truth = {
        'boxes': np.array([[5, 10, 20, 30], [30, 1, 50, 20], [0, 0, 0, 0]], np.float32),
        'labels': np.array([0, 2, 0]),
        'difficult': np.array([False, True, False]),
        'valid': np.array([True, True, False]),
    }
    found = {
        'boxes': np.array([[6, 11, 21, 31], [31, 2, 51, 21], [0, 0, 9, 9]], np.float32),
        'labels': np.array([1, 2, 0]),
        'scores': np.array([0.9, 0.2, 0.8]),
        'valid': np.array([True, True, False]),
    }
    figure = plots.draw_detections([image], [found], NAMES, [truth], ['first'], score_threshold=0.3)
    left, right = figure.axes
    assert frames(left) == [(5, 10, 20, 30, '-'), (30, 1, 50, 20, '--')]
    assert words(left) == ['bird', 'cat']
    assert frames(right) == [(6, 11, 21, 31, '-')], 'low scores and padding are not drawn'
    assert words(right) == ['dog 0.90']
    assert tuple(left.images[0].get_extent()) == (0, 60, 40, 0)
    assert left.get_title() == 'first: truth'
    figure.canvas.draw()


def test_detections_are_drawn_alone_on_images_of_several_sizes():
    empty = {'boxes': np.zeros((0, 4)), 'labels': np.zeros(0, int), 'scores': np.zeros(0)}
    images = [np.zeros((8, 12, 1), np.uint8), np.zeros((20, 9, 3), np.float32), np.zeros((5, 5, 3), np.uint8)]
    figure = plots.draw_detections(images, [empty] * 3, NAMES, titles=['a', 'b', 'c'], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ['a', 'b', 'c', '']
    assert not any(axes.patches for axes in figure.axes)
    figure.canvas.draw()
    plots.draw_detections([], [], NAMES).canvas.draw()


@pytest.mark.parametrize('size', [(29, 58), (480, 640), (1001, 203)])
def test_detections_are_drawn_over_an_image_in_its_own_size(size, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    found = {'boxes': np.array([[2, 3, 20, 20], [4, 20, 9, 27]], float), 'labels': np.array([0, 2])}
    found['scores'] = np.array([0.9, 0.1])
    figure = plots.overlay_detections(image, found, NAMES, 0.3)
    assert words(figure.axes[0]) == ['cat 0.90']
    plots.save_content(figure, tmp_path / 'boxes.png')
    with Image.open(tmp_path / 'boxes.png') as saved:
        picture = np.asarray(saved)[..., :3]
    assert picture.shape == image.shape, 'no margin, and no other size'
    changed = np.flatnonzero((picture != image).any(-1))
    assert 0 < len(changed) < image[..., 0].size
    np.testing.assert_array_equal(picture[-1, -9:], image[-1, -9:])
    assert (picture[12, 2] != image[12, 2]).any(), 'the left edge of the box'


def test_curves_are_named_with_their_average_precision():
    recall, precision = [np.array([0.5, 1]), np.zeros(0), np.array([0.25])], [np.array([1, 0.5]), np.zeros(0), [0.5]]
    figure = plots.draw_precision_recall(recall, precision, np.array([0.75, np.nan, 0.125]), NAMES)
    first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_xydata(), [[0, 1], [0.5, 1], [1, 0.5]])
    np.testing.assert_array_equal(second.get_xydata(), [[0, 0.5], [0.25, 0.5]])
    assert [t.get_text() for t in figure.legends[0].texts] == ['cat  0.750', 'bird  0.125']
    assert 'of 2 classes 0.4375' in figure.axes[0].get_title()
    many = plots.draw_precision_recall([recall[0]] * 30, [precision[0]] * 30, np.arange(30) / 30, list('a' * 30))
    assert len(many.axes[0].lines) == 20
    plots.draw_precision_recall([], [], np.zeros(0), []).canvas.draw()
    plots.draw_precision_recall([np.zeros(0)], [np.zeros(0)], np.array([0.0]), ['cat']).canvas.draw()


@pytest.mark.parametrize('sizes', [False, True])
def test_scores_are_drawn_worst_first(sizes):
    scores, by_size = np.array([0.9, np.nan, 0.2]), np.array([[0.1, np.nan, 0.9], [np.nan] * 3, [0.2, 0.0, 0.3]])
    figure = plots.draw_class_scores(scores, NAMES, 'AP', by_size if sizes else None, ['5', '0', '7'])
    left = figure.axes[0]
    assert [t.get_text() for t in left.get_yticklabels()] == ['bird (7)', 'cat (5)']
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], [0.2, 0.9])
    assert words(left) == ['0.200', '0.900']
    assert 'of 2 classes 0.5500' in left.get_title()
    if sizes:
        right = figure.axes[1]
        widths = [bar.get_width() for bar in right.patches]
        np.testing.assert_allclose(widths, [0.2, 0.1, 0.0, 0.0, 0.3, 0.9])  # small, medium and large, each worst first
        assert words(right) == ['–'], 'a class without objects of a size has a dash, a score of 0 has none'
        assert [t.get_text() for t in figure.legends[0].texts] == [
            'small, mean 0.150', 'medium, mean 0.000', 'large, mean 0.600'
        ]  # fmt: skip
    figure.canvas.draw()
    many = plots.draw_class_scores(np.linspace(0, 1, 60), [str(i) for i in range(60)], 'IU')
    names = [t.get_text() for t in many.axes[0].get_yticklabels()]
    assert names == [str(i) for i in [*range(20), *range(40, 60)]]
    plots.draw_class_scores(np.array([np.nan]), ['cat'], 'AP', np.full((1, 3), np.nan)).canvas.draw()


def test_bars_of_errors_are_shares_of_the_detections():
    counts = np.zeros((3, 3, 6), int)
    counts[0, 0] = [3, 1, 0, 0, 0, 2]
    counts[2, 1] = [0, 0, 1, 0, 1, 1]
    kinds = ['right', 'badly located', 'confused', 'duplicate', 'background', 'missed']
    figure = plots.draw_errors(counts, kinds, NAMES)
    left, right = figure.axes
    labels = [t.get_text() for t in left.get_yticklabels()]
    assert labels == ['all (6)', 'small (4)', 'medium (2)', 'large (0)', 'bird (2)', 'cat (4)'], 'the worst class first'
    widths = np.array([bar.get_width() for bar in left.patches]).reshape(5, 6)
    np.testing.assert_allclose(widths.sum(0), [1, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(widths[:, 5], [0.75, 0.25, 0, 0, 0])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [0.5, 0.4, 1, 0, 1, 0.4])
    assert words(right) == sorted(['3 of 6', '2 of 5', '1 of 1', '1 of 1', '2 of 5'])
    assert [t.get_text() for t in figure.legends[0].texts] == kinds[:-1]
    figure.canvas.draw()
    plots.draw_errors(np.zeros((3, 3, 6), int), kinds, NAMES).canvas.draw()


# --- segmentation ----------------------------------------------------------------------------------------------------


def test_the_palette_is_pascal_vocs():
    palette = plots.make_voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for label, colour in (known | {255: (224, 224, 192)}).items():
        assert tuple(palette[label]) == colour
    assert len(np.unique(palette, axis=0)) == 256


def test_label_maps_are_blended_over_images():
    image = np.full((1, 3, 1), 100, np.uint8)
    painted = plots.overlay_label_map(image, np.array([[0, 1, 255]], np.uint8), opacity=0.5)
    np.testing.assert_array_equal(painted, [[[100] * 3, [114, 50, 50], [162, 162, 146]]])
    opaque = plots.overlay_label_map(image, np.array([[0, 1, 2]]), opacity=1, background=-1)
    np.testing.assert_array_equal(opaque[0], plots.make_voc_palette(3))


def test_label_maps_are_drawn_with_a_legend_of_what_occurs():
    images = [np.zeros((6, 8, 3), np.uint8), np.zeros((5, 4, 1), np.uint8)]
    truth = [np.zeros((6, 8), np.uint8), np.full((5, 4), 255, np.uint8)]
    predictions = [np.ones((6, 8), int), np.full((5, 4), 7)]
    names = ['background', 'aeroplane', 'bicycle']
    figure = plots.draw_label_maps(images, {'truth': truth, 'prediction': predictions}, names, ['a', 'b'], opacity=1)
    assert [axes.get_title() for axes in figure.axes] == ['a', 'truth', 'prediction', 'b', '', '']
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array()[0, 0], [128, 0, 0])
    assert [t.get_text() for t in figure.legends[0].texts] == ['aeroplane', 'class 7', 'void']
    figure.canvas.draw()
    plots.draw_label_maps([], {'truth': []}, names).canvas.draw()
