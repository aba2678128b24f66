"""A claim: learning classes and boxes together is better than one after the other (Girshick 2015, section 5.1).

    ./launch.sh sweep configs/claims/multi_task.py
    ./launch.sh table runs/claims/multi_task

A first run learns with and without the loss of the boxes; a second one trains the layer of the boxes alone on what the
first has learnt. Both forms end with that second run, so that they differ only in what the features, and the classes,
are learnt from: the paper's stage-wise and multi-task training (table 6). mAP of one seed 88.9 % together and 87.8 %
stage-wise, COCO's AP 58.6 and 50.0 %.
"""

from configs.detection._two_stages import FASTER_RCNN, digits, small_faster_rcnn

WEIGHT = 'stages.learn.regions.localisation_weight'


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    config = digits(small_faster_rcnn(), FASTER_RCNN, 300, 0.1, smoke=True)
    with config.unlocked():
        config.experiment = 'staged'
        config.stages = dict(
            experiment='detection',
            chain=('learn', 'refine'),
            learn=dict(regions=dict(localisation_weight=1.0), run=dict(steps=200 if smoke else 600)),
            refine=dict(
                system=dict(rpn_weight=0.0, freeze_features=True),
                tx=dict(chain=(*config.tx.chain, 'freeze'), freeze=dict(where='^(?!offsets/)')),  # all but the boxes
                run=dict(init_from=dict(stage='learn', new='^offsets/'), steps=60 if smoke else 150),
            ),
        )
    return config


def sweep():
    for weight in (1.0, 0.0):
        for seed in (0, 1):
            yield {WEIGHT: weight, 'seed': seed}


def pictures(runs):
    from experiments.claims.detection import ERRORS, PRECISION, draw_scores

    def name(config):
        return 'stage-wise' if config['overrides'][WEIGHT] == 0 else 'multi-task'

    title = 'classes and boxes, scenes of digits'
    return {
        'precision': draw_scores(runs, name, PRECISION, title),
        'errors': draw_scores(runs, name, ERRORS, f'{title}: what the detections are'),
    }
