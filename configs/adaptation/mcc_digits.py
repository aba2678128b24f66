"""MCC from drawn digits to handwritten ones, whose labels it never sees.

    ./launch.sh run configs/adaptation/mcc_digits.py

The class confusion of the predictions for the target, without an alignment of features.

Measured on 2 CPU cores shared with other work, seed 0, `:smoke`: 76.9 % of the 360 handwritten test digits at the last
step, which every rule selects and the oracle too, 23.6 points above `source_only_digits`. The full form is not measured
yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='mcc', weight=0.5), at_least=0.7, smoke=arg == 'smoke', norm='batch')
