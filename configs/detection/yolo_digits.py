"""A narrow YOLO (Redmon et al. 2016) on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/detection/yolo_digits.py

The scenes are those of `ssd_digits.py`. 16x16 cells of 8 pixels, each with one object at most: of two digits whose
centres share a cell, one cannot be found. The paper reports YOLO on VGG-16 besides its own network; this is a narrow
VGG-11. Not in the paper: BatchNorm and Muon, from scratch, and layers after the convolutions that all cells share (see
`small_yolo`).

Measured on 2 CPU cores shared with other jobs: mAP 81.9 % in 17 minutes, 10 of CPU time; `:smoke` mAP 89.2 % in four
minutes of CPU time.
"""

from typing import Any

from configs.detection._recipes import YOLO, scenes, small_yolo


def get_config(arg: str = ''):
    if arg == 'smoke':
        # Few and large digits, which seldom share a cell.
        small = dict(sizes=(24, 64), most=4, clutter=3)
        data: dict[str, Any] = dict(num_examples=4096, test=128, source=small)
        return scenes(small_yolo(), YOLO, 600, 0.5, **data)
    # A lower target than SSD's: of two digits whose centres share a cell one cannot be found.
    return scenes(small_yolo(), YOLO, 1500, 0.65)
