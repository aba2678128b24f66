"""A fully convolutional network on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/segmentation/digit_scenes.py

Scenes of 0 to 12 digits of 8 to 64 pixels in clutter; a class for each digit and one for the ground. Strokes are one to
eight pixels wide, so the skips go down to stride 2: FCN-8s, with scores of stride 8, cannot show most of them.

The target, a mean IU of 0.6, is an aim that no run has reached yet: `:smoke` with all pixels weighted alike predicts
the ground everywhere after 400 steps (mean IU 0.08, pixel accuracy 88.2 %). With `loss.balance` it is not measured yet.
"""

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
    small = dict(height=64, width=64, sizes=(20, 48), most=3, clutter=2) if smoke else {}
    config = scenes(model, 800 if smoke else 3000, 0.6, num_examples=4096 if smoke else 8192, **small)
    config.loss.balance = 0.75  # exponent of the classes' weights: nine of ten pixels are ground
    return config
