"""A claim: depthwise separable convolutions cost 8 to 9 times less than full ones at little loss (MobileNet, table 4).

./launch.sh sweep configs/claims/separable.py
./launch.sh table runs/claims/separable
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='mobilenet.mobilenet_v1', width_multiplier=0.25, separable=True)
    return claim(model, 0.1, steps=200 if arg == 'smoke' else 300, at_least=0.8)


def sweep():
    for separable in (True, False):
        for width in (0.125, 0.25):
            for seed in (0, 1):
                yield {'model.separable': separable, 'model.width_multiplier': width, 'seed': seed}


def pictures(runs):
    from experiments.claims.classification import count_multiply_adds, draw_costs

    form = ('model.width_multiplier', 'model.separable')
    args = (count_multiply_adds, '1 - test/accuracy', 'multiply-adds', 'depthwise separable and full convolutions')
    return {'separable': draw_costs(runs, form, *args, line='model.separable')}
