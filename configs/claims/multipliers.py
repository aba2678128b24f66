"""A claim: width and resolution trade multiply-adds for accuracy smoothly (MobileNet, tables 6 and 7, figure 4).

./launch.sh sweep configs/claims/multipliers.py
./launch.sh table runs/claims/multipliers
"""

from configs.claims._claims import claim

SIZES = ('data.train.transforms.resize.size', 'data.evals.test.transforms.resize.size')


def get_config(arg: str = ''):
    model = dict(name='mobilenet.mobilenet_v1', width_multiplier=0.25)
    return claim(model, 0.1, steps=200 if arg == 'smoke' else 300, at_least=0.8)


def sweep():
    for width in (0.0625, 0.125, 0.25, 0.5):
        for size in (32, 48, 64):  # the network takes no less than 32
            yield {'model.width_multiplier': width, **dict.fromkeys(SIZES, size)}


def pictures(runs):
    from experiments.claims.classification import count_multiply_adds, draw_costs

    form = ('model.width_multiplier', SIZES[0])
    args = (count_multiply_adds, '1 - test/accuracy', 'multiply-adds', 'width and resolution multipliers')
    return {'multipliers': draw_costs(runs, form, *args, line=SIZES[0])}
