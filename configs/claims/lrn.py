"""A claim: local response normalisation helps little (AlexNet: 1.2 % top-5) or not at all (VGG, section 4).

./launch.sh sweep configs/claims/lrn.py
./launch.sh table runs/claims/lrn
"""

from configs.claims._claims import claim


def get_config(arg: str = ''):
    model = dict(name='cuda_convnet.cifar10', activation='relu', norm='lrn')
    return claim(model, 0.01, steps=300, at_least=0.9)


def sweep():
    for norm in ('none', 'lrn'):
        for rate in (0.003, 0.01, 0.03):
            for seed in (0, 1):
                yield {'model.norm': norm, 'tx.momentum.learning_rate': rate, 'seed': seed}


def pictures(runs):
    from experiments.claims.classification import draw_best_forms

    rate, panels = 'tx.momentum.learning_rate', {'training loss': 'train/loss'}
    return {'lrn': draw_best_forms(runs, 'model.norm', rate, '1 - test/accuracy', panels, 'with and without LRN')}
