"""A narrow SSD (Liu et al. 2016) on scenes of handwritten digits: nothing to download.

    ./launch.sh run configs/detection/ssd_digits.py

Scenes of 128x128 with 0 to 12 digits of 8 to 64 pixels in clutter; priors from stride 4 on, since the smallest digits
have a side of five pixels. Not in the paper: VGG-11 of a quarter of the width with BatchNorm and from scratch, Muon,
three negatives at least per image, so that empty scenes teach something, and an IoU of 0.4 instead of 0.5 for matching,
which gives small digits more priors.

Measured on 2 CPU cores: mAP 91.5 % in 20 minutes beside another training, 16 of CPU time; `:smoke` mAP 74.8 % in 2:45.
"""

from configs.detection._recipes import SSD, scenes, small_ssd


def get_config(arg: str = ''):
    system = dict(
        SSD,
        threshold=0.4,  # IoU from which a prior is matched; lower than the paper's, for more priors per small digit
        min_negatives=3,  # per image, so that scenes without digits are learnt from
    )
    if arg == 'smoke':
        # Fewer and larger digits than the default (8 to 64 pixels, up to 12, 6 shapes of clutter).
        small = dict(height=96, width=96, sizes=(12, 48), most=8, clutter=3)
        return scenes(small_ssd(), system, 800, 0.7, num_examples=4096, test=128, source=small)
    return scenes(small_ssd(), system, 2500, 0.9)
