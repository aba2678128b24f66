"""A claim: YOLO locates worse than SSD and misses small objects (Liu et al. 2016, section 3.1; Redmon et al., 4.2).

    ./launch.sh sweep configs/claims/ssd_yolo.py
    ./launch.sh table runs/claims/ssd_yolo

YOLO has one object for each cell of 8 pixels, and predicts from one map; SSD has priors of several shapes from stride 4
on. Both narrow networks have the same backbone, and see the same scenes for the same number of steps.
"""

from configs.claims._claims import choose_form, sweep_forms
from configs.detection._recipes import SSD, YOLO, scenes, small_ssd, small_yolo


def get_config(arg: str = ''):
    ssd = dict(SSD, threshold=0.4, min_negatives=3)
    easy = dict(sizes=(12, 64), most=6, clutter=3)
    config = scenes(small_ssd(), ssd, 200 if arg == 'smoke' else 500, 0.1, num_examples=4096, test=256, source=easy)
    forms = dict(
        ssd=dict(model=small_ssd(), system=ssd),
        yolo=dict(model=small_yolo(), system=YOLO),
    )
    return choose_form(config, forms)


def sweep():
    return sweep_forms(('ssd', 'yolo'))


def pictures(runs):
    from experiments.claims.detection import ERRORS, PRECISION, draw_scores

    title = 'SSD and YOLO on scenes of digits'
    return {
        'precision': draw_scores(runs, lambda config: config['form'], PRECISION, title),
        'errors': draw_scores(runs, lambda config: config['form'], ERRORS, f'{title}: what the detections are'),
    }
