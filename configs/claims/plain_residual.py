"""A claim: a plain network of 56 layers trains worse than one of 20, a residual one does not (ResNet, figure 6).

./launch.sh sweep configs/claims/plain_residual.py
./launch.sh table runs/claims/plain_residual
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='resnet.resnet20_cifar', plain=False)
    return claim(model, 0.05, steps=150 if arg == 'smoke' else 300, at_least=0.8, size=16)


def sweep():
    for layers in (20, 56):
        for plain in (False, True):
            for rate in (0.02, 0.1):
                name = f'resnet.resnet{layers}_cifar'
                yield {'model.name': name, 'model.plain': plain, 'tx.momentum.learning_rate': rate}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    form, rate = ('model.name', 'model.plain'), 'tx.momentum.learning_rate'
    panels = {'training error': '1 - train/accuracy', 'training loss': 'train/loss'}
    return {
        'plain and residual': draw_best_forms(
            runs, form, rate, 'test/loss', panels, '20 and 56 layers, with and without shortcuts'
        )
    }
