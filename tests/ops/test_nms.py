"""NMS against a loop and against torchvision: clustered, spread, tied, empty, invalid and labelled boxes."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend
from canon.ops.nms import multiclass_nms, nms
from tests.ops.detections import draw_boxes, draw_scores, loop_nms

GOLDEN = np.load(Path(__file__).parent / 'golden/detection.npz')
suppress = jax.jit(nms, static_argnums=3)


def kept_by(indices, valid) -> list[int]:
    count = int(valid.sum())
    assert valid[:count].all()  # those that are valid come first, and the rest is 0
    assert not indices[count:].any()
    return np.asarray(indices[:count]).tolist()


def test_equals_torchvision():
    scores, labels = draw_scores(400, 4), np.arange(400) % 3
    for kind, threshold in itertools.product(('clustered', 'spread', 'integer'), (0.3, 0.5, 0.7)):
        boxes = draw_boxes(kind, 400, 4)
        if kind == 'integer' and threshold == 0.3:  # torch compares 3 / 10 in float32 with 0.3 in float64
            continue
        assert kept_by(*suppress(boxes, scores, threshold, 400)) == GOLDEN[f'nms/{kind}/{threshold}'].tolist()
        kept = kept_by(*suppress(boxes, scores, threshold, 400, labels=labels))
        assert kept == GOLDEN[f'batched/{kind}/{threshold}'].tolist()


@pytest.mark.parametrize('n', [1, 256, 300])
def test_equals_a_loop(n):
    """Below, at and above the size of a tile; all boxes or the first few; equal scores and overlaps; some invalid."""
    valid, labels = np.random.default_rng(n).random(n) < 0.7, np.random.default_rng(n).integers(0, 3, n)
    for limit, options in ((n, dict(valid=valid)), (7, dict(valid=valid, labels=labels))):
        for kind, levels in (('clustered', None), ('spread', 5), ('integer', 4)):
            boxes, scores = draw_boxes(kind, n), draw_scores(n, levels=levels)
            for threshold in (0.3, 0.6):
                kept = kept_by(*suppress(boxes, scores, threshold, limit, **options))
                assert kept == loop_nms(boxes, scores, threshold, limit, **options), (kind, limit, threshold)


def test_the_threshold_is_strict_and_equal_scores_go_by_index():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]])  # IoU of the first two: 1 / 2
    scores = np.float32([0.5, 0.5, 0.5, 0.5])
    assert kept_by(*suppress(boxes, scores, 0.5, 4)) == [0, 1, 3]
    assert kept_by(*suppress(boxes, scores, 0.49, 4)) == [0, 3]
    assert kept_by(*suppress(boxes, scores, 1.0, 4)) == [0, 1, 2, 3]
    assert kept_by(*suppress(boxes, scores, 0.0, 4)) == [0, 3]


@pytest.mark.parametrize('kind', ['cpu', 'plain'])
def test_scores_of_any_kind_are_ranked(kind):
    """Negative, infinite, equal ones, 0 and -0, more than 16 bits of a mantissa apart or less; also bfloat16."""
    rng = np.random.default_rng(0)
    apart = np.arange(997) * 40.0
    boxes = np.float32(np.stack([apart, 0 * apart, apart + 10, 0 * apart + 10], 1))
    scores = rng.normal(size=997) * 10.0 ** rng.integers(-30, 30, 997)
    scores = rng.permutation(
        np.concatenate([scores[:500], [np.inf, -np.inf, 0.0, -0.0], 1 + np.arange(493) // 2 * 1e-7])
    )
    for dtype in (np.float32, jnp.bfloat16):
        typed = jnp.asarray(scores, dtype)
        with backend.forms(kind):
            kept = kept_by(*jax.jit(lambda *a: nms(*a, 0.5, 997))(boxes, typed))
        assert kept == np.argsort(-np.float64(typed), kind='stable').tolist()


def test_nothing_and_invalid_boxes():
    boxes, scores = draw_boxes('spread', 20), draw_scores(20)
    assert kept_by(*nms(boxes[:0], scores[:0], 0.5, 3)) == []
    assert nms(boxes, scores, 0.5, 0)[0].shape == (0,)
    assert kept_by(*suppress(boxes, scores, 0.5, 20, valid=np.zeros(20, bool))) == []
    assert kept_by(*suppress(boxes, np.full(20, np.nan, np.float32), 0.5, 20)) == []
    assert 3 not in kept_by(*suppress(boxes, np.where(np.arange(20) == 3, np.nan, scores), 0.9, 20))
    # Padding: boxes of zeros have no area, and do not suppress each other.
    padded = np.concatenate([boxes, np.zeros((5, 4), np.float32)])
    some = np.arange(25) < 20
    kept = kept_by(*suppress(padded, np.append(scores, np.ones(5, np.float32)), 0.5, 25, valid=some))
    assert kept == kept_by(*suppress(boxes, scores, 0.5, 20))
    assert len(kept_by(*suppress(np.zeros((5, 4), np.float32), np.ones(5, np.float32), 0.5, 5))) == 5


def test_a_batch_equals_its_rows_and_bfloat16_its_float32():
    boxes = np.stack([draw_boxes(kind, 300) for kind in ('clustered', 'spread', 'integer')])
    scores = np.stack([draw_scores(300, seed) for seed in range(3)])
    valid = np.arange(300) < np.array([[300], [0], [150]])
    indices, kept = jax.jit(jax.vmap(partial(nms, iou_threshold=0.5, max_outputs=40)))(boxes, scores, valid=valid)
    for row in range(3):
        assert kept_by(indices[row], kept[row]) == loop_nms(boxes[row], scores[row], 0.5, 40, valid[row])
    coarse = jnp.asarray(boxes[0], jnp.bfloat16)
    exact = suppress(coarse.astype(np.float32), scores[0], 0.5, 300)
    assert kept_by(*suppress(coarse, scores[0], 0.5, 300)) == kept_by(*exact)


def loop_detections(boxes, scores, score_threshold, iou_threshold, per_class, most):
    rows = []
    for label in range(scores.shape[1]):
        best = [
            i for i in np.argsort(-scores[:, label], kind='stable')[:per_class] if scores[i, label] > score_threshold
        ]
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        kept = loop_nms(own[best], scores[best, label], iou_threshold, per_class)
        rows += [(scores[best[k], label], label, own[best[k]]) for k in kept]
    return sorted(rows, key=lambda row: -row[0])[:most]


def test_detections_of_several_classes_equal_a_loop():
    boxes, scores = draw_boxes('clustered', 120), np.stack([draw_scores(120, seed) for seed in range(4)], 1)
    scores = scores / np.float32([1, 2, 1.5, 1.1])  # no two classes share a score
    own = np.stack([boxes + 3 * k for k in range(4)], 1)
    detect = jax.jit(multiclass_nms, static_argnums=(4, 5))
    for candidates, (score_threshold, per_class, most) in (
        (boxes, (0.3, 50, 30)),
        (own, (0.3, 50, 30)),
        (boxes, (0.0, 500, 1000)),  # more than there are
        (boxes, (2.0, 50, 30)),  # nothing passes
    ):
        found = jax.tree.map(np.asarray, detect(candidates, scores, score_threshold, 0.45, per_class, most))
        expected = loop_detections(candidates, scores, score_threshold, 0.45, per_class, most)
        assert {k: v.shape for k, v in found.items()} == {
            'boxes': (most, 4), 'scores': (most,), 'labels': (most,), 'valid': (most,)
        }  # fmt: skip
        assert found['valid'].tolist() == (np.arange(most) < len(expected)).tolist()
        for k, (score, label, box) in enumerate(expected):
            assert (found['scores'][k], found['labels'][k]) == (score, label)
            np.testing.assert_array_equal(found['boxes'][k], box)
        assert not any(found[k][~found['valid']].any() for k in ('boxes', 'scores', 'labels'))
