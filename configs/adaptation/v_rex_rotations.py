"""V-REx on digits rotated by 15 to 75 degrees, measured on upright ones, which it never sees.

    ./launch.sh run configs/adaptation/v_rex_rotations.py

`:smoke`, seed 0: 81.7 % of the target at the last step, in 18 s. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._rotations import make_rotations


def get_config(arg: str = '') -> ConfigDict:
    return make_rotations(dict(name='v_rex', weight=10.0, anneal_steps=100), arg == 'smoke')
