"""What the picture of an alignment shows, read back from its artists."""

import numpy as np
import pytest

from canon import plots
from canon.errors import UsageError


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_rows_are_target_words_and_columns_source_words():
    weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    figure = plots.draw_alignments(weights, ['ein', '5 $'], ['a', 'b', 'c'], title='additive')
    (axes,) = figure.axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), weights)
    assert (image.get_clim(), image.get_cmap().name) == ((0, 1), 'gray')
    assert labels(axes.get_yticklabels()) == ['ein', r'5 \$']
    assert labels(axes.get_xticklabels()) == ['a', 'b', 'c']
    assert axes.get_ylim() == (1.5, -0.5)  # the first target word is above
    assert axes.xaxis.get_tick_params()['labeltop']
    figure.canvas.draw()


def test_heads_are_drawn_in_a_grid_with_words_at_its_edges():
    weights = np.random.default_rng(0).random((5, 2, 3))
    axes = plots.draw_alignments(weights, ['x', 'y'], ['a', 'b', 'c'], columns=3).axes
    for i in range(5):
        np.testing.assert_allclose(axes[i].images[0].get_array(), weights[i], rtol=1e-6)
        assert axes[i].get_title() == f'head {i + 1}'
        assert labels(axes[i].get_yticklabels()) == (['x', 'y'] if i in (0, 3) else [])
        assert labels(axes[i].get_xticklabels()) == (['a', 'b', 'c'] if i < 3 else [])
    assert not axes[5].images
    assert (
        plots.draw_alignments(weights[:2], ['x', 'y'], ['a', 'b', 'c'], ['first', 'last']).axes[1].get_title() == 'last'
    )


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r'weights \(3, 2\) are not .* of 2 target and 3 source words'):
        plots.draw_alignments(np.zeros((3, 2)), ['x', 'y'], ['a', 'b', 'c'])
    with pytest.raises(UsageError, match='1 titles for 2 heads'):
        plots.draw_alignments(np.zeros((2, 1, 1)), ['x'], ['a'], ['one'])
