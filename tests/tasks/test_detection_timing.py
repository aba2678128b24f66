"""Detectors that are timed part by part: the parts are those of their tasks, and seconds add up part by part."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.data.detection.proposals import make_proposer
from canon.tasks import detection as tasks
from canon.tasks.detection import timing
from canon.tasks.detection.proposal_evaluation import score_proposal_counts
from canon.tasks.detection.region_detection import RegionSelection
from tests.quick import quick_jit, quick_programs
from tests.tasks.test_region_tasks import (
    AT,
    DETECT,
    PLACED,
    REGIONS,
    RPN,
    TinyRegions,
    make_batch_of_regions,
    make_input,
)


class TinyParts(TinyRegions):
    """The same network, whose second stage is in two parts."""

    def describe(self, maps, boxes, image_size, train=False):
        colours = jnp.broadcast_to(maps[0].mean((1, 2))[:, None], (*boxes.shape[:2], 3))
        return jnp.concatenate([boxes / image_size[0], colours], -1)

    def score(self, features):
        offsets = self.refinement(features).reshape(*features.shape[:2], -1, 4)
        return {'logits': self.logits(features), 'offsets': offsets}


@pytest.mark.parametrize('system', ['faster_rcnn', 'fast_rcnn'])
def test_the_steps_of_a_network_detect_what_its_task_predicts(system):
    """On images that lie somewhere on their canvases, one by one."""
    batch = make_batch_of_regions(**PLACED)
    own = system == 'faster_rcnn'
    shared = TinyParts(), make_input
    task = (
        tasks.faster_rcnn_task(*shared, DETECT, RPN, REGIONS) if own else tasks.fast_rcnn_task(*shared, DETECT, REGIONS)
    )
    variables = dict(quick_jit(task.init)(AT.key, batch))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32), variables)
    with quick_programs():
        steps = timing.make_network_steps(*shared, variables, DETECT, REGIONS, RPN if own else None)
        expected_parts = ['features', 'proposals', 'features', 'heads'] if own else ['features', 'features', 'heads']
        assert [part for part, _ in steps] == expected_parts
        images = [{name: values[i : i + 1] for name, values in batch.items()} for i in range(4)]
        measured = timing.time_detector(steps, images, warm_up=1)
    mutable = {'batch_stats': variables['batch_stats']}
    predicted = quick_jit(task.predict)(variables['params'], mutable, batch)
    assert predicted['valid'].any()
    for i, row in enumerate(measured.rows.each()):
        assert row['detections']['valid'].tolist() == predicted['valid'][i].tolist()
        valid = np.asarray(predicted['valid'][i])
        for name in ('scores', 'labels'):
            np.testing.assert_allclose(row['detections'][name][valid], predicted[name][i][valid], rtol=1e-5)
    assert all(len(values) == 4 and (values > 0).all() for part, values in measured.seconds.items() if own)


def test_seconds_are_added_by_part_and_the_first_call_is_not_among_them(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])
    compiled = set()

    def make_step(part, name, seconds):
        def compute(fields):
            assert list(fields)[-1] != name  # a step gets what the earlier ones have made
            clock[0] += seconds * float(fields['image'].mean()) + (1000 if name not in compiled else 0)
            compiled.add(name)
            return {name: np.zeros(1)} if name != 'detections' else {name: nothing}

        return part, compute

    nothing: dict[str, Any] = dict(boxes=np.zeros((1, 0, 4)), scores=np.zeros((1, 0)), labels=np.zeros((1, 0), int))
    nothing['valid'] = np.zeros((1, 0), bool)
    objects = dict(boxes=np.zeros((1, 0, 4)), labels=np.zeros((1, 0), int), valid=np.zeros((1, 0), bool))
    batches = [dict(objects, image=np.full((1, 2, 2, 3), scale), image_id=np.array([scale])) for scale in (1, 2, 9)]
    order = [('features', 'maps', 1), ('proposals', 'boxes', 2), ('features', 'x', 4), ('heads', 'detections', 8)]
    done = []
    measured = timing.time_detector([make_step(*step) for step in order], batches, 1, done.append)
    assert done == [1, 2, 3]
    assert {part: values.tolist() for part, values in measured.seconds.items()} == {
        'proposals': [2, 4, 18],
        'features': [5, 10, 45],
        'heads': [8, 16, 72],
    }
    assert measured.summarise() == {
        'seconds_proposals': 4,
        'seconds_features': 10,
        'seconds_heads': 16,
        'seconds_per_image': 30,
    }
    assert len(list(measured.rows.each())) == 3


@pytest.mark.parametrize('found', [7, 3, 0])
def test_svms_score_the_proposals_of_the_search_alone(found):
    """As many as were found, at most those that are taken, without the padding."""
    windows = make_proposer('sliding_windows', sides=(12.0,), aspect_ratios=(1.0,))
    boxes = windows(np.zeros((32, 48, 3), np.uint8))[:found]
    search = timing.make_search_step(lambda image: boxes if image.shape == (32, 48, 3) else None, 5)

    def describe(image, regions):
        np.testing.assert_array_equal(regions, boxes[:5])
        return {'fc7': regions.sum(1, keepdims=True)}

    steps = timing.make_svm_steps(
        describe,
        lambda layers: np.concatenate([layers['fc7'] / 200, 0 * layers['fc7']], 1),
        lambda own, layers: np.stack([own, own + 1], 1),
        RegionSelection(score_threshold=1e-3, iou_threshold=1.0),
    )
    fields: dict[str, Any] = {'image': np.zeros((1, 32, 48, 3), np.uint8)}
    for part, step in [search, *steps]:
        assert part in timing.PARTS
        fields |= step(fields)
    detections = fields['detections']
    order = np.argsort(-boxes[:5].sum(1), kind='stable')
    np.testing.assert_array_equal(detections['boxes'][0], boxes[:5][order])
    assert detections['labels'].tolist() == [[0] * min(found, 5)]
    assert detections['valid'].all()


def test_the_map_of_the_first_proposals():
    """The object of the second image is covered by its third proposal alone."""
    boxes = np.array([[[0, 0, 10, 10]], [[20, 20, 40, 40]]], np.float32)
    proposals = np.zeros((2, 6, 4), np.float32)
    proposals[0, 0], proposals[1, :3] = (0, 0, 10, 10), [(0, 0, 9, 9), (50, 50, 60, 60), (20, 20, 40, 41)]
    valid = np.arange(6) < np.array([[1], [3]])
    batch: dict[str, Any] = dict(
        boxes=boxes, labels=np.zeros((2, 1), int), valid=np.ones((2, 1), bool), image_id=np.arange(2)
    )
    batch |= dict(image=np.zeros((2, 64, 64, 3), np.uint8), proposals=proposals, proposals_valid=valid)
    sizes = []

    def detect(inputs):
        sizes.append(inputs['proposals'].shape[1])
        shown = np.broadcast_to(np.array([0.5, 0.4, 0.9, 0.1, 0.1, 0.1]), (2, 6))[:, : sizes[-1]]
        labels = np.zeros(shown.shape, int)
        return dict(boxes=inputs['proposals'], scores=shown, labels=labels, valid=inputs['proposals_valid'])

    scores = score_proposal_counts(detect, [batch], (1, 2, 4, 5, 6), 1)
    # Two detections of equal score are in the order of the images: half of the objects, at a precision of 1.
    np.testing.assert_allclose(scores, [0.5, 0.5, 1.0, 1.0, 1.0])
    assert sizes == [1, 2, 4]  # no image has more than three
