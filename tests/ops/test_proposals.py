"""Proposals of several levels and images against torchvision's `filter_proposals` and a loop; wild outputs."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import boxes as box_ops
from canon.ops.anchors import make_anchor_levels
from canon.ops.proposals import propose
from tests.ops.detections import loop_nms
from tests.ops.drawn_regions import ANCHOR_SIZES, draw_outputs
from tests.quick import quick_jit

GOLDEN = np.load(Path(__file__).parent / 'golden/regions.npz')
GRIDS = ((12, 14), (6, 7), (3, 4))
ANCHORS = make_anchor_levels(GRIDS, (8, 16, (32, 28)), ANCHOR_SIZES, form='torchvision')
OUTPUTS = draw_outputs([len(a) for a in ANCHORS])
SIZES = np.float32([96, 80]), np.float32([112, 100])  # two images in one padded batch
suppress = jax.jit(
    lambda outputs, iou_threshold, min_size, limits: propose(
        *outputs, ANCHORS, SIZES, *limits, iou_threshold=iou_threshold, min_size=min_size
    ),
    static_argnums=3,
)


def test_proposals_equal_torchvision():
    boxes, scores, valid = suppress(OUTPUTS, 0.7, 1e-3, (150, 80))
    for image in range(2):
        expected = GOLDEN[f'proposals/{image}']
        assert valid[image].tolist() == [True] * len(expected) + [False] * (80 - len(expected))
        np.testing.assert_allclose(boxes[image, : len(expected)], expected, atol=1e-4)
        np.testing.assert_allclose(scores[image, : len(expected)], GOLDEN[f'scores/{image}'], rtol=1e-6)


def test_images_that_begin_elsewhere_on_their_canvas():
    """Moved with their anchors, they have the same proposals, moved."""
    shift = np.array([5, 9, 5, 9], np.float32)
    corners = np.stack([0 * SIZES[0], 0 * SIZES[0], SIZES[1], SIZES[0]], 1)
    anchors = [a + shift for a in ANCHORS]

    @quick_jit
    def suppress_moved(outputs, extents):
        return propose(*outputs, anchors, (999, 999), 150, 80, 0.7, 1e-3, extents=extents)

    boxes, scores, valid = suppress_moved(OUTPUTS, corners + shift)
    expected, expected_scores, expected_valid = suppress(OUTPUTS, 0.7, 1e-3, (150, 80))
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)
    np.testing.assert_allclose(boxes, np.where(valid[..., None], expected + shift, 0), atol=1e-3)


def loop_proposals(image, iou_threshold, min_size, pre, post):
    rows = []
    for logits, offsets, anchors in zip(*OUTPUTS, ANCHORS, strict=True):
        best = np.argsort(-logits[image], kind='stable')[:pre]
        boxes = np.asarray(box_ops.decode_offsets(offsets[image, best], anchors[best], (1.0, 1.0, 1.0, 1.0)))
        boxes = np.clip(boxes, 0, np.tile([SIZES[1][image], SIZES[0][image]], 2))
        large = (boxes[:, 2:] - boxes[:, :2] >= min_size).all(1)
        scores = logits[image, best]
        rows += [(scores[k], boxes[k]) for k in loop_nms(boxes, scores, iou_threshold, pre, valid=large)]
    return sorted(rows, key=lambda row: -row[0])[:post]


@pytest.mark.parametrize('limits', [(40, 30), (1000, 1000)])
def test_proposals_equal_a_loop(limits):
    """Fewer proposals than the budget, and more; a least size that matters."""
    boxes, scores, valid = suppress(OUTPUTS, 0.4, 9, limits)
    assert boxes.shape == (2, limits[1], 4)
    for image in range(2):
        expected = loop_proposals(image, 0.4, 9, *limits)
        assert valid[image].sum() == len(expected)
        np.testing.assert_allclose(boxes[image, : len(expected)], [row[1] for row in expected], atol=1e-5)
        logits = np.array([row[0] for row in expected])
        np.testing.assert_allclose(scores[image, : len(expected)], 1 / (1 + np.exp(-logits)), rtol=1e-5)
        assert not boxes[image, len(expected) :].any()
        assert not scores[image, len(expected) :].any()


def test_wild_outputs_and_gradients():
    """NaN and infinite outputs of a diverged network are no proposals, and no gradient passes."""
    scores, offsets = (list(map(jnp.asarray, x)) for x in OUTPUTS)
    nan = [s.at[0].set(jnp.nan) for s in scores]
    infinite = [o.at[1].set(jnp.inf) for o in offsets]
    boxes, probabilities, valid = suppress((nan, infinite), 0.7, 1e-3, (150, 80))
    assert np.isfinite(boxes).all()
    assert np.isfinite(probabilities).all()
    assert not valid[0].any()

    @partial(jax.grad, has_aux=True)
    def differentiate(outputs):
        boxes, probabilities, valid = suppress(outputs, 0.7, 1e-3, (150, 80))
        return boxes.sum() + probabilities.sum(), (boxes, valid)

    coarse = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (scores, offsets))
    gradients, (boxes, valid) = jax.jit(differentiate)(coarse)
    assert boxes.dtype == np.float32
    assert valid.any(1).all()
    assert not any(g.any() for g in jax.tree.leaves(gradients))


def test_bad_levels():
    call = partial(propose, image_size=(96, 112), pre_nms=10, post_nms=10)
    with pytest.raises(UsageError, match='3 levels of objectness, 3 of offsets and 2 of anchors'):
        call(*OUTPUTS, ANCHORS[:2])
    with pytest.raises(UsageError, match='level 0 has 504 scores, 504 offsets and 126 anchors'):
        call(*OUTPUTS, [ANCHORS[1]] * 3)
