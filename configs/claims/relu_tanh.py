"""A claim: a network of ReLUs reaches 25 % training error several times sooner than one of tanh (AlexNet, figure 1).

./launch.sh sweep configs/claims/relu_tanh.py
./launch.sh table runs/claims/relu_tanh
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='cuda_convnet.cifar10', activation='relu')
    return claim(model, 0.01, steps=300, at_least=0.9, log_every=5)


def sweep():
    for activation in ('relu', 'tanh', 'sigmoid'):
        for rate in (0.001, 0.003, 0.01, 0.03, 0.1):
            yield {'model.activation': activation, 'tx.momentum.learning_rate': rate}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    panels = {'training error': '1 - train/accuracy', 'training loss': 'train/loss'}
    rate = 'tx.momentum.learning_rate'
    figure = draw_best_forms(
        runs, 'model.activation', rate, 'test/loss', panels, 'ReLU, tanh and sigmoid, each at its best rate'
    )
    figure.axes[1].axhline(0.25, color='k', linestyle=':', linewidth=1)
    return {'relu and tanh': figure}
