"""A claim: regions that are warped, with some context around them, are classified best (Girshick et al. 2014, app. A).

    ./launch.sh sweep configs/claims/region_crops.py
    ./launch.sh table runs/claims/region_crops

The paper: warping with 16 of 227 pixels of context is 3 to 5 points of mAP better than its alternatives. Here R-CNN on
few and large digits, regions of 32 pixels; all of its stages are run for each form. mAP, means of two seeds: warped
with 4 pixels of context 75.1 %, without 72.0; squares 67.4 and 70.9.
"""

from configs.detection import rcnn_digits

FORMS = {(form, context): f'{form}, {context} pixels' for form in ('warp', 'square') for context in (0, 4)}


def get_config(arg: str = ''):
    return rcnn_digits.get_config('smoke')


def sweep():
    for form, context in FORMS:
        for seed in (0, 1):
            yield {'crop.form': form, 'crop.context': context, 'seed': seed}


def pictures(runs):
    from experiments.claims.detection import ERRORS, PRECISION, draw_scores

    def name(config):
        return FORMS[config['overrides']['crop.form'], config['overrides']['crop.context']]

    title = 'regions of R-CNN by form and context'
    return {
        'precision': draw_scores(runs, name, PRECISION, title),
        'errors': draw_scores(runs, name, ERRORS, f'{title}: what the detections are'),
    }
