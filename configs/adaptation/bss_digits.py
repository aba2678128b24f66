"""BSS: a network of drawn digits learns five handwritten ones per class, its weakest features suppressed.

    ./launch.sh run configs/adaptation/bss_digits.py

Not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._finetuning import make_finetuning


def get_config(arg: str = '') -> ConfigDict:
    tune = dict(method=dict(name='bss'), tx=dict(adam=dict(learning_rate=3e-4)))
    return make_finetuning(tune, arg == 'smoke')
