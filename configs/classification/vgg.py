"""VGG (Simonyan & Zisserman 2015) on ImageNet, as section 3.1 of the paper trains it; `:imagenette` on its ten classes.

    ./launch.sh run configs/classification/vgg.py                       # D; --config.model.name=vgg.vgg19 is E

SGD, batch 256, momentum 0.9, weight decay 5e-4, learning rate 0.01 divided by 10 when the validation accuracy stops
improving, 370,000 iterations (74 epochs); scale jitter in [256, 512], mirroring, PCA colour noise; dropout 0.5. Tested
densely: the fully connected layers slide over the whole image, at one scale and at three, with mirror images. Published
for D: 25.6 % top-1 and 8.1 % top-5 error at one scale, 24.8 and 7.5 % at three. Not run here: ImageNet is not
available. The paper initialises deeper nets from A (`vgg_shallow_to_deep.py`). Kernels are drawn from N(0, 0.01^2) as
in Caffe.
"""

from configs.classification._recipes import CAFFE, data_set, momentum, one_crop, recipe, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    config = recipe(
        name=data_set(arg),
        batch_size=256,
        train=dict(
            chain=('decode', 'scale_jitter', 'random_flip', 'pca_noise'),
            scale_jitter=dict(size=224, low=256, high=512),  # a random shorter side, then a random crop of 224
        ),
        evals=dict(
            validation=dict(one_crop(384, 384), flip=True),
            multi_scale=dict(one_crop(512, 512), scales=(256, 384, 512), flip=True),
        ),
        input=CAFFE,
        # dense: the fully convolutional form, which evaluates images of any size from 224.
        model=dict(name='vgg.vgg16', dropout=0.5, dense=True, std=0.01),
        tx=momentum(0.01, 5e-4, plateau=dict(metric='withheld/accuracy', mode='max', patience=3)),
        run=dict(steps=370_000, log_every=100, eval_every='1 epoch'),
        target=dict(metric='multi_scale/accuracy', at_least=0.752),
    )
    config.run.evals.multi_scale.every = '37 epochs'
    if arg == 'smoke':
        return smoke(
            config,
            size=32,
            batch_size=32,
            steps=600,
            model=dict(dense=False, width=0.125, dropout=0.2, init='he'),
            at_least=0.85,
        )
    return config
