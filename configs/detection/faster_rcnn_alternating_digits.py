"""Faster R-CNN in four steps (Ren et al. 2015, section 3.2) on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/detection/faster_rcnn_alternating_digits.py

A region proposal network is trained; its proposals train a Fast R-CNN that has features of its own; on the features of
that, which then stay as they are, both are trained once more. A narrow VGG-11 from scratch, with one map of stride 8 as
the paper has one of stride 16. What `faster_rcnn_digits.py` trains in one run takes five stages here.

Measured on 2 CPU cores: `:smoke`, mAP 51.2 % in 4:25 next to another training. The full recipe has not been run.
"""

from configs.detection._two_stages import FASTER_RCNN, alternate, digits, small_single_level


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    config = digits(
        small_single_level(), FASTER_RCNN, 600, 0.4 if smoke else 0.8, smoke, num_examples=1024 if smoke else 8192
    )
    # The second pair learns heads only, on finished features.
    if smoke:
        steps = dict(rpn=150, fast=300, shared_rpn=100, shared_fast=150)
    else:
        steps = dict(rpn=1500, fast=3000, shared_rpn=800, shared_fast=1200)
    return alternate(config, steps)
