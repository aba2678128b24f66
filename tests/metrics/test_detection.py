"""VOC's average precision against a loop, COCO's numbers against pycocotools, errors against a scene."""

import collections
import doctest
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import Rows, add, detection

GOLDEN = Path(__file__).parent / 'golden/coco.npz'
CLASSES = 4


def draw_set(images=24, objects=6, detections=20, seed=0):
    """(detections, batch): random and near objects, with ties, difficult and crowd objects, and images without any."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (images, objects, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 48, corner.shape)], -1).astype(np.float32)
    valid = np.arange(objects) < rng.integers(0, objects + 1, (images, 1))
    labels = rng.integers(0, CLASSES - 1, valid.shape)  # the last class has no object
    target = rng.integers(0, objects, (images, detections))
    found = np.take_along_axis(boxes, target[..., None], 1) + rng.integers(-3, 4, (images, detections, 4)) * (
        rng.random((images, detections, 1)) < 0.8
    )
    found = np.concatenate([np.minimum(found[..., :2], found[..., 2:] - 1), found[..., 2:]], -1).astype(np.float32)
    kinds = np.where(rng.random(target.shape) < 0.8, np.take_along_axis(labels, target, 1), CLASSES - 1)
    scores = np.sort(np.round(rng.random(target.shape), 2), 1)[:, ::-1].astype(np.float32)
    batch = {
        'boxes': boxes, 'labels': labels, 'valid': valid,
        'difficult': rng.random(valid.shape) < 0.2, 'crowd': rng.random(valid.shape) < 0.1,
        'image_id': np.arange(images) + 100, 'mask': np.ones(images, bool),
    }  # fmt: skip
    shown = np.arange(detections) < rng.integers(0, detections + 1, (images, 1))
    return {'boxes': found, 'scores': scores, 'labels': kinds, 'valid': shown}, batch


def take(tree, index):
    return {name: values[index] for name, values in tree.items()}


@pytest.fixture(scope='module')
def drawn():
    return draw_set()


@pytest.fixture(scope='module')
def rows(drawn):
    return detection.collect_detections(*drawn)


# --- VOC -------------------------------------------------------------------------------------------------------------


def overlap(a, b):
    """Overlap of two boxes by VOC's inclusive pixels: the coordinates are x0 + 1, y0 + 1, x1, y1."""
    a, b = ([p[0] + 1, p[1] + 1, p[2], p[3]] for p in (a, b))
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if w <= 0 or h <= 0:
        return 0.0
    area = [(p[2] - p[0] + 1) * (p[3] - p[1] + 1) for p in (a, b)]
    return w * h / (sum(area) - w * h)


def loop_ap(found, batch, label, year, threshold):
    """The development kit's protocol, one detection after the other, in Python's floats."""
    ranked = []
    for i in range(len(batch['boxes'])):
        for d in np.flatnonzero(found['valid'][i] & (found['labels'][i] == label)):
            ranked.append((-float(found['scores'][i, d]), i, d))
    positives, taken, curve = 0, set(), []
    for i, k in np.argwhere(batch['valid'] & (batch['labels'] == label)):
        positives += not (batch['difficult'][i, k] or batch['crowd'][i, k])
    tp = fp = 0
    for _, i, d in sorted(ranked):
        best, at = 0.0, None
        for k in np.flatnonzero(batch['valid'][i] & (batch['labels'][i] == label)):
            if (o := overlap(found['boxes'][i, d].tolist(), batch['boxes'][i, k].tolist())) > best:
                best, at = o, k
        if best >= threshold:
            if batch['difficult'][i, at] or batch['crowd'][i, at]:
                continue
            if (i, at) not in taken:
                taken.add((i, at))
                tp += 1
            else:
                fp += 1
        else:
            fp += 1
        curve.append((tp / positives if positives else 0.0, tp / (tp + fp)))
    if not positives:
        return float('nan')
    if year == 2007:
        best = [max((p for r, p in curve if r >= t), default=0.0) for t in np.arange(0.0, 1.1, 0.1)]
        return sum(best) / 11
    # The area under the monotone curve, as an integral over its steps from the right.
    area = highest = 0.0
    for j in range(len(curve) - 1, -1, -1):
        highest = max(highest, curve[j][1])
        area += highest * (curve[j][0] - (curve[j - 1][0] if j else 0.0))
    return area


@pytest.mark.parametrize('year', [2007, 2010])
@pytest.mark.parametrize('threshold', [0.5, 0.75])
def test_average_precision_is_that_of_a_loop(drawn, rows, year, threshold):
    scores = detection.score_voc(rows, CLASSES, year, threshold)
    expected = [loop_ap(*drawn, label, year, threshold) for label in range(CLASSES)]
    assert 0.05 < np.nanmean(expected) < 0.8, 'the set cannot tell right from wrong'
    np.testing.assert_allclose(scores.ap, expected, rtol=1e-12)
    np.testing.assert_allclose(scores.mean_ap, np.mean(expected[:-1]), rtol=1e-12)
    assert np.isnan(scores.ap[-1]), 'a class without objects has no average precision'
    assert scores.objects.sum() == (drawn[1]['valid'] & ~drawn[1]['difficult'] & ~drawn[1]['crowd']).sum()


def make_row(found, truth, **batch):
    """`Rows` of one image: found [(box, score, label)], truth [(box, label, difficult)]."""
    boxes, scores, labels = [list(x) for x in zip(*found, strict=True)] if found else ([], [], [])
    objects, kinds, difficult = [list(x) for x in zip(*truth, strict=True)] if truth else ([], [], [])
    detections = {
        'boxes': np.array(boxes, np.float32).reshape(1, -1, 4),
        'scores': np.array([scores], np.float32),
        'labels': np.array([labels], np.int32),
        'valid': np.ones((1, len(boxes)), bool),
    }
    truth = {
        'boxes': np.array(objects, np.float32).reshape(1, -1, 4),
        'labels': np.array([kinds], np.int32),
        'difficult': np.array([difficult], bool),
        'valid': np.ones((1, len(objects)), bool),
    }
    return detection.collect_detections(detections, truth | {k: np.asarray([v]) for k, v in batch.items()})


def test_eleven_points_keep_the_edge_of_floats():
    # Three of ten objects, at precision 1: recall 0.3 is below np.arange(0, 1.1, 0.1)[3] = 0.30000000000000004.
    objects = [((20.0 * i, 0, 20.0 * i + 10, 10), 0, False) for i in range(10)]
    rows = make_row([(box, 0.9, 0) for box, _, _ in objects[:3]], objects)
    assert detection.score_voc(rows, 1, 2007).ap[0] == pytest.approx(3 / 11)
    assert detection.score_voc(rows, 1, 2010).ap[0] == pytest.approx(0.3)


def test_a_threshold_is_inclusive_and_a_second_detection_of_an_object_is_wrong():
    half = ((0, 0, 10, 10), 0.9, 0), ((0, 0, 10, 10), 0.8, 0)
    scores = detection.score_voc(make_row(half, [((0, 0, 10, 5), 0, False)]), 1)
    np.testing.assert_array_equal(scores.precision[0], [1, 0.5])
    np.testing.assert_allclose(scores.scores[0], [0.9, 0.8])
    # Two detections of a difficult object count in no way; one at another place is wrong.
    found = [*half, ((50, 50, 60, 60), 0.7, 0)]
    scores = detection.score_voc(make_row(found, [((0, 0, 10, 10), 0, True), ((80, 80, 90, 90), 0, False)]), 1)
    np.testing.assert_array_equal(scores.precision[0], [0])


# --- COCO ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def golden():
    return dict(np.load(GOLDEN))


def golden_rows(golden, order=None):
    truth, found = (
        {name.removeprefix(prefix): x for name, x in golden.items() if name.startswith(prefix)}
        for prefix in ('truth_', 'detections_')
    )
    truth['image_id'] = np.arange(len(truth['boxes']))
    order = truth['image_id'] if order is None else order
    return detection.collect_detections(take(found, order), take(truth, order))


@pytest.mark.parametrize('sizes', ['coco', 'digits'])
def test_coco_numbers_are_those_of_pycocotools(golden, sizes):
    scores = detection.score_coco(golden_rows(golden), 5, tuple(golden[f'{sizes}_sizes']))
    assert list(scores.values) == list(detection.COCO_NAMES)
    np.testing.assert_allclose(list(scores.values.values()), golden[f'{sizes}_stats'], rtol=1e-9)
    expected = np.where(golden[f'{sizes}_class_size_ap'] < 0, np.nan, golden[f'{sizes}_class_size_ap'])
    np.testing.assert_allclose(scores.class_ap, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(scores.size_ap, expected[:, 1:], rtol=1e-9)
    np.testing.assert_allclose(scores.class_ap50[:4], golden[f'{sizes}_class_ap50'][:4], rtol=1e-9)
    assert np.isnan(scores.class_ap50[4])


def test_the_order_of_images_does_not_count(golden):
    """The golden set has equal scores in several images, whose order would change COCO's and VOC's numbers."""
    order = np.random.default_rng(0).permutation(len(golden['truth_boxes']))
    ordered, shuffled = golden_rows(golden), golden_rows(golden, order)
    assert detection.score_coco(ordered, 5).values == detection.score_coco(shuffled, 5).values
    np.testing.assert_array_equal(detection.score_voc(ordered, 5).ap, detection.score_voc(shuffled, 5).ap)


def test_results_are_listed_as_coco_wants_them(drawn, rows):
    results = detection.list_coco_results(rows, category_ids=[1, 2, 5, 90])
    assert len(results) == drawn[0]['valid'].sum()
    i, d = np.argwhere(drawn[0]['valid'])[0]
    x0, y0, x1, y1 = drawn[0]['boxes'][i, d].tolist()
    assert results[0] == {
        'image_id': 100 + i,
        'category_id': [1, 2, 5, 90][drawn[0]['labels'][i, d]],
        'bbox': [x0, y0, x1 - x0, y1 - y0],
        'score': pytest.approx(float(drawn[0]['scores'][i, d]), abs=1e-5),
    }


def test_the_area_of_a_segmentation_decides_the_size():
    rows = make_row([((0, 0, 100, 100), 0.9, 0)], [((0, 0, 100, 100), 0, False)], area=[900.0])
    scores = detection.score_coco(rows, 1).values
    assert scores['ap_small'] == 1
    assert np.isnan(scores['ap_large'])


# --- accumulators ----------------------------------------------------------------------------------------------------


def same(a, b):
    np.testing.assert_array_equal(detection.score_voc(a, CLASSES).ap, detection.score_voc(b, CLASSES).ap)
    for ours, theirs in zip(detection.analyse_errors(a, CLASSES), detection.analyse_errors(b, CLASSES), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_batches_and_padding_add_exactly(drawn, rows):
    found, batch = drawn
    parts = Rows(())
    for start in (0, 9, 18):
        # The last row of each batch is padding that repeats a row of the set, and widths differ between batches.
        index = np.append(np.arange(start, min(start + 9, 24)), 3)
        part, batch_part = take(found, index), take(batch, index)
        batch_part['mask'] = np.arange(len(index)) < len(index) - 1
        extra = {k: np.pad(v, [(0, 0), (0, start), *[(0, 0)] * (v.ndim - 2)]) for k, v in part.items()}
        parts = add(parts, detection.collect_detections(extra, batch_part))
    same(rows, parts)


def test_boxes_return_to_the_original_image(drawn, rows):
    """A batch letterboxed by any scale and shift scores as the original does, also compiled."""
    found, batch = drawn
    placement = np.random.default_rng(0).uniform(0.3, 2, (24, 4)).astype(np.float32)

    def place(boxes):
        return boxes * placement[:, None, [0, 1, 0, 1]] + placement[:, None, [2, 3, 2, 3]]

    moved = found | {'boxes': place(found['boxes'])}
    moved_batch = batch | {'boxes': place(batch['boxes']), 'placement': placement}
    placed = jax.jit(detection.collect_detections)(moved, moved_batch)
    table, expected = detection.flatten_rows(placed), detection.flatten_rows(rows)
    np.testing.assert_array_equal(table.object_boxes, expected.object_boxes)  # whole numbers come back whole
    np.testing.assert_allclose(table.boxes, expected.boxes, atol=1e-3)
    size = np.broadcast_to(np.int32([50, 40]), (24, 2))
    sized = {**batch, 'original_size': jnp.asarray(size)}
    clipped = detection.collect_detections(found, {**sized, 'placement': np.float32([[1, 1, 0, 0]] * 24)})
    boxes = detection.flatten_rows(clipped).boxes
    np.testing.assert_array_equal(boxes, np.clip(expected.boxes, 0, [40, 50, 40, 50]))
    unplaced = detection.flatten_rows(detection.collect_detections(found, sized))  # perhaps larger than the original
    np.testing.assert_array_equal(unplaced.boxes, expected.boxes)


def test_objects_without_a_place_are_refused(drawn):
    found, batch = drawn
    placement = np.tile(np.float32([1, 1, 0, 0]), (24, 1))
    image = int(np.flatnonzero(~batch['valid'].any(1))[0])  # one without objects has nothing to place
    placement[image] = np.nan
    detection.match_detections(detection.collect_detections(found, {**batch, 'placement': placement}))
    placement[int(np.flatnonzero(batch['valid'].any(1))[0])] = np.nan
    rows = detection.collect_detections(found, {**batch, 'placement': placement})
    with pytest.raises(UsageError, match='mirrors, turns or crops at random; remove it from the transforms'):
        detection.match_detections(rows)


def test_empty_sets_have_no_numbers_and_empty_images_are_normal():
    for rows in (Rows(()), make_row([], []), make_row([], [], mask=False)):
        assert np.isnan(detection.score_voc(rows, 2).mean_ap)
        assert all(np.isnan(x) for x in detection.score_coco(rows, 2).values.values())
        assert detection.analyse_errors(rows, 2).counts.sum() == 0
        assert np.isnan(detection.analyse_errors(rows, 2).mean_iou)
        assert detection.list_coco_results(rows) == []
    missed = make_row([], [((0, 0, 9, 9), 1, False)])
    np.testing.assert_array_equal(detection.score_voc(missed, 2).ap, [np.nan, 0])
    assert detection.score_coco(missed, 2).values['ap'] == 0
    wrong = make_row([((0, 0, 9, 9), 0.5, 1)], [])
    assert detection.analyse_errors(wrong, 2, limit_to_objects=False).counts[1, 0, 4] == 1


# --- errors ----------------------------------------------------------------------------------------------------------


def test_each_kind_of_error_is_counted_by_class_and_size():
    objects = [
        ((0, 0, 10, 10), 0, False),  # found, and found again
        ((100, 0, 140, 40), 0, False),  # found badly: its missed
        ((200, 0, 300, 100), 1, False),  # found as class 0: missed
        ((400, 0, 410, 10), 1, True),  # difficult
    ]
    found = [
        ((0, 0, 10, 9), 0.9, 0),  # right, overlap 0.9
        ((0, 0, 10, 10), 0.8, 0),  # duplicate
        ((100, 20, 140, 60), 0.7, 0),  # badly located, overlap 1/3
        ((200, 0, 300, 100), 0.6, 0),  # confused
        ((500, 0, 560, 60), 0.5, 0),  # background of medium size
        ((400, 0, 410, 10), 0.5, 1),  # of the difficult object: in no kind
        ((400, 5, 410, 15), 0.4, 1),  # badly located on it: in no kind
        ((0, 0, 10, 10), 0.1, 1),  # below the threshold of scores
    ]
    rows = make_row(found, objects, image_id=7)
    errors = detection.analyse_errors(rows, 2, score_threshold=0.2, limit_to_objects=False)
    expected = collections.Counter(
        {(0, 0, 'right'): 1, (0, 0, 'duplicate'): 1, (0, 1, 'badly located'): 1, (0, 2, 'confused'): 1,
         (0, 1, 'background'): 1, (0, 1, 'missed'): 1, (1, 2, 'missed'): 1}
    )  # fmt: skip
    counts = {(c, s, detection.ERROR_KINDS[k]): int(errors.counts[c, s, k]) for c, s, k in np.argwhere(errors.counts)}
    assert counts == expected
    np.testing.assert_array_equal(errors.image_counts, [errors.counts.sum((0, 1))])
    assert errors.image_ids.tolist() == [7]
    assert errors.mean_iou == pytest.approx(0.9)
    np.testing.assert_allclose(errors.size_iou, [0.9, np.nan, np.nan])
    # Two objects of class 0: only its two best detections are considered, as in figure 4 of YOLO's paper.
    limited = detection.analyse_errors(rows, 2, limit_to_objects=True)
    assert limited.counts[0].sum(0).tolist() == [1, 0, 0, 1, 0, 1]
    assert limited.counts[1].sum(0).tolist() == [0, 0, 1, 0, 0, 1]


def test_every_object_is_right_or_missed_and_every_detection_has_one_kind(rows, drawn):
    errors = detection.analyse_errors(detection.match_detections(rows), CLASSES, limit_to_objects=False)
    objects = detection.score_voc(rows, CLASSES).objects
    np.testing.assert_array_equal(errors.counts[..., [0, 5]].sum((1, 2)), objects)
    assert errors.counts[..., :5].sum() <= drawn[0]['valid'].sum()
    np.testing.assert_array_equal(errors.counts.sum((0, 1)), errors.image_counts.sum(0))
    # Recall at the end of VOC's curve is the share of right detections.
    scores = detection.score_voc(rows, CLASSES)
    right = [curve[-1] * count for curve, count in zip(scores.recall[:-1], objects[:-1], strict=True)]
    np.testing.assert_allclose(errors.counts[:-1, :, 0].sum(1), right)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_examples_of_docstrings():
    result = doctest.testmod(detection)
    assert result.attempted
    assert not result.failed


def test_bad_input_is_one_line(drawn, rows):
    found, batch = drawn
    cases = [
        ("no 'valid'", lambda: detection.collect_detections({k: v for k, v in found.items() if k != 'valid'}, batch)),
        (r'\[B, N, 4\]', lambda: detection.collect_detections(found, batch | {'boxes': batch['boxes'][..., :2]})),
        ('year=2012', lambda: detection.score_voc(rows, CLASSES, 2012)),
        (r'labels are 0\.\.3, expected 0\.\.1', lambda: detection.score_voc(rows, 2)),
        (r'expected 0\.\.1', lambda: detection.score_coco(rows, 2)),
        ('in order', lambda: detection.score_coco(rows, CLASSES, (96.0, 32.0))),
        ('background_iou', lambda: detection.analyse_errors(rows, CLASSES, background_iou=0.7)),
    ]  # fmt: skip
    for message, call in cases:
        with pytest.raises(UsageError, match=message):
            call()
