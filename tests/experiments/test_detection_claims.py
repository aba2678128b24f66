"""The figures of the claims of detection, from runs that are written by hand."""

import json

import numpy as np
import pytest

from canon import plots
from canon.train.runs import find_runs
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


def test_scores_that_are_missing_are_left_out():
    figure = plots.draw_form_scores({'a': {'x': [0.5, np.nan], 'y': [np.nan]}, 'b': {'x': [0.25], 'y': [1.0]}})
    figure.canvas.draw()
    assert [patch.get_height() for patch in figure.axes[0].patches] == [0.5, 0, 0.25, 1]
