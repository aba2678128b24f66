"""The MultiBox and YOLO losses against float64 loops over their equations, finite differences and torchvision."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import losses, metrics
from canon.errors import UsageError
from canon.losses.multibox import multibox_loss
from canon.losses.yolo import assign_cells, yolo_loss
from tests.losses.drawn_boxes import SIZE, draw_objects, draw_predictions, draw_priors

GOLDEN = Path(__file__).parent / 'golden/multibox.npz'
PRIORS = draw_priors()
multibox = jax.jit(multibox_loss, static_argnames=('threshold', 'negative_ratio', 'min_negatives', 'variances'))


def overlap(a, b) -> float:
    """IoU of two corner boxes, float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    width, height = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def match_by_loops(priors, boxes, threshold=0.5):
    """Section 2.2: the best pair of a free object and a free prior first, then every prior above the threshold."""
    table = np.array([[overlap(p, b) for b in boxes] for p in priors]).reshape(len(priors), len(boxes))
    matched, free = np.full(len(priors), -1), table.copy()
    for _ in range(len(boxes)):
        prior, box = np.unravel_index(free.argmax(), free.shape)
        matched[prior] = box
        free[prior], free[:, box] = -1, -1
    for prior in np.flatnonzero(matched < 0):
        if len(boxes) and table[prior].max() > threshold:
            matched[prior] = table[prior].argmax()
    return matched


def multibox_by_loops(x, ratio=3, least=0):
    """Equations 1 to 3 over images and priors: localisation, confidence, N and the number of negatives."""
    localisation = confidence = count = mined = 0.0
    for b in range(len(x['boxes'])):
        boxes, labels = x['boxes'][b][x['valid'][b]], x['labels'][b][x['valid'][b]]
        matched = match_by_loops(PRIORS, boxes)
        logits = x['logits'][b].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        entropy = []
        for prior, object_ in enumerate(matched):
            entropy.append(-log_p[prior, 0 if object_ < 0 else 1 + labels[object_]])
            if object_ < 0:
                continue
            px, py = (PRIORS[prior, :2] + PRIORS[prior, 2:]) / 2
            pw, ph = PRIORS[prior, 2:] - PRIORS[prior, :2]
            x0, y0, x1, y1 = boxes[object_].astype(np.float64)
            target = np.array([((x0 + x1) / 2 - px) / pw, ((y0 + y1) / 2 - py) / ph])
            target = np.concatenate([target / 0.1, np.log([(x1 - x0) / pw, (y1 - y0) / ph]) / 0.2])
            error = np.abs(x['offsets'][b, prior] - target)
            localisation += np.where(error < 1, 0.5 * error**2, error - 0.5).sum()
        entropy, positive = np.array(entropy), matched >= 0
        negatives = sorted(entropy[~positive])[::-1][: max(int(ratio * positive.sum()), least)]
        confidence += entropy[positive].sum() + sum(negatives)
        count, mined = count + positive.sum(), mined + len(negatives)
    return localisation, confidence, count, mined


@pytest.fixture(scope='module')
def inputs():
    return draw_predictions(len(PRIORS))


def call(x, **options):
    return multibox(x['offsets'], x['logits'], PRIORS, x['boxes'], x['labels'], x['valid'], **options)


@pytest.mark.parametrize('least', [0, 5])
def test_multibox_against_loops(inputs, least):
    loss = call(inputs, min_negatives=least)
    np.testing.assert_allclose(loss, multibox_by_loops(inputs, least=least), rtol=2e-5)


def test_multibox_of_torchvision(inputs):
    golden = np.load(GOLDEN)

    def total(offsets, logits):
        loss = call({**inputs, 'offsets': offsets, 'logits': logits})
        return (loss.localisation + loss.confidence) / loss.positives, loss

    (_, loss), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(inputs['offsets'], inputs['logits'])
    assert loss.localisation / loss.positives == pytest.approx(golden['localisation'].item(), rel=1e-5)
    assert loss.confidence / loss.positives == pytest.approx(golden['confidence'].item(), rel=1e-5)
    for gradient, name in zip(gradients, ('offsets', 'logits'), strict=True):
        np.testing.assert_allclose(gradient, golden[name], atol=2e-6, err_msg=name)


def test_multibox_of_rows_adds_up(inputs):
    """Masked rows, and parts of a batch, change nothing but what they leave out."""
    whole = call(inputs, min_negatives=2)
    parts = [call(inputs, min_negatives=2, mask=np.arange(4) % 2 == i) for i in range(2)]
    np.testing.assert_allclose(metrics.add(*parts), whole, rtol=1e-6)
    nothing = call(inputs, min_negatives=2, mask=np.zeros(4, bool))
    np.testing.assert_array_equal(nothing, 0)


def test_multibox_of_images_without_objects_is_finite(inputs):
    empty = {**inputs, 'valid': np.zeros_like(inputs['valid'])}

    def total(offsets, least):
        loss = call({**empty, 'offsets': offsets}, min_negatives=least)
        return loss.localisation + loss.confidence

    assert total(inputs['offsets'], 0) == 0
    assert total(inputs['offsets'], 5) > 0
    for least in (0, 5):
        np.testing.assert_array_equal(jax.grad(total)(inputs['offsets'], least), 0)


def test_multibox_without_mining_takes_all_negatives(inputs):
    loss = call(inputs, negative_ratio=float('inf'))
    np.testing.assert_allclose(loss, multibox_by_loops(inputs, ratio=len(PRIORS), least=len(PRIORS)), rtol=2e-5)
    assert loss.positives + loss.negatives == 4 * len(PRIORS)


def test_priors_of_another_size_are_refused(inputs):
    with pytest.raises(UsageError, match='81 offsets and 81 scores per image do not fit 80 priors'):
        multibox_loss(
            inputs['offsets'], inputs['logits'], PRIORS[1:], *(inputs[k] for k in ('boxes', 'labels', 'valid'))
        )


def test_smooth_l1():
    errors = np.array([-3.0, -1, -0.2, 0, 0.05, 0.1, 2])
    np.testing.assert_allclose(losses.smooth_l1(errors), [2.5, 0.5, 0.02, 0, 0.00125, 0.005, 1.5], rtol=1e-6)
    np.testing.assert_allclose(losses.smooth_l1(errors, 0.1)[2:6], [0.15, 0, 0.0125, 0.05], rtol=1e-6)
    np.testing.assert_allclose(losses.smooth_l1(errors, 0), np.abs(errors), rtol=1e-6)
    slope = jax.grad(lambda e: losses.smooth_l1(e).sum())(jnp.array([-jnp.inf, -3, 0.25, jnp.inf]))
    np.testing.assert_array_equal(slope, [-1, -1, 0.25, 1])
    assert losses.smooth_l1(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32


# --- YOLO ------------------------------------------------------------------------------------------------------------

GRID, PREDICTORS, CLASSES = (4, 3), 2, 3


@pytest.fixture(scope='module')
def cells():
    """Three images with 5, 0 and 3 objects; the raw outputs of two predictors per cell."""
    rng = np.random.default_rng(1)
    objects = draw_objects(rng, (5, 0, 3), 6, CLASSES)
    objects['boxes'][0, 1] = objects['boxes'][0, 0] + [1, 1, -1, -1]  # two objects in one cell
    shape = (3, *GRID)
    raw = rng.uniform(0, 1, (*shape, PREDICTORS, 4))
    raw[2, ..., 2:] = 1e-3  # of the last image no box overlaps an object: the nearest predictor is responsible
    raw[2, ..., :2] = rng.uniform(2, 3, raw[2, ..., :2].shape)
    return objects, rng.uniform(-1, 1, (*shape, CLASSES)), rng.uniform(-1, 1, (*shape, PREDICTORS)), raw


def yolo_by_loops(objects, scores, confidence, raw, rescore=True, fixed=None):
    """Equation 3 over cells and predictors. `fixed`: outputs that the choice of predictors and their IoU come from."""
    fixed = raw if fixed is None else fixed
    rows, columns = GRID
    total = dict.fromkeys(('coordinates', 'confidence', 'background', 'classes'), 0.0)
    for b in range(len(raw)):
        truth = {}
        for box, label, valid in zip(*(objects[k][b] for k in ('boxes', 'labels', 'valid')), strict=True):
            x, y = (box[:2].astype(np.float64) + box[2:]) / 2 / SIZE
            cell = int(y * rows), int(x * columns)
            if valid and cell not in truth:
                w, h = (box[2:].astype(np.float64) - box[:2]) / SIZE
                truth[cell] = (x * columns - cell[1], y * rows - cell[0], w, h), label
        for cell in np.ndindex(*GRID):
            responsible = None
            if cell in truth:
                (x, y, w, h), label = truth[cell]

                def corners(x, y, w, h):
                    return x / columns - w / 2, y / rows - h / 2, x / columns + w / 2, y / rows + h / 2

                boxes = [(fx, fy, rw**2, rh**2) for fx, fy, rw, rh in fixed[b][cell]]
                overlaps = [overlap(corners(*box), corners(x, y, w, h)) for box in boxes]
                distances = [
                    np.linalg.norm([(fx - x) / columns, (fy - y) / rows, fw - w, fh - h]) for fx, fy, fw, fh in boxes
                ]
                responsible = int(np.argmax(overlaps) if max(overlaps) > 0 else np.argmin(distances))
                error = raw[b][cell][responsible] - np.array([x, y, np.sqrt(w), np.sqrt(h)])
                total['coordinates'] += 5 * (error**2).sum()
                target = overlaps[responsible] if rescore else 1
                total['confidence'] += (confidence[b][cell][responsible] - target) ** 2
                total['classes'] += ((scores[b][cell] - np.eye(CLASSES)[label]) ** 2).sum()
            for j in range(PREDICTORS):
                if j != responsible:
                    total['background'] += 0.5 * confidence[b][cell][j] ** 2
    return total


def yolo(objects, scores, confidence, raw, **options):
    truth = (objects[k] for k in ('boxes', 'labels', 'valid'))
    return jax.jit(partial(yolo_loss, size=(SIZE, SIZE), **options))(scores, confidence, raw, *truth)


@pytest.mark.parametrize('rescore', [True, False])
def test_yolo_against_loops(cells, rescore):
    loss = yolo(*cells, rescore=rescore)
    for name, value in yolo_by_loops(*cells, rescore=rescore).items():
        assert getattr(loss, name) == pytest.approx(value, rel=2e-5), name
    assert loss.images == 3
    assert loss.objects == 7  # one of the eight shares its cell


def test_yolo_gradient_by_finite_differences(cells):
    """The choice of predictors and their IoU are held, as in darknet."""
    objects, *outputs = cells
    parts = ('coordinates', 'confidence', 'background', 'classes')
    gradients = jax.grad(lambda outputs: sum(getattr(yolo(objects, *outputs), p) for p in parts))(outputs)
    rng = np.random.default_rng(2)
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(outputs[i].shape)

        def value(step, i=i, direction=direction):
            moved = [x + step * direction if j == i else x for j, x in enumerate(outputs)]
            return sum(yolo_by_loops(objects, *moved, fixed=outputs[2]).values())

        slope = (value(1e-4) - value(-1e-4)) / 2e-4  # exact but for rounding: the loss is quadratic
        assert (np.asarray(gradient, np.float64) * direction).sum() == pytest.approx(slope, rel=1e-4)


def test_yolo_of_images_without_objects_and_of_masked_rows(cells):
    objects, *outputs = cells
    empty = {**objects, 'valid': np.zeros_like(objects['valid'])}
    loss = yolo(empty, *outputs)
    np.testing.assert_allclose(loss.background, 0.5 * np.square(outputs[1]).sum(), rtol=1e-5)
    assert loss.coordinates == loss.confidence == loss.classes == loss.objects == 0
    whole = yolo(*cells)
    parts = [yolo(*cells, mask=np.arange(3) % 2 == i) for i in range(2)]
    np.testing.assert_allclose(metrics.add(*parts), whole, rtol=1e-5)
    gradient = jax.grad(lambda raw: yolo(empty, *outputs[:2], raw).coordinates)(outputs[2])
    np.testing.assert_array_equal(gradient, 0)


def test_centres_on_the_far_edge_are_in_the_last_cell():
    boxes = jnp.array([[[90.0, 90, 102, 102]]])
    cells = assign_cells(boxes, jnp.array([[2]]), jnp.array([[True]]), (SIZE, SIZE), GRID)
    assert np.argwhere(cells.present).tolist() == [[0, 3, 2]]
    assert cells.labels[0, 3, 2] == 2
    np.testing.assert_allclose(cells.boxes[0, 3, 2], [1, 1, 0.125, 0.125])


def test_outputs_of_two_grids_are_refused(cells):
    objects, scores, confidence, raw = cells
    with pytest.raises(UsageError, match='are not of one grid'):
        yolo(objects, scores, confidence[:, 1:], raw)
