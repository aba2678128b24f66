"""DANN from drawn digits to handwritten ones, whose labels it never sees.

    ./launch.sh run configs/adaptation/dann_digits.py

The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='dann', weight=0.3, ramp_steps=300), at_least=0.45, smoke=arg == 'smoke')
