"""Matched means and covariances from drawn digits to handwritten ones, whose labels are never seen.

    ./launch.sh run configs/adaptation/mean_cov_digits.py

The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='mean_cov', weight=1.0), at_least=0.58, smoke=arg == 'smoke')
