"""A claim: a feature pyramid finds small objects that one map misses (Lin et al. 2017, section 5).

    ./launch.sh sweep configs/claims/pyramid_levels.py
    ./launch.sh table runs/claims/pyramid_levels

The paper finds small objects to gain most, for proposals as for detections. Here all networks are narrow, from scratch,
and have the same VGG-11; on one map all sizes of anchors are at each of its places. mAP of two seeds: 88.8 and 87.3 %
with the pyramid, 68.6 and 66.7 % on a map of stride 8, 23.1 and 25.8 % on one of stride 16.
"""

from configs.claims._claims import choose_form, sweep_forms
from configs.detection._two_stages import FASTER_RCNN, digits, small_faster_rcnn, small_single_level

FORMS = {
    'pyramid, strides 4 to 32': small_faster_rcnn(),
    'one map, stride 8': small_single_level(8),
    'one map, stride 16': small_single_level(16),
}


def get_config(arg: str = ''):
    first = next(iter(FORMS.values()))
    config = digits(first, FASTER_RCNN, 200 if arg == 'smoke' else 600, 0.1, smoke=True)
    return choose_form(config, {name: dict(model=model) for name, model in FORMS.items()})


def sweep():
    return sweep_forms(FORMS)


def pictures(runs):
    from experiments.claims.detection import PRECISION, draw_scores

    return {'levels': draw_scores(runs, lambda config: config['form'], PRECISION, 'Faster R-CNN on scenes of digits')}
