"""A narrow Faster R-CNN with a feature pyramid (Ren et al. 2015; Lin et al. 2017) on scenes of handwritten digits.

    ./launch.sh run configs/detection/faster_rcnn_digits.py

The scenes are those of `ssd_digits.py`, and the backbone is its VGG-11 of a quarter of the width. Both stages are
trained together. Not in the papers: everything is narrow and from scratch, with BatchNorm and Muon. Nothing to
download.

Measured on 2 CPU cores: mAP 95.7 % in 33 minutes next to another training, 26 of CPU time; `:smoke` 85.7 % in 3:32,
alone.
"""

from configs.detection._two_stages import FASTER_RCNN, digits, small_faster_rcnn


def get_config(arg: str = ''):
    if arg == 'smoke':
        return digits(small_faster_rcnn(), FASTER_RCNN, 500, 0.7, smoke=True)
    return digits(small_faster_rcnn(), FASTER_RCNN, 3500, 0.92)
