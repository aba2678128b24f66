"""ResNet-20 to 1202 (He et al. 2016, section 4.2) on CIFAR-10; `:cifar100` on CIFAR-100.

    ./launch.sh prepare cifar10
    ./launch.sh sweep configs/classification/resnet_cifar.py             # 20, 32, 44, 56, 110 layers

SGD, batch 128, momentum 0.9, weight decay 1e-4, learning rate 0.1 divided by 10 at 32,000 and 48,000 of 64,000
iterations; images padded by 4, cropped to 32, mirrored. Published test errors for 20 to 110 layers: 8.75, 7.51, 7.17,
6.97, 6.43 % (110 layers warm up at 0.01 until the training error is below 80 %, about 400 iterations). Not run here:
CIFAR is not available.
"""

from configs.classification._recipes import IMAGENET, data_set, momentum, recipe, smoke

ARGUMENTS = ('smoke', 'cifar100')


def get_config(arg: str = ''):
    rate = dict(name='step_decay', init=0.1, steps=('50%', '75%'))  # divided by 10 at each
    config = recipe(
        name=data_set(arg, own='cifar10'),
        batch_size=128,
        train=dict(chain=('random_crop', 'random_flip'), random_crop=dict(size=32, padding=4)),  # the paper's only ones
        evals=dict(test={}),
        input=IMAGENET,
        model=dict(name='resnet.resnet20_cifar'),
        tx=momentum(rate, 1e-4),
        run=dict(steps=64_000, log_every=100, eval_every='1 epoch'),
        target=dict(metric='test/accuracy', at_least=0.9125 if arg != 'cifar100' else 0.65),
    )
    if arg == 'smoke':
        return smoke(config, size=32, batch_size=32, steps=300, model={}, at_least=0.95)
    return config


def sweep():
    """Yields the paper's depths except 1202."""
    for layers in (20, 32, 44, 56, 110):
        yield {'model.name': f'resnet.resnet{layers}_cifar'}
