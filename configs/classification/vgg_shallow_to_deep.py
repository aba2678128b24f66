"""VGG D initialised from a trained A, as section 3.1 of Simonyan & Zisserman 2015 trains the deeper nets.

    ./launch.sh run configs/classification/vgg_shallow_to_deep.py      # ImageNet; `:imagenette` is its ten classes

First A is trained, then D: A's first four convolutions and its three fully connected layers initialise D's, whose other
layers are drawn at random. Both use the recipe of `vgg.py`. Kernels are drawn from N(0, 0.01^2) as in Caffe: with the
variance of 1e-2 that the paper prints, white noise gives logits of 2.6e6 in A. Not run here: ImageNet is not available.
`:smoke` trains both on the digits, at an eighth of the width, with He's initialisation, 300 steps each: A reaches 96.67
%, D 94.17 % of the held-out digits, in two minutes of CPU time.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.classification import vgg

ARGUMENTS = vgg.ARGUMENTS
# `canon.models.vgg.SHALLOW_TO_DEEP`: all but A's first four convolutions and the fully connected layers.
NEW = r'^(?!(batch_stats/)?((conv|bn)(1_1|2_1|3_1|3_2)|fc[678])/)'


def get_config(arg: str = ''):
    config = vgg.get_config(arg)
    config.experiment = 'staged'
    config.model.std = 0.01
    if arg == 'smoke':
        config.model = dict(
            name='vgg.vgg16', num_classes=10, width=0.125, init='he', dropout=0.2, dtype=placeholder(str)
        )
        config.tx = dict(name='adam', learning_rate=dict(name='cosine', init=1e-3, final=0.0, steps='100%'))
        config.run.steps = 300
    config.stages = ConfigDict(
        dict(
            experiment='classification',
            chain=('A', 'D'),
            A=dict(model=dict(name='vgg.vgg11')),
            D=dict(run=dict(init_from=dict(new=NEW))),
        )
    )
    return config
