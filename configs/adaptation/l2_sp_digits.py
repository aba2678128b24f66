"""L2-SP: a network of drawn digits learns five handwritten ones per class, with a decay toward its old weights.

    ./launch.sh run configs/adaptation/l2_sp_digits.py

`:smoke`, seed 0: 81.1 % of the target at the last step, in 41 s. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._finetuning import make_finetuning


def get_config(arg: str = '') -> ConfigDict:
    tune = dict(
        tx=dict(chain=('l2_sp', 'adam'), l2_sp=dict(name='add_starting_point_decay'), adam=dict(learning_rate=3e-4))
    )
    return make_finetuning(tune, arg == 'smoke')
