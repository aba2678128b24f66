"""A claim: a ReLU after the bottleneck of an inverted residual destroys information (MobileNetV2, figure 6a).

./launch.sh sweep configs/claims/linear_bottleneck.py
./launch.sh table runs/claims/linear_bottleneck
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='mobilenet.mobilenet_v2', width_multiplier=0.35, dropout=0.0, bottleneck='linear')
    return claim(model, 0.01, steps=200 if arg == 'smoke' else 300, at_least=0.8)


def sweep():
    for bottleneck in ('linear', 'relu6'):
        for rate in (0.003, 0.01, 0.03):
            for seed in (0, 1):
                yield {'model.bottleneck': bottleneck, 'tx.momentum.learning_rate': rate, 'seed': seed}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    rate, panels = 'tx.momentum.learning_rate', {'training loss': 'train/loss'}
    return {
        'linear bottleneck': draw_best_forms(
            runs, 'model.bottleneck', rate, 'test/loss', panels, 'linear or ReLU6 bottleneck'
        )
    }
