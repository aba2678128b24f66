"""Claims: batch normalisation tolerates much higher learning rates, and makes sigmoid networks trainable.

ReLU stays better (Ioffe & Szegedy 2015, sections 3.3 and 4.2.2).

    ./launch.sh sweep configs/claims/batch_norm.py
    ./launch.sh table runs/claims/batch_norm
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='cuda_convnet.cifar10', activation='relu', norm='batch')
    return claim(model, 0.03, steps=200, at_least=0.9)


def sweep():
    for activation in ('relu', 'sigmoid'):
        for norm in ('none', 'batch'):
            for rate in (0.003, 0.03, 0.3, 3.0):
                yield {'model.activation': activation, 'model.norm': norm, 'tx.momentum.learning_rate': rate}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    form, rate = ('model.activation', 'model.norm'), 'tx.momentum.learning_rate'
    panels = {'training loss': 'train/loss'}
    return {
        'batch normalisation': draw_best_forms(
            runs, form, rate, 'test/loss', panels, 'with and without batch normalisation'
        )
    }
