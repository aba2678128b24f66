"""A claim: SVMs on the features of R-CNN are better than its own classes (Girshick et al. 2014, appendix B).

    ./launch.sh sweep configs/claims/softmax_svm.py
    ./launch.sh table runs/claims/softmax_svm

The paper: 50.9 % mAP with the softmax that fine-tuning has trained, 54.2 % with SVMs. Fast R-CNN, whose softmax learns
from negatives that it samples anew in each step, finds the softmax slightly better (Girshick 2015, section 5.4). Every
run of R-CNN reports both, and what the regression of boxes adds. Two seeds on few and large digits: equal here, 75 %.
"""

from configs.detection import rcnn_digits

SCORES = {
    'test/map50_softmax': 'softmax',
    'test/map50_svm': 'SVMs',
    'test/map50': 'SVMs, regressed boxes',
}


def get_config(arg: str = ''):
    return rcnn_digits.get_config('smoke')


def sweep():
    for seed in (0, 1):
        yield {'seed': seed}


def pictures(runs):
    from experiments.claims.detection import draw_scores

    return {'scores': draw_scores(runs, lambda config: 'mAP at 0.5', SCORES, 'R-CNN on scenes of digits')}
