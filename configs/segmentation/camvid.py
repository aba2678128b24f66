"""A fully convolutional network on CamVid (Brostow et al. 2009): street scenes of 240x180, 11 classes, from scratch.

    tar xf camvid_240x180.tar -C /data
    ./launch.sh run configs/segmentation/camvid.py --config.data.source.path=/data/CamVid

The folder has `train`, `trainannot`, `val`, `valannot`, `test` and `testannot`, as in the tutorial of SegNet: 367, 101
and 233 images; label 11 is void.

Measured on 2 CPU cores shared with other jobs: mean IU 51.7 % and pixel accuracy 84.7 % on the test images, 61.4 % and
90.3 % on the validation images, after 25 minutes of training and 31 in all. `:smoke` is the same recipe on scenes of
one digit.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.segmentation._recipes import KEEP, scenes

CLASSES = (
    'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist'
)  # fmt: skip


def get_config(arg: str = '') -> ConfigDict:
    model = dict(
        name='fcn.skip_fcn',
        backbone=dict(name='resnet.resnet18', width=0.5),  # half of the channels
        strides=(2, 4, 8, 16, 32),  # of the stages that are fused: poles and signs are a few pixels wide
        channels=32,  # of the fused maps
        dropout=0.1,  # before the scores
    )
    plain = dict(chain=('keep_fields',), keep_fields=KEEP)
    augmented = dict(
        chain=('keep_fields', 'random_affine', 'random_flip', 'colour_jitter'),
        keep_fields=KEEP,
        random_affine=dict(scale=(0.75, 1.6), translate=0.15, fill=110),  # what enters is void
        colour_jitter=dict(brightness=0.3, contrast=0.3, saturation=0.3),
    )
    config = scenes(model, 1300, 0.4, rate=0.015, batch_size=8)
    config.data.name = 'label_maps'
    config.data.source = dict(
        path=placeholder(str),  # the folder CamVid, or an uncompressed tar of it
        class_names=CLASSES,
        void=(11,),  # what has none of the classes
    )
    config.data.train = dict(split='train', sampler='shuffled', transforms=augmented)
    config.data.evals = dict(
        test=dict(split='test', transforms=plain, flip=True),  # flip: averages over the mirror image
        validation=dict(split='val', transforms=plain, flip=True),  # chooses the checkpoint
    )
    config.input = dict(mean=(0.41, 0.42, 0.43), std=(0.3, 0.31, 0.31))  # of the pixels in [0, 1]
    config.model.num_classes = len(CLASSES)
    config.loss.balance = 0.5  # exponent of the classes' weights, median frequency / frequency
    with config.unlocked():
        config.tx.chain = ('clip', 'muon', 'ema')
        config.tx.ema = dict(decay=0.99)  # the averaged weights are evaluated
        config.predict.shorter_side = 180  # photographs of any size are labelled at the size of the training images
        config.run.evals = dict(test=dict(every='50%'), validation=dict(every='20%'))
        config.run.checkpoint = dict(every='10%', best='validation/mean_iu', mode='max')
    return _shrink(config) if arg == 'smoke' else config


def _shrink(config: ConfigDict) -> ConfigDict:
    """Returns the recipe on scenes of one light digit: a mild augmentation, average and choice of weights."""
    easy: dict[str, Any] = dict(height=48, width=48, sizes=(18, 36), most=1, clutter=0, colours='light')
    small = scenes({}, 1000, 0.4, **easy)
    config.model.num_classes, config.target = 11, small.target
    config.model.backbone.width = 0.25
    config.tx.ema.decay = 0.9  # averages over tens of steps
    with config.unlocked():
        config.data.name, config.data.source = small.data.name, small.data.source
        config.data.batch_size, config.run.steps = small.data.batch_size, small.run.steps
        # Mirrored and strongly scaled digits would take thousands of steps.
        chain = config.data.train.transforms
        chain.chain = ('keep_fields', 'random_affine', 'colour_jitter')
        chain.random_affine.scale, chain.random_affine.translate = (0.9, 1.1), 0.05
        config.data.train.split = 'train[:90%]'
        config.data.evals.test.update(dict(split='test[:256]', flip=False))
        config.data.evals.validation.update(dict(split='train[90%:]', flip=False))
    return config
