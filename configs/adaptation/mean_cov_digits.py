"""Matched means and covariances from drawn digits to handwritten ones, whose labels are never seen.

    ./launch.sh run configs/adaptation/mean_cov_digits.py

Measured on 2 CPU cores shared with other work, seed 0: `:smoke`, 300 steps of 64 + 64 images, 59 s: 64.7 % of the 360
handwritten test digits at the last step, 11.4 points above `source_only_digits`. SND selects 61.1 %, every other rule
64.7 %, the oracle 65.0 %. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='mean_cov', weight=1.0), at_least=0.58, smoke=arg == 'smoke')
