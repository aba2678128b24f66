"""BN-Inception (Ioffe & Szegedy 2015) on ImageNet, at 1, 5 and 30 times the learning rate; also `:imagenette`.

    ./launch.sh sweep configs/classification/bn_inception.py            # BN-Baseline, BN-x5, BN-x30 of section 4.2.2

SGD with momentum 0.9, batch 32 on each of the paper's replicas, 256 here; the learning rate is 0.0015, 0.0075 or 0.045
and falls 6 times as fast as Inception's: 4 % after every 8 / 6 epochs. No dropout, no LRN, a fifth of the weight decay,
less photometric distortion (section 4.2.1). Published top-1 accuracy: 72.7, 73.0 and 74.8 %. Not run here: ImageNet is
not available.
"""

from configs.classification._recipes import IMAGENET, data_set, momentum, one_crop, recipe, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    # BN-x5; the sweep has the other rates. 8 / 6 epochs is six times as often as GoogLeNet's 8.
    rate = dict(name='exponential', init=0.0075, decay=0.96, steps='1.3333 epochs', staircase=True)
    config = recipe(
        name=data_set(arg),
        batch_size=256,
        train=dict(chain=('decode_random_resized_crop', 'random_flip'), decode_random_resized_crop=dict(size=224)),
        evals=dict(validation=one_crop(224, 256)),
        input=IMAGENET,
        model=dict(name='inception.bn_inception'),
        tx=momentum(rate, 4e-5),  # a fifth of GoogLeNet's weight decay
        run=dict(steps='60 epochs', log_every=100, eval_every='1 epoch'),
        target=dict(metric='validation/accuracy', at_least=0.73),
    )
    if arg == 'smoke':
        config.tx.momentum.learning_rate.init = 0.045
        return smoke(config, size=64, batch_size=32, steps=200, model={}, at_least=0.9)
    return config


def sweep():
    """Yields BN-Baseline, BN-x5 and BN-x30."""
    for times in (1, 5, 30):
        yield {'tx.momentum.learning_rate.init': 0.0015 * times}
