"""A classifier of drawn digits on handwritten ones, without adaptation: the baseline of this folder.

    ./launch.sh run configs/adaptation/source_only_digits.py

The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    return make_config(dict(name='source_only'), at_least=0.45, smoke=arg == 'smoke')
