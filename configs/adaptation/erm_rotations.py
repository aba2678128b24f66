"""ERM on digits rotated by 15 to 75 degrees, measured on upright ones, which it never sees: the baseline.

    ./launch.sh run configs/adaptation/erm_rotations.py

`:smoke`, seed 0: 80.0 % of the target at the last step, in 30 s. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._rotations import make_rotations


def get_config(arg: str = '') -> ConfigDict:
    return make_rotations(dict(name='source_only'), arg == 'smoke')
