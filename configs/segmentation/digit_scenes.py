"""A fully convolutional network on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/segmentation/digit_scenes.py

Scenes of 0 to 12 digits of 8 to 64 pixels in clutter; a class for each digit and one for the ground. Strokes are one to
eight pixels wide, so the skips go down to stride 2: FCN-8s, with scores of stride 8, cannot show most of them.

Not in the paper: a narrow VGG-11 from scratch with BatchNorm and Muon, and fused maps instead of scores. Networks tell
the ground from digits within 50 steps; with Adam they were no better than chance at which digit it is after 900.

Measured on 2 CPU cores: `:smoke`, 1,500 steps on 64x64 pixels, a mean IU of 63.1 % in 2:31. The full recipe has not
been run.
"""

from typing import Any

from configs.segmentation._recipes import scenes


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    model = dict(
        name='fcn.skip_fcn',
        backbone=dict(name='vgg.vgg11', width=0.25, batch_norm=True, init='he'),  # width: share of the channels
        strides=(2, 4, 8, 16),  # of the stages that are fused, coarse to fine
        channels=32,  # of the fused maps; None adds scores, as the paper
    )
    # Fewer and larger digits than the default (8 to 64 pixels, up to 12, 6 shapes of clutter) on smaller scenes.
    easy: dict[str, Any] = dict(height=64, width=64, sizes=(20, 48), most=3, clutter=2)
    small = easy if smoke else {}
    config = scenes(model, 1500 if smoke else 5000, 0.6, num_examples=4096 if smoke else 8192, **small)
    config.loss.balance = 0.5  # exponent of the classes' weights: nine of ten pixels are ground
    return config
