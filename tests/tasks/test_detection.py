"""Detectors whose outputs are made from the truth: what they lose, what is detected, measured, drawn and exported."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import metrics, models, plots
from canon.errors import UsageError
from canon.losses.yolo import assign_cells
from canon.ops import boxes as box_ops
from canon.ops.matching import match_priors
from canon.tasks import detection as tasks
from canon.tasks.detection import figures as drawing
from canon.tasks.detection.prediction import number_images
from canon.train import At
from tests.losses.drawn_boxes import SIZE, draw_objects, draw_priors

AT = At(jax.random.key(0), jnp.int32(0))
NAMES = ('red', 'green', 'blue')
PRIORS = draw_priors()


def make_batch(counts=(2, 0, 3, 1), seed=3, **fields):
    """Objects of four images that do not overlap much; the last row is padding if `mask` says so."""
    rng = np.random.default_rng(seed)
    objects = draw_objects(rng, counts, 4, len(NAMES))
    # One object per quarter of the image: each has a prior and a cell of its own.
    centres = np.array([(24, 24), (72, 24), (24, 72), (72, 72)], np.float32) + rng.uniform(-6, 6, (len(counts), 4, 2))
    sides = rng.uniform(14, 36, (len(counts), 4, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], -1).astype(np.float32)
    nothing = np.zeros_like(objects['valid'])
    return {
        **objects,
        'boxes': np.where(objects['valid'][..., None], boxes, 0),
        'image': rng.integers(0, 256, (len(counts), SIZE, SIZE, 3)).astype(np.uint8),
        'difficult': nothing,
        'crowd': nothing,
        'image_id': np.arange(len(counts)),
        'mask': np.ones(len(counts), bool),
        **fields,
    }


class PerfectSSD:
    """Gives every prior the offsets and the class of the object it matches. Outputs are the parameters."""

    def priors(self, height, width):
        return PRIORS[: 81 if (height, width) == (SIZE, SIZE) else 80]

    def init(self, key, images, train):
        return {'params': {}}

    def apply(self, variables, images, train=False, rngs=None, mutable=None):
        return (variables['params'], {}) if train else variables['params']


class PerfectYOLO(PerfectSSD):
    def split_output(self, output):
        return output


def learn_ssd(batch):
    outputs = {'offsets': [], 'logits': []}
    for boxes, labels, valid in zip(batch['boxes'], batch['labels'], batch['valid'], strict=True):
        matched = np.asarray(match_priors(box_ops.pairwise_iou(PRIORS, boxes), valid))
        assigned = np.where(matched[:, None] >= 0, boxes[np.maximum(matched, 0)], PRIORS)
        classes = np.where(matched >= 0, 1 + labels[np.maximum(matched, 0)], 0)
        outputs['offsets'].append(box_ops.encode_offsets(assigned, PRIORS))
        outputs['logits'].append(20.0 * np.eye(4)[classes])
    return {name: jnp.stack(values).astype(jnp.float32) for name, values in outputs.items()}


def learn_yolo(batch, grid=(4, 4)):
    cells = assign_cells(*(batch[k] for k in ('boxes', 'labels', 'valid')), (SIZE, SIZE), grid)
    raw = jnp.concatenate([cells.boxes[..., :2], jnp.sqrt(cells.boxes[..., 2:])], -1)
    return {
        'class_scores': jax.nn.one_hot(cells.labels, 3),
        'confidence': jnp.stack([cells.present, jnp.zeros_like(cells.present)], -1).astype(jnp.float32),
        'boxes': jnp.stack([raw, jnp.zeros_like(raw)], 3),
    }


SYSTEMS = {'ssd': (tasks.ssd_task, PerfectSSD(), learn_ssd), 'yolo': (tasks.yolo_task, PerfectYOLO(), learn_yolo)}


SETTINGS = tasks.DetectionSettings(per_class=20, max_detections=12)  # the defaults take seconds to compile


def make_task(system, settings=SETTINGS, **arguments):
    task, model, learn = SYSTEMS[system]
    return task(model, lambda batch: batch['image'].astype(jnp.float32), settings, **arguments), learn


@pytest.mark.parametrize('system', SYSTEMS)
def test_a_perfect_detector_has_no_loss_and_full_marks(system):
    batch = make_batch()
    task, learn = make_task(system)
    params = learn(batch)
    loss, (changed, shown) = jax.jit(task.loss)(params, {}, batch, AT)
    # The cross entropy of a logit of 20 is 3 e^-20 per prior.
    assert float(loss.value) < 1e-6
    assert not changed
    assert float(loss.weight) == (4 if system == 'yolo' else shown['positives'].total)
    found = jax.jit(task.predict)(params, {}, batch)
    assert {name: (x.shape, str(x.dtype)) for name, x in found.items()} == {
        'boxes': ((4, 12, 4), 'float32'),
        'scores': ((4, 12), 'float32'),
        'labels': ((4, 12), 'int32'),
        'valid': ((4, 12), 'bool'),
    }
    evaluator = tasks.detection_evaluator(lambda *_: found, None, NAMES)
    scores = evaluator.finish(evaluator.measure(params, {}, batch))
    for name in ('map50', 'mean_iou', 'right', 'coco_ap'):
        assert scores[name] == pytest.approx(1, abs=1e-5), name
    for name in ('missed', 'background', 'confused', 'duplicate', 'badly_located'):
        assert scores[name] == 0


@pytest.mark.parametrize('system', SYSTEMS)
def test_losses_add_over_rows_and_masks(system):
    """The parts of a batch give the loss, the weight and the metrics of the whole."""
    batch = make_batch()
    task, learn = make_task(system)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), learn(batch))

    @jax.jit
    def evaluate(mask):
        loss, (_, shown) = task.loss(params, {}, {**batch, 'mask': mask}, AT)
        return {'loss': loss, **shown}

    whole = evaluate(np.ones(4, bool))
    halves = [evaluate(np.arange(4) // 2 == i) for i in range(2)]
    for name, total in metrics.add(*halves).items():
        np.testing.assert_allclose(total, whole[name], rtol=1e-5, err_msg=name)
    assert whole['loss'].total > 0


def test_difficult_objects_and_crowds():
    """SSD learns difficult objects unless told otherwise, YOLO the other way round; neither learns a crowd."""
    batch = make_batch()
    counts = {}
    made = {(system, use): make_task(system, use_difficult=use)[0] for system in SYSTEMS for use in (True, False)}
    losses = {key: jax.jit(task.loss) for key, task in made.items()}
    params = {system: learn(batch) for system, (_, _, learn) in SYSTEMS.items()}
    for name, fields in {
        'plain': {},
        'difficult': {'difficult': batch['valid']},
        'crowd': {'crowd': batch['valid']},
    }.items():
        for system, use in (('ssd', True), ('ssd', False), ('yolo', True), ('yolo', False)):
            _, (_, shown) = losses[system, use](params[system], {}, {**batch, **fields}, AT)
            metric = shown['positives'].total if system == 'ssd' else shown['iou'].weight
            counts[name, system, use] = float(metric) > 0
    assert all(counts['plain', system, use] for system in SYSTEMS for use in (True, False))
    assert [counts['difficult', s, u] for s in SYSTEMS for u in (True, False)] == [True, False] * 2
    assert not any(counts['crowd', system, use] for system in SYSTEMS for use in (True, False))


def test_metrics_are_in_pixels_of_the_original_images_and_add_over_batches():
    """Half as large on the canvas, and shifted: the original objects are twice as large."""
    batch = make_batch()
    batch['placement'] = np.tile(np.array([0.5, 0.5, 4, 8], np.float32), (4, 1))
    task, learn = make_task('ssd')
    params = learn(batch)
    evaluator = tasks.detection_evaluator(jax.jit(task.predict), None, NAMES)
    sums = evaluator.measure(params, {}, batch)
    row = next(sums['detections'].each())
    np.testing.assert_allclose(row['truth']['boxes'][0], (batch['boxes'][0, 0] - [4, 8, 4, 8]) * 2, rtol=1e-6)
    assert evaluator.finish(sums)['map50'] == pytest.approx(1)
    parts = []
    for i in range(4):
        part = {name: values[i : i + 1] for name, values in batch.items()}
        parts.append(evaluator.measure(jax.tree.map(lambda x, i=i: x[i : i + 1], params), {}, part))
    total = parts[0]
    for part in parts[1:]:
        total = metrics.add(total, part)
    np.testing.assert_equal(evaluator.finish(total), evaluator.finish(sums))


def test_nothing_is_detected_and_nothing_is_there():
    batch = make_batch(counts=(0, 0, 0, 0))
    task, learn = make_task('ssd')
    params = learn(batch)
    loss, _ = task.loss(params, {}, batch, AT)
    assert loss.total == loss.weight == 0
    evaluator = tasks.detection_evaluator(task.predict, None, NAMES)
    scores = evaluator.finish(evaluator.measure(params, {}, batch))
    assert np.isnan(scores['map50'])
    assert np.isnan(scores['missed'])


class Batches:
    def __init__(self, *batches):
        self.batches = batches

    def iterate(self, start=0):
        return iter(self.batches[start:])


def test_objects_that_padding_left_out_are_reported():
    batch = make_batch(truncated=np.array([2, 0, 1, 5], np.int32))
    batch['mask'] = np.array([True, True, True, False])
    params = learn_ssd(batch)
    task, _ = make_task('ssd')
    evaluator = tasks.detection_evaluator(task.predict, None, NAMES)
    assert evaluator.finish(evaluator.measure(params, {}, batch))['truncated'] == 3


def test_scores_of_yolo_are_at_most_1_and_lower_ones_keep_their_order():
    rng = np.random.default_rng(5)
    shapes = {'class_scores': (1, 4, 4, 3), 'confidence': (1, 4, 4, 2), 'boxes': (1, 4, 4, 2, 4)}
    params = {name: rng.uniform(-0.3, 1.3, shape).astype(np.float32) for name, shape in shapes.items()}
    settings = tasks.DetectionSettings(iou_threshold=1.0, per_class=96, max_detections=96)  # nothing is suppressed
    task, _ = make_task('yolo', settings)
    found = jax.jit(task.predict)(params, {}, {'image': np.zeros((1, SIZE, SIZE, 3), np.uint8)})
    products = params['class_scores'][..., None, :] * params['confidence'][..., None]
    assert 3 < np.sum(products > 1) < 30
    shown = np.sort(products[products > settings.score_threshold])[::-1]
    scores, valid = np.asarray(found['scores'][0]), np.asarray(found['valid'][0])
    np.testing.assert_allclose(scores[valid], np.minimum(shown, 1), rtol=1e-6)
    # Every score below 1 still is of its class and of its box.
    boxes = box_ops.clip(models.yolo.decode_boxes(params['boxes'], (SIZE, SIZE)), (SIZE, SIZE))
    order = np.argsort(-products.ravel(), kind='stable')[np.sum(products > 1) : len(shown)]
    np.testing.assert_array_equal(found['labels'][0][valid][np.sum(products > 1) :], order % 3)
    expected = np.asarray(boxes).reshape(-1, 4)[order // 3]
    np.testing.assert_allclose(found['boxes'][0][valid][np.sum(products > 1) :], expected, rtol=1e-5, atol=1e-5)


def test_figures_show_the_worst_image_first():
    batch = make_batch(counts=(2, 1, 3, 1))
    task, learn = make_task('ssd')
    params = learn(batch)
    params['logits'] = params['logits'].at[2].set(jnp.array([20.0, 0, 0, 0]))  # three objects are missed
    batches, settings = Batches(batch), tasks.DetectionEvaluation(split='test')
    draw = tasks.make_draw(batches, NAMES, settings, PerfectSSD().priors, 0.45)
    evaluator = tasks.detection_evaluator(task.predict, batches, NAMES, settings, draw)
    sums = evaluator.measure(params, {}, batch)
    figures = evaluator.draw(params, {}, jax.tree.map(np.asarray, sums, is_leaf=lambda x: isinstance(x, jax.Array)))
    of_all = {'precision and recall', 'average precision', 'errors', 'found by size', 'priors'}
    assert set(figures) == of_all | {'first images', 'worst images'}
    titles = {name: [axes.get_title() for axes in figures[name].axes] for name in ('first images', 'worst images')}
    assert titles['worst images'][:2] == ['image 2: truth, 3 missed', 'predictions from 0.3, 0 wrong']
    assert titles['first images'][:2] == ['image 0: truth, 0 missed', 'predictions from 0.3, 0 wrong']
    assert figures['priors'].axes[0].get_legend().get_texts()[0].get_text() == 'matched from 0.45'
    shown = figures['worst images'].axes[0].patches
    frames = sorted((p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in shown)
    boxes = batch['boxes'][2, :3]
    expected = sorted((x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes.tolist())
    np.testing.assert_allclose(frames, expected, rtol=1e-5)


def test_wrong_detections_and_missed_objects_are_marked():
    """By hand: a duplicate, a confused class, a low score, a difficult object and padding."""
    truth = {
        'boxes': np.array([[[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [0, 0, 0, 0]]], float),
        'labels': np.array([[0, 1, 2, 0, 0]]),
        'valid': np.array([[True, True, True, True, False]]),
        'difficult': np.array([[False, False, False, True, False]]),
        'image_id': np.array([7]),
    }
    predicted = {
        'boxes': truth['boxes'][:, [0, 4, 1, 0, 2, 3]],
        'scores': np.array([[0.5, 0.99, 0.9, 0.8, 0.2, 0.7]]),
        'labels': np.array([[0, 0, 2, 0, 2, 0]]),
        'valid': np.array([[True, False, True, True, True, True]]),
    }
    rows = metrics.detection.collect_detections(predicted, truth)
    (row,) = rows.each()
    wrong, missed = drawing.mark_errors(row, metrics.detection.match_detections(rows))
    assert wrong.tolist() == [True, False, True, False, False, False], 'a duplicate, and another class'
    assert missed.tolist() == [False, True, True, False, False], 'confused, and of a low score'


def test_packed_detections_are_compared_wherever_they_stand():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.uniform(0, 90, (2, 6, 4)), rng.uniform(0, 1, (2, 6, 1)), np.ones((2, 6, 1))], -1)
    rows[:, 5, 4:] = 0, -1  # no detection: its corners say nothing
    moved = rows[:, [1, 0, 2, 4, 3, 5]] + np.array([0.01, 0, 0, 0, 0, 0])
    moved[:, 5, :4] = 7
    assert tasks.compare_packed([moved], [rows]) == (
        '10 of 10 detections in noise agree with the model, corners and scores to 1.0e-02'
    )
    for column, difference in ((0, 5.0), (4, 0.1), (5, 1.0), (2, np.nan)):
        other = moved.copy()
        other[0, 3, column] += difference
        assert tasks.compare_packed([other], [rows]).startswith('9 of 10 detections')
    assert tasks.compare_packed([rows[:, :0]], [rows]).startswith('0 of 10')


def test_images_have_the_names_of_their_files():
    class Files:
        names, ids = ('JPEGImages/a.jpg', 'JPEGImages/b.jpg'), np.array([3, 5])

    class Cache:
        source = Files()

    assert tasks.name_images(Cache()) == {3: 'a.jpg', 5: 'b.jpg'}
    assert tasks.name_images(Batches(make_batch())) == {}


def test_objects_found_by_size():
    batch = make_batch()
    task, learn = make_task('ssd')
    params = learn(batch)
    params['logits'] = params['logits'].at[2].set(jnp.array([20.0, 0, 0, 0]))
    rows = metrics.detection.collect_detections(task.predict(params, {}, batch), batch)
    sides, found = tasks.recall_by_size(metrics.detection.match_detections(rows))
    assert found.tolist() == [True, True, False, False, False, True]
    boxes = batch['boxes'][batch['valid']]
    np.testing.assert_allclose(sides, np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1)), rtol=1e-4)


def test_coverage_by_priors_against_loops():
    batch = make_batch()
    coverage = tasks.measure_prior_coverage([batch, batch], PerfectSSD().priors, most=5)
    boxes = batch['boxes'][batch['valid']].astype(np.float64)
    expected = []
    for x0, y0, x1, y1 in boxes:
        best = 0
        for px0, py0, px1, py1 in PRIORS.astype(np.float64):
            shared = max(min(x1, px1) - max(x0, px0), 0) * max(min(y1, py1) - max(y0, py0), 0)
            best = max(best, shared / ((x1 - x0) * (y1 - y0) + (px1 - px0) * (py1 - py0) - shared))
        expected.append(best)
    np.testing.assert_allclose(coverage.best_iou, expected, rtol=1e-5)  # the first batch has enough objects
    np.testing.assert_allclose(coverage.sides, np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1)), rtol=1e-6)
    empty = tasks.measure_prior_coverage([make_batch(counts=(0, 0))], PerfectSSD().priors)
    assert len(empty.sides) == 0
    assert plots.draw_prior_coverage(*empty)


def test_single_images_are_detected_in_pixels_of_their_files():
    batch = make_batch(mask=np.array([True, True, True, False]))
    batch['placement'] = np.tile(np.array([2, 2, 0, 10], np.float32), (4, 1))
    batch['original_size'] = np.full((4, 2), 48, np.int32)
    task, learn = make_task('ssd')
    params = learn(batch)
    inputs = {k: batch[k] for k in ('image', 'mask', 'placement', 'original_size')}
    found = list(tasks.detect_images(task.predict, params, {}, [inputs], min_score=0.5))
    assert [len(image.scores) for image in found] == [2, 0, 3]
    order = np.argsort(found[0].canvas_boxes[:, 0])
    truth = batch['boxes'][0, :2]
    np.testing.assert_allclose(found[0].canvas_boxes[order], truth[np.argsort(truth[:, 0])], atol=1e-3)
    expected = np.clip((found[0].canvas_boxes - [0, 10, 0, 10]) / 2, 0, 48)
    np.testing.assert_allclose(found[0].boxes, expected, atol=1e-4)
    row = found[0].list_rows(NAMES)[0]
    assert list(row) == ['class', 'score', 'x0', 'y0', 'x1', 'y1']
    assert row['class'] == NAMES[found[0].labels[0]]
    results = metrics.detection.list_coco_results(tasks.collect_rows(found))
    assert [r['image_id'] for r in results] == [0, 0, 2, 2, 2]
    named = metrics.detection.list_coco_results(tasks.collect_rows(found, [139, 7, 285]), [1, 3, 90])
    assert [r['image_id'] for r in named] == [139, 139, 285, 285, 285]
    assert [r['category_id'] for r in named] == [(1, 3, 90)[r['category_id'] - 1] for r in results]
    x0, y0, x1, y1 = found[0].boxes[0]
    np.testing.assert_allclose(results[0]['bbox'], [x0, y0, x1 - x0, y1 - y0], atol=0.01)


def test_images_have_the_numbers_of_their_files():
    assert number_images([Path('val/000000000139.jpg'), Path('val/7.png')]) == [139, 7]
    assert number_images([Path('139.jpg'), Path('cat.jpg')]) == [0, 1]
    assert number_images([Path('a/1.jpg'), Path('b/1.jpg')]) == [0, 1]
    assert number_images([Path(f'{2**31}.jpg')]) == [0]


def test_detections_in_one_array():
    batch = make_batch()
    task, learn = make_task('ssd', tasks.DetectionSettings(score_threshold=0.5, per_class=5, max_detections=5))
    packed = np.asarray(tasks.pack_detections(task.predict(learn(batch), {}, batch)))
    assert packed.shape == (4, 5, 6)
    assert (packed[..., 5] >= 0).sum(1).tolist() == [2, 0, 3, 1]
    assert (packed[..., 4] > 0.5).sum(1).tolist() == [2, 0, 3, 1]


def test_what_is_refused():
    batch = make_batch()
    task, learn = make_task('ssd')
    params = learn(batch)
    small = {**batch, 'image': batch['image'][:, :64, :64]}
    with pytest.raises(
        UsageError, match='81 offsets and 81 scores per image do not fit 80 priors; make the priors for'
    ):
        task.loss(params, {}, small, AT)
    with pytest.raises(UsageError, match='has 80 priors for images of 64x64, but scores 81'):
        task.predict(params, {}, small)
    for system, count, text in (('ssd', 3, 'set it to 4, one more for the background'), ('yolo', 4, 'set it to 3')):
        with pytest.raises(UsageError, match=f'model.num_classes={count}, but the data have 3 classes: {text}'):
            tasks.check_num_classes(system, count, NAMES)
    paper = models.make_model('ssd.ssd300', num_classes=4)
    with pytest.raises(UsageError, match='made for images of 300x300, not 96x96'):
        paper.priors(SIZE, SIZE)
