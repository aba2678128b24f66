"""A fully convolutional network on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/segmentation/digit_scenes.py

Scenes of 0 to 12 digits of 8 to 64 pixels in clutter; a class for each digit and one for the ground.
"""

from configs.segmentation._recipes import scenes


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    model = dict(
        name='fcn.skip_fcn',
        backbone=dict(name='resnet.resnet18', width=0.5),
        strides=(2, 4, 8, 16, 32),  # of the stages whose scores are added
    )
    return scenes(model, 500 if smoke else 5000, 0.6, num_examples=2048 if smoke else 8192, ci=True)
