"""Detectors by regions on a tiny network: what they learn against loops in float64, what they predict, and refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import metrics
from canon.data import Arrays, Once
from canon.data.transforms import letterbox
from canon.errors import UsageError
from canon.ops import boxes as box_ops
from canon.ops.anchors import make_anchors
from canon.tasks import detection as tasks
from canon.tasks.detection.regions import find_extents
from canon.train import At
from tests.quick import quick_jit
from tests.tasks.test_detection import NAMES, SIZE, make_batch

AT = At(jax.random.key(0), jnp.int32(0))
COUNTS = (2, 0, 3, 1)
# As many samples as there are anchors or proposals: nothing is drawn, so that losses can be computed by loops.
RPN = tasks.RPNSettings(
    per_image=200, positive_fraction=1.0, pre_nms=40, post_nms=20, test_pre_nms=40, test_post_nms=10, min_size=1.0
)
REGIONS = tasks.RegionSettings(per_image=60, positive_fraction=1.0)
DETECT = tasks.DetectionSettings(0.05, 0.5, per_class=10, max_detections=8)


class TinyRegions(nn.Module):
    """Two levels of cells of 16 and 32 pixels, batch-normalised colours, and one linear layer per output."""

    boxes_per_region: int = 4
    strides: tuple = (16, 32)

    def setup(self):
        self.norm = nn.BatchNorm()
        self.objectness, self.offsets = nn.Dense(2), nn.Dense(8)
        self.logits, self.refinement = nn.Dense(4), nn.Dense(4 * self.boxes_per_region)

    def extract(self, images, train=False):
        x = self.norm(images / 255, use_running_average=not train)
        return tuple(nn.avg_pool(x, (s, s), (s, s)) for s in self.strides)

    def propose(self, maps, train=False):
        rows = [x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps]
        objectness = tuple(self.objectness(x).reshape(x.shape[0], -1) for x in rows)
        return {'objectness': objectness, 'offsets': tuple(self.offsets(x).reshape(x.shape[0], -1, 4) for x in rows)}

    def classify(self, maps, boxes, image_size, train=False):
        colours = jnp.broadcast_to(maps[0].mean((1, 2))[:, None], (*boxes.shape[:2], 3))
        x = jnp.concatenate([boxes / image_size[0], colours], -1)
        return {'logits': self.logits(x), 'offsets': self.refinement(x).reshape(*boxes.shape[:2], -1, 4)}

    def anchors(self, height, width):
        return [make_anchors((height // s, width // s), s, (1.5 * s,), (0.7, 1.4)) for s in self.strides]

    def __call__(self, images, boxes=None, train=False):
        maps = self.extract(images, train)
        return self.propose(maps), self.classify(maps, boxes, images.shape[1:3])


def make_input(batch):
    return batch['image'].astype(jnp.float32)


# Where the four images lie on their canvas: mirrored after it was placed, cropped, in the middle, and in the corner.
PLACED = dict(
    placement=np.array([[np.nan] * 4, [3, 2, -40, -10], [0.1, 0.3, 7, 11], [1 / 3, 0.5, 0, 0]], np.float32),
    original_size=np.array([[50, 40], [90, 90], [150, 400], [80, 171]], np.int32),
)
EXTENTS = np.array([[0, 0, SIZE, SIZE], [0, 0, SIZE, SIZE], [7, 11, 47, 56], [0, 0, 57, 40]], np.float32)


def make_batch_of_regions(counts=COUNTS, **fields):
    batch = make_batch(counts, **fields)
    rng = np.random.default_rng(7)
    # Around the objects, some better than others, and anywhere.
    near = np.repeat(batch['boxes'], 3, 1) + rng.normal(0, 3, (len(counts), 12, 4)).astype(np.float32)
    corners = rng.uniform(0, 60, (len(counts), 8, 2)).astype(np.float32)
    anywhere = np.concatenate([corners, corners + 20], -1)
    batch['proposals'] = np.concatenate([near, anywhere, np.zeros((len(counts), 2, 4), np.float32)], 1)
    valid = np.concatenate([np.repeat(batch['valid'], 3, 1), np.ones((len(counts), 8), bool)], 1)
    batch['proposals_valid'] = np.pad(valid, ((0, 0), (0, 2)))
    return batch


MAKE = {
    'rpn': lambda model, **options: tasks.rpn_task(model, make_input, RPN, **options),
    'fast_rcnn': lambda model, **options: tasks.fast_rcnn_task(model, make_input, DETECT, REGIONS, **options),
    'faster_rcnn': lambda model, **options: tasks.faster_rcnn_task(model, make_input, DETECT, RPN, REGIONS, **options),
}


@pytest.fixture(scope='module')
def variables():
    task = MAKE['faster_rcnn'](TinyRegions())
    made = dict(quick_jit(task.init)(AT.key, make_batch_of_regions()))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32), made)


def split(variables):
    return variables['params'], {'batch_stats': variables['batch_stats']}


# --- the loss by loops ------------------------------------------------------------------------------------------------


def measure_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def encode(box, prior, variances):
    (w, h), (pw, ph) = box[2:] - box[:2], prior[2:] - prior[:2]
    x, y = ((box[:2] + box[2:]) - (prior[:2] + prior[2:])) / 2 / (pw, ph)
    return np.array([x, y, np.log(w / pw), np.log(h / ph)]) / variances


def sum_smooth_l1(errors, beta):
    errors = np.abs(errors)
    return np.where(errors < beta, errors**2 / 2 / beta, errors - beta / 2).sum()


def lose_anchors(objectness, offsets, anchors, objects, extents):
    """Mean over the anchors of one image that are learnt: Ren et al. 2015, section 3.1.2."""
    inside = [i for i, a in enumerate(anchors) if (a[:2] >= extents[:2]).all() and (a[2:] <= extents[2:]).all()]
    iou = {(i, j): measure_iou(anchors[i], box) for i in inside for j, box in enumerate(objects)}
    best = [max(iou[i, j] for i in inside) for j in range(len(objects))]
    total = count = 0
    for i in inside:
        row = [iou[i, j] for j in range(len(objects))]
        positive = any(x >= 0.7 or x == best[j] > 0 for j, x in enumerate(row))
        if not positive and max(row, default=0) >= 0.3:
            continue
        count += 1
        total += np.logaddexp(0, -objectness[i] if positive else objectness[i])
        if positive:
            target = encode(objects[int(np.argmax(row))], anchors[i], np.ones(4))
            total += sum_smooth_l1(offsets[i] - target, 1 / 9)
    return total / count


def lose_regions(classify, proposals, objects, labels, low=0.0):
    """(Sum over the proposals of one image and the objects' own boxes, their number): Girshick 2015, eq. 1."""
    total = count = 0
    for box in [*proposals, *objects]:
        row = [measure_iou(box, other) for other in objects]
        best = max(row, default=0)
        if best < low:
            continue
        count += 1
        positive, match = best >= 0.5, int(np.argmax(row)) if row else 0
        label = 1 + labels[match] if positive else 0
        logits, offsets = classify(box)
        total += np.log(np.exp(logits).sum()) - logits[label]
        if positive:
            target = encode(objects[match], box, (0.1, 0.1, 0.2, 0.2))
            total += sum_smooth_l1(offsets[label if len(offsets) > 1 else 0] - target, 1.0)
    return total, count


def reference(variables, batch, boxes_per_region, low):
    """Returns the losses of all three systems in float64, from the features and proposals of the network."""
    model = TinyRegions(boxes_per_region)
    params, mutable = split(variables)
    anchors = model.anchors(SIZE, SIZE)

    @quick_jit
    def propose():
        maps, _ = model.apply(variables, make_input(batch), train=True, method='extract', mutable=[*mutable])
        scored = model.apply(variables, maps, method='propose')
        return maps, scored, RPN.propose(scored, anchors, batch, train=True)

    maps, scored, (own, _, own_valid) = propose()
    objectness, offsets = (np.concatenate(scored[name], 1).astype(float) for name in ('objectness', 'offsets'))
    weights = jax.tree.map(lambda x: np.asarray(x, float), params)
    sums = {'rpn': [], 'fast_rcnn': [], 'faster_rcnn': []}
    for b in range(len(batch['image'])):
        objects, labels = (batch[k][b][batch['valid'][b]].astype(float) for k in ('boxes', 'labels'))
        colours = np.asarray(maps[0][b], float).mean((0, 1))

        def classify(box, colours=colours):
            x = np.concatenate([box / SIZE, colours])
            logits, moves = (x @ weights[n]['kernel'] + weights[n]['bias'] for n in ('logits', 'refinement'))
            return logits, moves.reshape(-1, 4)

        rpn = lose_anchors(objectness[b], offsets[b], np.concatenate(anchors).astype(float), objects, EXTENTS[b])
        given = batch['proposals'][b][batch['proposals_valid'][b]].astype(float)
        total, count = lose_regions(classify, np.asarray(own[b][own_valid[b]], float), objects, labels.astype(int), 0.0)
        sums['rpn'].append((rpn, 1))
        sums['faster_rcnn'].append((rpn + total / count, 1))
        sums['fast_rcnn'].append(lose_regions(classify, given, objects, labels.astype(int), low))
    return {name: np.sum(rows, 0) for name, rows in sums.items()}


@pytest.mark.parametrize('boxes_per_region', [4, 1])
def test_losses_against_loops(variables, boxes_per_region):
    """With boxes by class and with one for all; padded images, and one without objects, which is all background."""
    batch = make_batch_of_regions(**PLACED)
    params, mutable = split(variables)
    if boxes_per_region == 1:
        shared = {'kernel': params['refinement']['kernel'][:, :4], 'bias': params['refinement']['bias'][:4]}
        params = {**params, 'refinement': shared}
    expected = reference({'params': params, **mutable}, batch, boxes_per_region, low=0.1)
    model = TinyRegions(boxes_per_region)
    low = tasks.RegionSettings(per_image=60, positive_fraction=1.0, background_low=0.1)
    made = {
        'rpn': MAKE['rpn'](model),
        'faster_rcnn': MAKE['faster_rcnn'](model),
        'fast_rcnn': tasks.fast_rcnn_task(model, make_input, DETECT, low),
    }
    for name, task in made.items():
        loss, _ = quick_jit(task.loss)(params, mutable, batch, AT)
        np.testing.assert_allclose([loss.total, loss.weight], expected[name], rtol=2e-5, err_msg=name)


@pytest.mark.parametrize('system', MAKE)
def test_losses_add_over_rows_and_masks(system, variables):
    """Rows that are masked contribute nothing, whatever they hold; metrics of training add as well."""
    batch = make_batch_of_regions()
    task = MAKE[system](TinyRegions(), freeze_features=True)  # statistics of a batch do not add

    @quick_jit
    def evaluate(mask):
        loss, (_, shown) = task.loss(*split(variables), {**batch, 'mask': mask}, AT)
        return {'loss': loss, **shown}

    whole = evaluate(np.ones(4, bool))
    halves = [evaluate(np.arange(4) // 2 == i) for i in range(2)]
    for name, total in metrics.add(*halves).items():
        np.testing.assert_allclose(total, whole[name], rtol=1e-5, err_msg=name)
    nothing = evaluate(np.zeros(4, bool))
    assert float(nothing['loss'].total) == float(nothing['loss'].weight) == 0


def test_no_gradient_flows_through_proposals(variables):
    """The second stage alone does not move what proposes; frozen features do not move at all."""
    params, mutable = split(variables)
    batch = make_batch_of_regions()

    def differentiate(**options):
        task = MAKE['faster_rcnn'](TinyRegions(), **options)

        def lose(p):
            loss, (changed, _) = task.loss(p, mutable, batch, AT)
            return loss.total, changed

        gradient, changed = quick_jit(jax.grad(lose, has_aux=True))(params)
        moved = {name: any(np.abs(x).max() > 0 for x in jax.tree.leaves(part)) for name, part in gradient.items()}
        statistics = zip(jax.tree.leaves(changed), jax.tree.leaves(mutable), strict=True)
        return moved, any((new != old).any() for new, old in statistics)

    rest = {'logits': True, 'refinement': True}
    assert differentiate(rpn_weight=0.0) == (dict(norm=True, objectness=False, offsets=False, **rest), True)
    frozen = dict(norm=False, objectness=False, offsets=False, **rest)
    assert differentiate(rpn_weight=0.0, freeze_features=True) == (frozen, False)


def test_sampling_is_a_function_of_the_key(variables):
    few = tasks.RPNSettings(per_image=8, pre_nms=40, post_nms=20)
    task = tasks.rpn_task(TinyRegions(), make_input, few)
    loss = quick_jit(lambda key: task.loss(*split(variables), make_batch_of_regions(), At(key, jnp.int32(0)))[0].total)
    first, again, other = (float(loss(jax.random.key(seed))) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize('system', ['fast_rcnn', 'faster_rcnn'])
def test_empty_batches_and_images_smaller_than_all_anchors(system, variables):
    """Neither room for objects nor an anchor inside the image: losses, gradients and predictions stay finite."""
    batch = make_batch_of_regions(counts=(0, 0))
    small = {**batch, 'image': batch['image'][:, :32, :32]}
    roomless = {**small, **{k: batch[k][:, :0] for k in ('boxes', 'labels', 'valid', 'difficult', 'crowd')}}
    degenerate = {**small, 'boxes': np.full((2, 4, 4), 7, np.float32), 'valid': np.ones((2, 4), bool)}
    task = MAKE[system](TinyRegions())
    params, mutable = split(variables)

    @quick_jit
    def differentiate(batch):
        def lose(p):
            loss = task.loss(p, mutable, batch, AT)[0]
            return loss.total / jnp.maximum(loss.weight, 1)

        return jax.value_and_grad(lose)(params)

    for case in (small, roomless, degenerate):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(differentiate(case)))
    found = quick_jit(task.predict)(params, mutable, roomless)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


# --- predictions ------------------------------------------------------------------------------------------------------


def test_images_without_a_known_place_fill_their_canvas():
    batch = make_batch_of_regions(**PLACED)
    np.testing.assert_array_equal(find_extents(batch), EXTENTS)
    for field in PLACED:
        alone = {name: batch[name] for name in batch if name != field}
        np.testing.assert_array_equal(find_extents(alone), [[0, 0, SIZE, SIZE]] * 4)


@pytest.mark.parametrize('system', MAKE)
def test_boxes_end_with_the_image_and_not_with_its_canvas(system, variables):
    batch = make_batch_of_regions(**PLACED)
    params, mutable = split(variables)
    # Large boxes: most of them reach beyond their image.
    params = jax.tree.map(lambda x: x, params)
    params['offsets']['bias'] += np.array([0, 0, 1, 1] * 2, np.float32)
    params['refinement']['bias'] += np.array([0, 0, 8, 8] * 4, np.float32)
    task = MAKE[system](TinyRegions())
    found = quick_jit(task.predict)(params, mutable, batch)
    found = {name: np.asarray(values) for name, values in found.items()}
    for boxes, valid, extents in zip(found['boxes'], found['valid'], EXTENTS, strict=True):
        assert (boxes[valid] >= extents[[0, 1, 0, 1]]).all()
        assert (boxes[valid] <= extents[[2, 3, 2, 3]]).all()
        assert valid.any()
    assert all((found['boxes'][i] == EXTENTS[i])[found['valid'][i]].any() for i in (2, 3))


class PerfectRegions:
    """Proposes every object and classifies it rightly, with the box of its class; outputs are the parameters."""

    def __init__(self, table=None):
        self.table = table

    def apply(self, variables, images, method, **options):
        return method(PerfectRegions(variables['params']), images)

    def extract(self, images, train=False):
        return ()

    def propose(self, maps, train=False):
        return {name: (self.table[name],) for name in ('objectness', 'offsets')}

    def classify(self, maps, boxes, image_size, train=False):
        distance = jnp.abs(boxes[:, :, None] - self.table['boxes'][:, None]).sum(-1)  # [B, R, M]
        nearest = distance.argmin(-1)
        label = jnp.where(distance.min(-1) < 12, 1 + jnp.take_along_axis(self.table['labels'], nearest, 1), 0)
        target = jnp.take_along_axis(self.table['boxes'], nearest[..., None], 1)
        one_hot = jax.nn.one_hot(label, 4)
        return {
            'logits': 20 * one_hot,
            'offsets': box_ops.encode_offsets(target, boxes)[:, :, None] * one_hot[..., None],
        }

    def anchors(self, height, width):
        return [make_anchors((height // 8, width // 8), 8, (24,), (1.0,))]


def learn(batch):
    """The parameters of a perfect network: the objectness of an anchor is its IoU with an object."""
    (anchors,) = PerfectRegions().anchors(SIZE, SIZE)
    iou = box_ops.pairwise_iou(anchors, batch['boxes']) * batch['valid'][:, None]
    nearest = np.asarray(iou.argmax(-1))
    boxes = np.take_along_axis(batch['boxes'], nearest[..., None], 1)
    off = (iou.max(-1) < 0.3)[..., None]
    offsets = np.where(off, 0, box_ops.encode_offsets(np.where(off, anchors, boxes), anchors, (1, 1, 1, 1)))
    # A few pixels beside the object: the second stage has something to refine.
    offsets = offsets + np.where(off, 0, 0.05).astype(np.float32)
    far = np.where(batch['valid'][..., None], batch['boxes'], 1e4)
    table = dict(objectness=10 * iou.max(-1) - 5, offsets=offsets, boxes=far, labels=batch['labels'])
    return jax.tree.map(jnp.asarray, table)


def test_a_perfect_network_has_full_marks():
    """Faster R-CNN on its own proposals, Fast R-CNN on given ones, and the recall of a region proposal network."""
    batch = make_batch_of_regions()
    params, model = learn(batch), PerfectRegions()
    rpn = tasks.RPNSettings(test_pre_nms=100, test_post_nms=30, min_size=1.0)
    faster = tasks.faster_rcnn_task(model, make_input, DETECT, rpn)
    for name, task in {'own': faster, 'given': tasks.fast_rcnn_task(model, make_input, DETECT)}.items():
        found = quick_jit(task.predict)(params, {}, batch)
        assert {k: (x.shape, str(x.dtype)) for k, x in found.items()} == {
            'boxes': ((4, 8, 4), 'float32'),
            'scores': ((4, 8), 'float32'),
            'labels': ((4, 8), 'int32'),
            'valid': ((4, 8), 'bool'),
        }
        assert found['valid'].sum(1).tolist() == list(COUNTS), name
        evaluator = tasks.detection_evaluator(lambda *_, found=found: found, None, NAMES)
        scores = evaluator.finish(evaluator.measure(params, {}, batch))
        assert scores['map50'] == pytest.approx(1, abs=1e-5), name
        assert scores['mean_iou'] == pytest.approx(1, abs=1e-5), name
    task = tasks.rpn_task(model, make_input, rpn)
    evaluator = tasks.make_evaluator(
        'rpn', quick_jit(task.predict), None, NAMES, tasks.DetectionEvaluation(split='test')
    )
    recall = evaluator.finish(evaluator.measure(params, {}, batch))
    assert recall['recall_10'] == recall['recall_300'] == 1
    assert 0.6 < recall['average_recall_300'] < 1  # they are beside the objects


def test_recall_counts_the_best_proposals_only():
    """One object is covered by the first proposal, one by the eleventh, and one half of an IoU is not enough."""
    boxes = np.array([[[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [0, 0, 0, 0]]], np.float32)
    found = np.zeros((1, 12, 4), np.float32)
    found[0, 0], found[0, 10], found[0, 11] = (0, 0, 10, 9), (20, 20, 30, 30), (40, 40, 50, 44.9)
    batch = dict(boxes=boxes, valid=np.array([[True, True, True, False]]), mask=np.ones(1, bool))
    batch |= dict(crowd=np.zeros((1, 4), bool), difficult=np.zeros((1, 4), bool))
    evaluator = tasks.proposal_evaluator(lambda *_: dict(boxes=found, valid=np.ones((1, 12), bool)), None, (10, 12))
    recall = evaluator.finish(evaluator.measure(None, None, batch))
    assert recall['recall_10'] == pytest.approx(1 / 3)
    assert recall['recall_12'] == pytest.approx(2 / 3)
    assert recall['average_recall_10'] == pytest.approx(0.9 / 3)  # an IoU of 0.9 passes nine of ten thresholds
    assert recall['average_recall_12'] == pytest.approx(1.9 / 3)


def test_proposals_of_a_network_are_in_pixels_of_the_images():
    """Images of 30x60 in a letterbox of 32: what fills its middle is the whole image. Three images, two per batch."""
    images = np.random.default_rng(0).integers(0, 256, (3, 30, 60, 3), np.uint8)
    box, seen = np.array([0, 8, 32, 24], np.float32), []

    def predict(params, mutable, batch):
        boxes = jnp.tile(box, (2, 4, 1)) - jnp.array([0, 0, 8, 0]) * jnp.arange(4)[:, None]
        return dict(boxes=boxes, scores=jnp.ones((2, 4)), labels=jnp.zeros((2, 4), int), valid=boxes[..., 2] > 15)

    batches = Once(Arrays({'image': images}), 2, (tasks.record_image(), letterbox(32)), threads=0)
    found = tasks.compute_network_proposals(predict, {}, {}, batches.iterate(), 'rpn', seen.append)
    assert seen == [1, 2, 3]
    for image in images:
        expected = [[0, 0, 60, 30], [0, 0, 45, 30], [0, 0, 30, 30]]
        np.testing.assert_allclose(found.find(image), expected, atol=1e-4)


def test_what_is_refused(variables):
    batch = make_batch_of_regions()
    del batch['proposals']
    task = MAKE['fast_rcnn'](TinyRegions())
    for call in (lambda: task.loss(*split(variables), batch, AT), lambda: task.predict(*split(variables), batch)):
        with pytest.raises(UsageError, match="reads the proposals of a batch, 'proposals'"):
            call()
    for system in MAKE:
        with pytest.raises(UsageError, match='3 classes: set it to 4, one more for the background'):
            tasks.check_num_classes(system, 3, NAMES)
    with pytest.raises(UsageError, match=r'system\.threshold: rpn_task takes no such key'):
        tasks.make_system('rpn', dict(threshold=0.5), dict(model=None, make_input=None, settings=DETECT))
