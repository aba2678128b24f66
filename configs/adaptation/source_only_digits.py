"""A classifier of drawn digits on handwritten ones, without adaptation: the baseline of this folder.

    ./launch.sh run configs/adaptation/source_only_digits.py

Measured on 2 CPU cores shared with other work, seed 0: `:smoke`, 300 steps of 64 images, 34 s: 53.3 % of the 360
handwritten test digits at the last step (99.8 % of the drawn ones). Each rule of `canon.transfer.RULES` selects 53.1 to
53.3 %; the oracle's best of five evaluations is 55.6 %. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='source_only'), at_least=0.45, smoke=arg == 'smoke')
