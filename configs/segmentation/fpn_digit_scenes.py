"""FCN's skips on a feature pyramid (Lin et al. 2017), on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/segmentation/fpn_digit_scenes.py

The scenes, the loss and the ResNet-18 are those of `digit_scenes.py`, where the maps of strides 2 to 16 are the
backbone's. Here the scores of strides 4 to 32 are of a pyramid, whose finest map knows what the coarsest one sees.

Measured on 2 CPU cores: `:smoke`, mean IU 63.4 % in 12:37 next to other trainings; `digit_scenes.py` has 63.1 %. The
full recipe has not been run; its target is that of `digit_scenes.py`.
"""

from configs.segmentation import digit_scenes


def get_config(arg: str = ''):
    config = digit_scenes.get_config(arg)
    config.model.backbone = dict(
        name='feature_pyramid.feature_pyramid',
        backbone=dict(name='resnet.resnet18', width=0.5),  # half of the channels
        min_stride=4,  # of the finest level; ResNet's own stage of stride 2 is one convolution
        channels=64,  # of every level; 256 in the paper
        top=None,  # no level after the backbone's last
        batch_norm=True,  # not in the paper: the network starts from scratch
    )
    config.model.strides = (4, 8, 16, 32)
    return config
