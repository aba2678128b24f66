"""A claim: factorised layers classify regions faster at little loss (Girshick 2015, section 3.1, figure 2).

    ./launch.sh run configs/claims/svd_ranks.py

The paper: with ranks of 1024 and 256 of fc6 and fc7 detection takes 30 % less time and loses 0.3 points of mAP. Here a
narrow Faster R-CNN is trained once on scenes of digits; the second stage of the run factorises its head at several
ranks, and evaluates each: a table and a picture of mAP against seconds per image. mAP 90.9 % as it is, 88.9, 84.3, 74.5
and 33.0 % with falling ranks.
"""

from configs.detection._two_stages import FASTER_RCNN, digits, small_faster_rcnn


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    # Wide layers, which take most of the time of a test: two of 1024 units as in the paper of the pyramid.
    model = small_faster_rcnn(pool_size=7, units=(1024, 1024))
    config = digits(model, FASTER_RCNN, 150 if smoke else 500, 0.1, smoke=True, test=64 if smoke else 256)
    with config.unlocked():
        config.experiment = 'staged'
        # Of fc6 (3136 x 1024) and fc7 (1024 x 1024); None is the network as it is.
        config.svd = dict(ranks=(None, (512, 256), (256, 128), (128, 64), (64, 32)), network='detector')
        config.stages = dict(
            experiment='detection',
            chain=('detector', 'ranks'),
            detector=dict(),
            ranks=dict(experiment='svd_ranks'),
        )
        config.target = dict(metric='test/map50', at_least=0.1)  # of the network as it is
    return config
