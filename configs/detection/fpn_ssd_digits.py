"""SSD's predictions on a feature pyramid (Lin et al. 2017) instead of the backbone's own maps, on scenes of digits.

    ./launch.sh run configs/detection/fpn_ssd_digits.py

The scenes, the priors, the loss and the VGG-11 of `ssd_digits.py`; the maps of strides 4, 8, 16 and 32 are those of a
pyramid. Fine maps of SSD see little of the image, those of a pyramid all that the coarse ones do. Nothing to download.

Measured on 2 CPU cores: `:smoke`, mAP 77.0 % in 6:51 next to other trainings; `ssd_digits.py` has 74.8 %. The full
recipe has not been run; its target is that of `ssd_digits.py`.
"""

from configs.detection._recipes import SSD, scenes, small_ssd
from configs.detection._two_stages import SMALL, small_pyramid


def get_config(arg: str = ''):
    model = dict(small_ssd(), backbone=small_pyramid(), stages=('p2', 'p3', 'p4', 'p5'), extras=())
    system = dict(
        SSD,
        threshold=0.4,  # IoU from which a prior is matched; lower than the paper's, for more priors per small digit
        min_negatives=3,  # per image, so that scenes without digits are learnt from
    )
    if arg == 'smoke':
        return scenes(model, system, 1200, 0.7, num_examples=4096, test=128, source=SMALL)
    return scenes(model, system, 6000, 0.9)
