"""Matching and hard negatives against loops and torchvision; prior boxes against the paper's arithmetic."""

from pathlib import Path

import jax
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import boxes
from canon.ops.matching import match_priors, mine_hard_negatives
from canon.ops.priors import PriorLevel, make_priors
from tests.ops.detections import draw_boxes, loop_match

GOLDEN = np.load(Path(__file__).parent / 'golden/detection.npz')
match = jax.jit(jax.vmap(match_priors, (0, 0, None)))


def test_matches_equal_torchvision():
    """Draws no two objects that share their best prior, which torchvision gives to the last of them."""
    iou = boxes.pairwise_iou(draw_boxes('spread', 300, 3), draw_boxes('grid', 9, 3))
    assert len(set(np.argmax(iou, 0).tolist())) == 9
    np.testing.assert_array_equal(match_priors(iou, np.ones(9, bool), 0.4), GOLDEN['matches'])


def test_matches_equal_a_loop():
    """More priors than objects and fewer, equal overlaps, invalid objects, and images without any."""
    rng = np.random.default_rng(0)
    for priors, objects in ((30, 6), (4, 7), (12, 12)):
        iou = rng.random((24, priors, objects)).astype(np.float32)
        iou[::2] = np.round(3 * iou[::2]) / 3
        iou[5] = 0
        valid = rng.random((24, objects)) < 0.7
        valid[3], valid[4] = False, True
        for row, matches in enumerate(match(iou, valid, 0.5)):
            np.testing.assert_array_equal(matches, loop_match(iou[row], valid[row], np.float32(0.5)))


def test_every_object_has_a_prior_of_its_own():
    """Two objects that are closest to one prior: the closer one gets it, the other one its second best."""
    iou = np.float32([[0.9, 0.8], [0.1, 0.3], [0.0, 0.2]])
    assert match_priors(iou, np.ones(2, bool), 0.5).tolist() == [0, 1, -1]
    assert match_priors(iou, np.array([False, True]), 0.5).tolist() == [1, -1, -1]
    assert match_priors(iou[:, :0], np.ones(0, bool), 0.5).tolist() == [-1, -1, -1]
    assert match_priors(np.float32([[0.0]]), np.ones(1, bool), 0.0).tolist() == [-1]  # no overlap is no match


def loop_negatives(loss, positive, ratio):
    order = [i for i in np.argsort(-loss, kind='stable') if not positive[i]]
    chosen = np.zeros(len(loss), bool)
    chosen[order[: int(ratio * positive.sum())]] = True
    return chosen


def test_hard_negatives_equal_a_loop():
    rng = np.random.default_rng(0)
    loss = rng.random((40, 25)).astype(np.float32)
    loss[::2] = np.round(3 * loss[::2])  # equal losses
    positive = rng.random((40, 25)) < rng.random((40, 1)) / 2
    positive[1], positive[2] = False, True
    for ratio in (3, 1, 2.5):
        expected = [loop_negatives(*row, ratio) for row in zip(loss, positive, strict=True)]
        np.testing.assert_array_equal(mine_hard_negatives(loss, positive, ratio), expected)
    assert mine_hard_negatives(loss[:, :0], positive[:, :0]).shape == (40, 0)


def test_priors_of_a_level():
    """2 x 3 places, 10 x 20 pixels apart; section 2.2: s, sqrt(s s'), and s sqrt(r) by s / sqrt(r) and its inverse."""
    priors = make_priors([PriorLevel((2, 3), (10, 20), 16, 25, (4.0,))])
    assert priors.shape == (24, 4)
    assert priors.dtype == np.float32
    shapes = np.array([[16, 16], [20, 20], [32, 8], [8, 32]])
    for place, (y, x) in enumerate((y, x) for y in (5, 15) for x in (10, 30, 50)):
        expected = np.concatenate([[x, y] - shapes / 2, [x, y] + shapes / 2], 1)
        np.testing.assert_allclose(priors[4 * place : 4 * place + 4], expected, rtol=1e-6)
    assert len(make_priors([PriorLevel((2, 3), (10, 20), 16, None, ())])) == 6


def test_clipped_priors_and_bad_ones():
    level = PriorLevel((1, 1), (20, 30), 50, 60, ())
    assert make_priors([level], (20, 30), 'sizes').tolist() == [[0, 0, 30, 20], [0, 0, 30, 20]]
    assert make_priors([level], (20, 30), 'corners').tolist() == [[0, 0, 30, 20], [0, 0, 30, 20]]
    wide = make_priors([level._replace(stride=(20, 60))], (20, 30), 'sizes')
    assert wide[0].tolist() == [15, 0, 45, 20]  # only the size is bounded
    with pytest.raises(UsageError, match="clip='size' of priors is None, 'sizes' or 'corners'"):
        make_priors([level], (20, 30), 'size')
    with pytest.raises(UsageError, match='must be positive'):
        make_priors([level._replace(size=0)])
