"""Anchors against the table of py-faster-rcnn and torchvision; their matches and samples against loops and counts."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops.anchors import find_inside, make_anchor_levels, make_anchors
from canon.ops.matching import match_anchors, match_boxes, sample_fixed
from tests.ops.detections import draw_boxes
from tests.ops.drawn_regions import ANCHOR_SIZES

GOLDEN = np.load(Path(__file__).parent / 'golden/regions.npz')
# generate_anchors.py of py-faster-rcnn, the anchors of its comment: pixels from 1, both ends inclusive.
TABLE = np.array(
    [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]
)  # fmt: skip


def test_the_table_of_the_code():
    anchors = make_anchors((2, 3), 16, (128, 256, 512), form='rounded')
    assert anchors.dtype == np.float32
    for place, (row, column) in enumerate(np.ndindex(2, 3)):
        shift = 16 * np.array([column, row, column, row])
        np.testing.assert_array_equal(anchors[9 * place : 9 * place + 9], TABLE - [1, 1, 0, 0] + shift)


def test_exact_anchors():
    """Areas and aspect ratios, height over width, about the centres of the cells; strides of two numbers."""
    anchors = make_anchors((2, 2), (10, 20), (16, 32), (0.5, 1, 3)).astype(float)
    assert anchors.shape == (24, 4)
    size = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(size.prod(1), np.tile([16.0**2, 32.0**2], 12), rtol=1e-6)
    np.testing.assert_allclose(size[:, 1] / size[:, 0], np.tile([0.5, 0.5, 1, 1, 3, 3], 4), rtol=1e-6)
    centres = np.repeat([[10, 5], [30, 5], [10, 15], [30, 15]], 6, 0)
    np.testing.assert_allclose((anchors[:, :2] + anchors[:, 2:]) / 2, centres, atol=1e-5)
    cells, extents = make_anchors((3, 3), 10, (10,), (1,)), np.array([[0, 0, 25, 30], [10, 0, 30, 19]])
    assert find_inside(cells, extents[0]).tolist() == [True, True, False] * 3
    expected = [[True, True, False] * 3, [False, True, True] + [False] * 6]
    for per_image in (extents, jnp.asarray(extents)):
        assert find_inside(cells, per_image).tolist() == expected
    assert make_anchors((0, 3), 16, (8,)).shape == (0, 4)


def test_anchors_equal_torchvision():
    levels = make_anchor_levels(((12, 14), (6, 7), (3, 4)), (8, 16, (32, 28)), ANCHOR_SIZES, form='torchvision')
    np.testing.assert_array_equal(np.concatenate(levels), GOLDEN['anchors'])
    mixed = [
        make_anchors((6, 7), (10, 9), (32, 64), (0.5, 1, 2, 3), 'torchvision'),
        make_anchors((3, 4), (21, 16), (90, 33), (1,), 'torchvision'),
    ]
    np.testing.assert_array_equal(np.concatenate(mixed), GOLDEN['anchors/mixed'])


def test_bad_anchors():
    with pytest.raises(UsageError, match="form 'exact', 'rounded' or 'torchvision', not 'round'"):
        make_anchors((1, 1), 16, (8,), form='round')
    with pytest.raises(UsageError, match='must be positive'):
        make_anchors((1, 1), 16, (0,))
    with pytest.raises(UsageError, match='need one stride for both axes'):
        make_anchors((1, 1), (16, 8), (8,), form='rounded')
    with pytest.raises(UsageError, match='2 grids, 1 strides and 2 sizes'):
        make_anchor_levels([(1, 1)] * 2, [8], [(8,), (16,)])


def loop_match(iou, valid, foreground, background, force_best, low) -> np.ndarray:
    """Ren et al. 2015, section 3.1.2, in the order of its code: background, best ones, those above the threshold."""
    matches = np.full(len(iou), -2)
    objects = [j for j in range(iou.shape[1]) if valid[j]]
    for i, row in enumerate(iou):
        largest = max((row[j] for j in objects), default=np.float32(0))
        if low <= largest < background:
            matches[i] = -1
        forced = force_best and any(row[j] == iou[:, j].max() > 0 for j in objects)
        if objects and (forced or largest >= foreground) and largest > 0:
            matches[i] = next(j for j in objects if row[j] == largest)
    return matches


def test_matches_equal_torchvision_and_a_loop():
    """Boxes at multiples of ten have many equal overlaps; so have drawn overlaps with padding and empty images."""
    valid = np.ones(12, bool)
    match = jax.jit(match_anchors, static_argnums=4)
    np.testing.assert_array_equal(match(GOLDEN['iou'], valid, 0.7, 0.3, True), GOLDEN['matches'])
    np.testing.assert_array_equal(match(GOLDEN['iou'], valid, 0.5, 0.5, False), GOLDEN['matches/head'])
    boxes = draw_boxes('integer', 300, 3), draw_boxes('integer', 12, 4)
    np.testing.assert_array_equal(jax.jit(match_boxes)(*boxes, valid), GOLDEN['matches'])
    rng = np.random.default_rng(0)
    iou = (np.round(10 * rng.random((30, 25, 6)) ** 2) / 10).astype(np.float32)
    iou[:, :, 5] *= 0.5  # no overlap above the threshold
    iou[3, :, 2] = 0  # an object that no anchor overlaps
    valid = rng.random((30, 6)) < 0.8
    valid[4], iou[5] = False, 0
    match = jax.jit(jax.vmap(match_anchors, (0, 0, None, None, None, None)), static_argnums=(4, 5))
    for settings in ((0.7, 0.3, True, 0.0), (0.5, 0.5, False, 0.1)):
        expected = [loop_match(*row, *map(np.float32, settings)) for row in zip(iou, valid, strict=True)]
        np.testing.assert_array_equal(match(iou, valid, *settings), expected)
    assert match_anchors(iou[0, :, :0], valid[0, :0]).tolist() == [-1] * 25
    assert jax.eval_shape(match_anchors, iou[0, :0], valid[0]).shape == (0,)


def test_samples_have_exact_counts():
    """Plenty of both, few of one or both, none at all: 16 samples with at most 5 positives, without repetition."""
    rng = np.random.default_rng(0)
    positive = rng.random((40, 60)) < rng.random((40, 1)) / 2
    negative = ~positive & (rng.random((40, 60)) < rng.random((40, 1)))
    positive[0], negative[1], positive[2], negative[2] = False, False, False, False
    sample = jax.jit(jax.vmap(partial(sample_fixed, count=16, positive_fraction=0.32)))
    indices, is_positive, valid = sample(jax.random.split(jax.random.key(0), 40), positive, negative)
    for row in range(40):
        first = min(5, positive[row].sum())
        total = first + min(16 - first, negative[row].sum())
        assert is_positive[row].tolist() == [True] * int(first) + [False] * int(16 - first)
        assert valid[row].tolist() == [True] * int(total) + [False] * int(16 - total)
        chosen = indices[row, :total]
        assert len(set(chosen.tolist())) == total
        assert positive[row][chosen[:first]].all()
        assert negative[row][chosen[first:]].all()
        assert not indices[row, total:].any()
    few = jax.jit(sample_fixed, static_argnums=(3, 4))
    assert not few(jax.random.key(3), positive[7, :4], negative[7, :4], 16, 0.0)[1].any()
    assert few(jax.random.key(3), positive[7, :0], negative[7, :0], 3, 0.5)[2].tolist() == [False] * 3


def test_samples_are_uniform():
    """Each anchor is drawn equally often, and each pair too: chi-squared statistics near their degrees of freedom."""
    positive, negative = np.arange(30) % 3 == 0, np.arange(30) % 3 == 1
    draws = 20_000
    sample = jax.jit(jax.vmap(partial(sample_fixed, count=8, positive_fraction=0.5), (0, None, None)))
    indices = np.asarray(sample(jax.random.split(jax.random.key(1), draws), positive, negative)[0])
    for part, members in ((indices[:, :4], positive), (indices[:, 4:], negative)):
        drawn = np.zeros((draws, 30))
        np.put_along_axis(drawn, part, 1, 1)
        drawn = drawn[:, members]  # 4 of 10
        counts, pairs = drawn.sum(0), (drawn.T @ drawn)[np.triu_indices(10, 1)]
        # Drawing 4 of 10 without replacement: variances p (1 - p), which the fixed total scales by 9 / 10.
        statistic = ((counts - 0.4 * draws) ** 2).sum() / (draws * 0.24) * 9 / 10
        assert statistic < 27.9  # of 9 degrees of freedom: 1 in 1,000
        expected = draws * 4 * 3 / (10 * 9)
        assert np.abs(pairs - expected).max() < 4.5 * np.sqrt(expected)
        places = np.stack([(part == m).sum(0) for m in np.flatnonzero(members)])
        assert np.abs(places - draws / 10).max() < 4.5 * np.sqrt(draws / 10)  # in every place of the sample


def test_samples_depend_on_the_key_alone():
    positive = jnp.arange(100) < 50
    draw = jax.jit(partial(sample_fixed, positive=positive, negative=~positive, count=20, positive_fraction=0.5))
    first, again, other = (draw(jax.random.key(seed))[0].tolist() for seed in (0, 0, 1))
    assert first == again != other
