"""GoogLeNet (Szegedy et al. 2015) on ImageNet; `:imagenette` on its ten classes.

    ./launch.sh run configs/classification/googlenet.py

Section 6 of the paper: SGD with momentum 0.9, the learning rate 4 % lower after every 8 epochs, Polyak averaging, crops
of 8 to 100 % of the area with aspect ratios of 3/4 to 4/3, photometric distortions; two auxiliary classifiers with
weight 0.3. The rest follows Caffe's bvlc_googlenet: batch 32, learning rate 0.01, weight decay 2e-4, 60 epochs.
Published: 10.07 % top-5 error with one network and one crop, 7.89 % with 144 crops. Not run here: ImageNet is not
available.
"""

from configs.classification._recipes import CAFFE, data_set, momentum, one_crop, recipe, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    rate = dict(name='exponential', init=0.01, decay=0.96, steps='8 epochs', staircase=True)
    tx = momentum(rate, 2e-4)
    config = recipe(
        name=data_set(arg),
        batch_size=32,
        train=dict(
            chain=('decode_random_resized_crop', 'random_flip', 'colour_jitter'),
            decode_random_resized_crop=dict(size=224),
        ),
        # 'crops' is the 144-crop test of section 7.
        evals=dict(validation=one_crop(224, 256), crops=dict(transforms=dict(chain=('decode', 'googlenet_crops')))),
        input=CAFFE,
        model=dict(name='googlenet.googlenet', dropout=0.4),
        tx=dict(tx, chain=(*tx['chain'], 'ema'), ema=dict(decay=0.9999)),  # evaluated are the averaged weights
        run=dict(steps='60 epochs', log_every=100, eval_every='1 epoch'),
        target=dict(metric='validation/top5_accuracy', at_least=0.899),
        loss=dict(
            label_smoothing=0.0,
            auxiliary=0.3,  # weight of each auxiliary classifier
        ),
    )
    config.run.evals.crops.every = '30 epochs'
    if arg == 'imagenette':
        config.target = dict(metric='validation/accuracy', at_least=0.9)
    if arg == 'smoke':
        config = smoke(config, size=64, batch_size=32, steps=400, model=dict(width=0.5), at_least=0.9)
        config.input.std = CAFFE['std']  # without normalisation layers, smaller inputs vanish in the first half
    return config
