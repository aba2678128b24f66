"""Faster R-CNN with a feature pyramid on photographs of blood cells: BCCD, 364 images, three classes.

    ./launch.sh run configs/detection/bccd_faster_rcnn.py --config.data.source.path=bccd.tar

The data, the splits and the augmentation are those of `bccd.py`, whose detector is an SSD, and so is the ResNet-18 of
3/8 of the width, from scratch. `:smoke` takes scenes of digits instead.

Measured on 2 CPU cores: mAP 89.8 % on the 72 test images in 62 minutes next to two other jobs, 42 of CPU time;
`:smoke`, 92.6 % on digits in 4:02 next to another training.
"""

from configs.detection import bccd
from configs.detection._two_stages import FASTER_RCNN, small_faster_rcnn, small_sections


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    config = bccd.get_config(arg)
    pyramid = dict(
        name='feature_pyramid.feature_pyramid',
        backbone=dict(name='resnet.resnet18', width=0.375),  # share of the channels
        min_stride=4,  # of the finest level; the others are 8, 16, 32 and 64
        channels=64,  # of every level; 256 in the paper
        batch_norm=True,
    )
    model = small_faster_rcnn(
        num_classes=11 if smoke else 4,  # with the background
        backbone=pyramid,
        # Of images of 192x256: platelets have sides of 15 pixels, red cells of 40, white cells of 75.
        anchor_sizes=((12, 17), (24, 34), (40, 52), (70, 90), (110, 140)),
        aspect_ratios=(0.75, 1.33),  # heights over widths: cells are about round
        canonical_size=80.0,  # regions of 80 pixels are pooled from the level of stride 16
    )
    with config.unlocked():
        config.model, config.system = {'dtype': None, **model}, dict(FASTER_RCNN)
        config.update(small_sections())
        if not smoke:
            config.rpn.update(dict(foreground=0.7, per_image=256, min_size=4.0, pre_nms=400, post_nms=200))
            config.regions.per_image = 96  # up to 28 cells per image
            config.run.steps, config.target.at_least = 4000, 0.8
    if smoke:
        config.run.steps = 400
    return config
