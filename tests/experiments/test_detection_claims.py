"""The claims of detection: figures from runs that are written by hand, and what their last stages measure."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import plots
from canon.configuration import apply_form, make_stage_config
from canon.data.detection.proposals import ProposalSet, digest_image, make_proposer, write_proposals
from canon.ops import boxes as box_ops
from canon.tasks.detection import timing
from canon.tasks.detection.timing import PARTS
from canon.train.artefacts import Artefacts
from canon.train.runs import find_runs
from configs.claims.region_scales import SCALES
from configs.claims.region_systems import FORMS
from configs.claims.softmax_svm import SCORES
from experiments import configs, detection, detection_timing, images, proposal_recall, regions
from experiments.claims.detection import ERRORS, PRECISION
from launch.sweep import read_points
from tests.experiments.test_claims import write_run

CLAIMS = {
    'ssd_yolo': ['ssd', 'yolo'],
    'hard_negatives': ['3 per positive', 'all negatives'],
    'iou_crops': ['crops', 'no crops'],
    'pyramid_levels': ['pyramid, strides 4 to 32', 'one map, stride 8', 'one map, stride 16'],
    'region_crops': ['warp, 0 pixels', 'warp, 4 pixels', 'square, 0 pixels', 'square, 4 pixels'],
    'softmax_svm': ['mAP at 0.5'],
    'multi_task': ['multi-task', 'stage-wise'],
    'feature_scales': ['strides 4 to 32', 'strides 8 and 16', 'stride 4', 'stride 16'],
}


@pytest.mark.parametrize('claim', CLAIMS)
def test_every_form_of_a_sweep_has_its_bars(claim, root, tmp_path):
    file = f'{root}/configs/claims/{claim}.py'
    points = read_points(file)
    for number, point in enumerate(points):
        config = configs.load(file)
        config.update_from_flattened_dict(point)
        metrics = {name: 0.1 * (number + 1) for name in (*PRECISION, *ERRORS, *SCORES)}
        write_run(tmp_path / str(number), config.to_dict(), metrics)
        (tmp_path / str(number) / 'run.json').write_text(json.dumps(dict(config=claim, overrides=point)))
    for figure in configs.load_module(file).pictures(find_runs(tmp_path)).values():
        figure.canvas.draw()
        (axes,) = figure.axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == CLAIMS[claim]
        # The bar of the first form, of which the points come first, is the median of its seeds.
        seeds = sum({**point, 'seed': 0} == {**points[0], 'seed': 0} for point in points)
        assert axes.patches[0].get_height() == pytest.approx(0.05 * (1 + seeds))


@pytest.mark.parametrize(('claim', 'names'), [('region_systems', FORMS), ('region_scales', tuple(SCALES.values()))])
def test_parts_of_the_time_are_stacked_in_the_order_of_the_forms(claim, names, root, tmp_path):
    file = f'{root}/configs/claims/{claim}.py'
    points = read_points(file)
    assert len(points) == len(names)
    for number, point in enumerate(points):
        times = {f'test/seconds_{part}': (number + 1) * 10.0**-i for i, part in enumerate(PARTS)}
        folder = tmp_path / str(9 - number)  # not in the order in which runs are found
        write_run(folder, {}, {**times, 'test/map50': 0.2 + 0.1 * number})
        (folder / 'run.json').write_text(json.dumps(dict(config=claim, overrides=point)))
    (figure,) = configs.load_module(file).pictures(find_runs(tmp_path)).values()
    figure.canvas.draw()
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == list(names)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(PARTS)
    for number in range(len(names)):
        bars = left.patches[number :: len(names)]  # of all parts of a form
        assert [bar.get_width() / (number + 1) for bar in bars] == pytest.approx([1, 0.1, 0.01])
        assert [bar.get_x() / (number + 1) for bar in bars] == pytest.approx([0, 1, 1.1])
        assert right.patches[number].get_width() == pytest.approx(0.2 + 0.1 * number)
    assert left.texts[0].get_text() == '1.11 = 1 + 0.1 + 0.01'


def test_the_systems_have_the_same_backbone_and_scenes_and_end_with_the_same_stage(root):
    config, seen, shared = configs.load(f'{root}/configs/claims/region_systems.py'), [], []
    for name in FORMS:
        config.form = name
        applied = apply_form(config)
        assert not {'form', 'forms'} & set(applied)  # a stage would take the form's sections for its own
        assert applied.stages.chain[-1] == 'timing'
        last = make_stage_config(applied, 'timing')
        seen.append((last.model.name.partition('.')[2], 'proposals' in applied.stages.chain))
        shared.append([last.model.backbone, last.model['units'], last.data.source, last.data.evals])
    assert all(sections == shared[0] for sections in shared)
    assert seen == [('rcnn', True), ('spp_net', True), ('fast_rcnn', True), ('faster_rcnn', False)]


@pytest.mark.parametrize('form', ['Fast R-CNN', 'Faster R-CNN'])
def test_the_networks_of_the_claim_are_timed_part_by_part(form, root, monkeypatch):
    """Traced and not computed, but for the search."""
    config = configs.load(f'{root}/configs/claims/region_systems.py')
    config.form = form
    last = make_stage_config(apply_form(config), 'timing')
    model, _ = regions.make_network(last)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 128, 128, 3)))
    monkeypatch.setattr(regions, 'read_variables', lambda stages, name: {'detector': shapes}[name])
    monkeypatch.setattr(timing.jax, 'device_put', lambda values: values)
    monkeypatch.setattr(timing.backend, 'jit', lambda function: functools.partial(jax.eval_shape, function))
    fields = {'image': np.zeros((1, 128, 128, 3), np.uint8)}
    parts = []
    for part, compute in detection_timing._make_steps(last, {}):
        fields |= compute(fields)
        parts.append(part)
    searched = form == 'Fast R-CNN'
    assert parts == [*(['proposals', 'features'] if searched else ['features', 'proposals']), 'features', 'heads']
    count = 300 if searched else 100
    assert fields['proposals'].shape == (1, count, 4)
    assert fields['features'].shape == (1, count, 256)
    assert fields['detections']['boxes'].shape == (1, 100, 4)


def test_proposals_are_compared_by_recall_and_by_the_map_of_one_network(root, tmp_path, monkeypatch):
    """Of a network that knows the objects: those of the test are the third to fifth proposals of the one method."""
    config = configs.load(f'{root}/configs/claims/proposals.py:smoke')
    with config.unlocked():
        config.data.source = dict(num_examples=16, height=64, width=64, sizes=(16, 32), most=3)
        config.data.objects.most, config.data.evals.test.split = 3, 'test[:4]'
        config.compared.update(stages=('search', 'windows'), counts=(2, 8, 40))
    last = make_stage_config(config, 'recall')
    windows, stages = make_proposer('sliding_windows', sides=(20.0,), max_boxes=12), {}
    for stage in last.compared.stages:
        stages[stage] = tmp_path / stage
        (stages[stage] / 'artefacts').mkdir(parents=True)
        for name, split in (('train', last.data.train.split), ('test', 'test[:4]')):
            source = images.load_images(last, split)
            examples = [source[i] for i in range(len(source))]
            boxes = [windows(example['image']) for example in examples]
            if stage == 'search':
                rows = zip(boxes, examples, strict=True)
                boxes = [np.concatenate([own[:2], example['boxes'], own[2:]]) for own, example in rows]
            digests = [digest_image(example['image']) for example in examples]
            made = ProposalSet('{}', digests, [len(own) for own in boxes], np.concatenate(boxes))
            write_proposals(stages[stage] / 'artefacts' / f'{name}.npz', made)
    known = [np.concatenate([example[field] for example in examples]) for field in ('boxes', 'labels')]

    def predict(params, mutable, batch):
        iou = box_ops.pairwise_iou(batch['proposals'], known[0])
        found = dict(boxes=batch['proposals'], scores=iou.max(-1), labels=jnp.asarray(known[1])[iou.argmax(-1)])
        return {**found, 'valid': batch['proposals_valid']}

    make_stage = detection.make_stage

    def make_knowing(config, stages):
        made = make_stage(config, stages)
        return made._replace(task=made.task._replace(predict=predict))

    monkeypatch.setattr(detection, 'make_stage', make_knowing)
    monkeypatch.setattr(regions, 'read_variables', lambda stages, name: {'detector': {'params': {}}}[name])
    (tmp_path / 'own').mkdir()
    metrics = proposal_recall.compute(last, stages, Artefacts(tmp_path / 'own' / 'artefacts', str, bool))
    for measure in ('recall', 'map50'):
        assert metrics[f'test/{measure}_search_8'] == pytest.approx(1)
        assert metrics[f'test/{measure}_search_40'] == pytest.approx(1)
        # The same two windows: the objects have no part in it.
        assert metrics[f'test/{measure}_search_2'] == metrics[f'test/{measure}_windows_2'] < 0.9
    assert (tmp_path / 'own' / 'figures' / 'test recall.png').exists()


def test_scores_that_are_missing_are_left_out():
    figure = plots.draw_form_scores({'a': {'x': [0.5, np.nan], 'y': [np.nan]}, 'b': {'x': [0.25], 'y': [1.0]}})
    figure.canvas.draw()
    assert [patch.get_height() for patch in figure.axes[0].patches] == [0.5, 0, 0.25, 1]
