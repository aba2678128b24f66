"""A claim: two 3x3 convolutions have the field of one 5x5, with fewer weights and one more activation.

VGG, section 2.3, where the deeper net has the lower error.

    ./launch.sh sweep configs/claims/two_3x3.py
    ./launch.sh table runs/claims/two_3x3
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='cuda_convnet.cifar10', activation='relu', kernels='3x3 3x3')
    return claim(model, 0.01, steps=300, at_least=0.9)


def sweep():
    for kernels in ('5x5', '3x3 3x3'):
        for rate in (0.003, 0.01, 0.03):
            for seed in (0, 1):
                yield {'model.kernels': kernels, 'tx.momentum.learning_rate': rate, 'seed': seed}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    rate, panels = 'tx.momentum.learning_rate', {'training loss': 'train/loss'}
    return {'two 3x3': draw_best_forms(runs, 'model.kernels', rate, '1 - test/accuracy', panels, 'one 5x5 or two 3x3')}
