"""A narrow YOLO (Redmon et al. 2016) on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/detection/yolo_digits.py

The scenes are those of `ssd_digits.py`. 8x8 cells of 16 pixels, each with one object at most: of two digits whose
centres share a cell, one cannot be found. Not in the paper: 3/16 of the width, BatchNorm and Muon, from scratch.

Not measured yet; the targets are those that the recipe is made for.
"""

from typing import Any

from configs.detection._recipes import YOLO, scenes, small_yolo

FULLY_CONNECTED = '^(fc1|output)'  # layers that Adam updates


def get_config(arg: str = ''):
    if arg == 'smoke':
        # Few and large digits, which seldom share a cell of 16 pixels.
        small = dict(sizes=(24, 64), most=4, clutter=3)
        data: dict[str, Any] = dict(num_examples=4096, test=128, source=small)
        return scenes(small_yolo(), YOLO, 1200, 0.3, adam_where=FULLY_CONNECTED, **data)
    # A lower target than SSD's: of two digits whose centres share a cell one cannot be found.
    return scenes(small_yolo(width=0.1875), YOLO, 5000, 0.65, adam_where=FULLY_CONNECTED)
