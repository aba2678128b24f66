"""A fully convolutional network on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/segmentation/digit_scenes.py

Scenes of 0 to 12 digits of 8 to 64 pixels in clutter; a class for each digit and one for the ground.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='segmentation',
            seed=0,
            data=dict(
                name='digit_scenes',
                source=dict(target='segmentation', num_examples=2048 if smoke else 8192),
                reading=dict(threads=2, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=16,
                train=dict(
                    split='train',
                    sampler='shuffled',
                    transforms=dict(chain=('keep_fields',), keep_fields=dict(fields=('image', 'segmentation'))),
                ),
                evals=dict(
                    test=dict(
                        split='test[:256]',
                        transforms=dict(chain=('keep_fields',), keep_fields=dict(fields=('image', 'segmentation'))),
                    )
                ),
            ),
            input=dict(mean=0.45, std=0.25),  # of pixels in [0, 1]
            model=dict(
                name='fcn.skip_fcn',
                num_classes=11,
                backbone=dict(name='resnet.resnet18', width=0.5),
                strides=(2, 4, 8, 16, 32),
                channels=None,
                dropout=0.0,
                dtype=placeholder(str),
            ),
            loss=dict(reduction='mean', balance=0.0, label_smoothing=0.0),
            tx=dict(
                chain=('clip', 'adamw'),
                clip=dict(name='clip_by_global_norm', max_norm=5.0),
                adamw=dict(
                    weight_decay=1e-2,
                    learning_rate=dict(
                        name='warmup', steps='5%', then=dict(name='cosine', init=3e-3, final=0.0, steps='95%')
                    ),
                ),
            ),
            predict=dict(shorter_side=placeholder(int), multiple=32, flip=False),
            run=dict(
                steps='500 steps' if smoke else '5000 steps',
                log_every='50 steps',
                evals=dict(test=dict(every='250 steps' if smoke else '1000 steps')),
                checkpoint=dict(every='250 steps' if smoke else '1000 steps'),
            ),
            target=dict(metric='test/mean_iu', at_least=0.6, ci=True),
        )
    )
