"""A claim: predictions from several feature maps are better than from one (Liu et al. 2016, section 3.2, table 3).

    ./launch.sh sweep configs/claims/feature_scales.py
    ./launch.sh table runs/claims/feature_scales

The paper goes from 74.3 % mAP with six maps to 62.4 % with one. Removed maps leave the sizes of their priors to the
remaining ones there; here the two square priors of a place span the sizes that a single map has to cover.
"""

from configs.claims._claims import choose_form, sweep_forms
from configs.detection._recipes import SSD, scenes, small_ssd

# Stages of the backbone, channels of extra layers, and sides of the square priors relative to the image.
FORMS = {
    'strides 4 to 32': (('conv3', 'conv4', 'conv5'), (64,), (0.055, 0.11, 0.22, 0.42, 0.7)),
    'strides 8 and 16': (('conv4', 'conv5'), (), (0.07, 0.2, 0.55)),
    'stride 4': (('conv3',), (), (0.07, 0.5)),
    'stride 16': (('conv5',), (), (0.07, 0.5)),
}


def _model(name: str):
    stages, extras, sizes = FORMS[name]
    ratios = ((1.8,),) * (len(stages) + len(extras))
    return dict(small_ssd(), stages=stages, extras=extras, sizes=sizes, aspect_ratios=ratios)


def get_config(arg: str = ''):
    system = dict(SSD, threshold=0.4)
    easy = dict(height=96, width=96, sizes=(12, 48), most=6, clutter=3)
    first = next(iter(FORMS))
    steps = 200 if arg == 'smoke' else 400
    config = scenes(_model(first), system, steps, 0.1, num_examples=4096, test=256, source=easy)
    return choose_form(config, {name: dict(model=_model(name)) for name in FORMS})


def sweep():
    return sweep_forms(FORMS)


def pictures(runs):
    from experiments.claims.detection import PRECISION, draw_scores

    return {'scales': draw_scores(runs, lambda config: config['form'], PRECISION, 'feature maps of a narrow SSD')}
