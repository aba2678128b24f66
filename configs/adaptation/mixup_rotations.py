"""Mixup between domains on digits rotated by 15 to 75 degrees, measured on upright ones, which it never sees.

    ./launch.sh run configs/adaptation/mixup_rotations.py

Not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._rotations import make_rotations


def get_config(arg: str = '') -> ConfigDict:
    return make_rotations(dict(name='mixup'), arg == 'smoke')
