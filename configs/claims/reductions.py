"""A claim: 1x1 reductions make an Inception module several times cheaper at no loss of accuracy (GoogLeNet, figure 2).

Section 4: the naive module passes on all channels of its pooling branch, so each module costs more than the previous
one.

    ./launch.sh sweep configs/claims/reductions.py
    ./launch.sh table runs/claims/reductions
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='googlenet.googlenet', variant='torchvision', auxiliary=False, width=0.25, reductions=True)
    return claim(model, 0.02, steps=200 if arg == 'smoke' else 300, at_least=0.8)


def sweep():
    for reductions in (True, False):
        for width in (0.125, 0.25):
            for seed in (0, 1):
                yield {'model.reductions': reductions, 'model.width': width, 'seed': seed}


def pictures(runs):
    from experiments.claims.classification import count_multiply_adds, draw_costs

    form = ('model.width', 'model.reductions')
    args = (
        count_multiply_adds,
        '1 - test/accuracy',
        'multiply-adds',
        'inception modules with and without 1x1 reductions',
    )
    return {'reductions': draw_costs(runs, form, *args, line='model.reductions')}
