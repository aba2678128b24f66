"""A claim: with all negatives the background drowns the objects; the hardest three per positive are better (SSD, 2.2).

    ./launch.sh sweep configs/claims/hard_negatives.py
    ./launch.sh table runs/claims/hard_negatives

Liu et al. 2016, section 2.2: "this leads to faster optimization and a more stable training". A ratio of 1000 takes all
of the 3,060 priors of an image with four matched ones.
"""

from configs.detection._recipes import SSD, scenes, small_ssd


def get_config(arg: str = ''):
    system = dict(SSD, threshold=0.4, negative_ratio=3.0)
    easy = dict(height=96, width=96, sizes=(12, 48), most=6, clutter=3)
    return scenes(small_ssd(), system, 200 if arg == 'smoke' else 400, 0.1, num_examples=4096, test=256, source=easy)


def sweep():
    for ratio in (3.0, 1000.0):
        yield {'system.negative_ratio': ratio}


def pictures(runs):
    from experiments.claims.detection import ERRORS, PRECISION, draw_scores

    def name(config):
        ratio = config['system']['negative_ratio']
        return 'all negatives' if ratio >= 1000 else f'{ratio:g} per positive'

    title = 'negatives per positive, scenes of digits'
    return {
        'precision': draw_scores(runs, name, PRECISION, title),
        'errors': draw_scores(runs, name, ERRORS, f'{title}: what the detections are'),
    }
