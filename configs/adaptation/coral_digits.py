"""Deep CORAL from drawn digits to handwritten ones, whose labels it never sees.

    ./launch.sh run configs/adaptation/coral_digits.py

The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='coral', weight=10.0), at_least=0.55, smoke=arg == 'smoke')
