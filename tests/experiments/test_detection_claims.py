"""The figures of the claims of detection, from runs that are written by hand."""

import json

import numpy as np
import pytest

from canon import plots
from canon.configuration import apply_form, make_stage_config
from canon.tasks.detection.timing import PARTS
from canon.train.runs import find_runs
from configs.claims.region_scales import SCALES
from configs.claims.region_systems import FORMS
from configs.claims.softmax_svm import SCORES
from experiments import configs
from experiments.claims.detection import ERRORS, PRECISION
from launch.sweep import read_points
from tests.experiments.test_claims import write_run

CLAIMS = {
    'ssd_yolo': ['ssd', 'yolo'],
    'hard_negatives': ['1 per positive', '3 per positive', '10 per positive', 'all negatives'],
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
    for number, point in enumerate(read_points(file)):
        config = configs.load(file)
        config.update_from_flattened_dict(point)
        metrics = {name: 0.1 * (number + 1) for name in (*PRECISION, *ERRORS, *SCORES)}
        write_run(tmp_path / str(number), config.to_dict(), metrics)
        (tmp_path / str(number) / 'run.json').write_text(json.dumps(dict(config=claim, overrides=point)))
    for figure in configs.load_module(file).pictures(find_runs(tmp_path)).values():
        figure.canvas.draw()
        (axes,) = figure.axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == CLAIMS[claim]
        # The bar of the first form is the median of its two seeds.
        assert axes.patches[0].get_height() == pytest.approx(0.15)


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
        shared.append([last.model.backbone, last.model['units'], last.data.source, last.data.evals, last.run.steps])
    assert all(sections == shared[0] for sections in shared)
    assert seen == [('rcnn', True), ('spp_net', True), ('fast_rcnn', True), ('faster_rcnn', False)]


def test_scores_that_are_missing_are_left_out():
    figure = plots.draw_form_scores({'a': {'x': [0.5, np.nan], 'y': [np.nan]}, 'b': {'x': [0.25], 'y': [1.0]}})
    figure.canvas.draw()
    assert [patch.get_height() for patch in figure.axes[0].patches] == [0.5, 0, 0.25, 1]
