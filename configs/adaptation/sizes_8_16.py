"""Two spaces of different dimension: drawn digits of 16x16 and handwritten ones of 8x8, joined by learnt projections.

    ./launch.sh run configs/adaptation/sizes_8_16.py                                     # five labels per class
    ./launch.sh run configs/adaptation/sizes_8_16.py --config.data.domains.shown=0       # none: moments alone
    ./launch.sh run configs/adaptation/sizes_8_16.py --config.method.name=source_only

`:smoke`, seed 0: 84.7 % of the target at the last step, in 15 s. The full form is not measured yet.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    config = make_config(dict(name='mean_cov', weight=1.0), at_least=0.4, smoke=smoke)
    with config.unlocked():
        config.data.source = dict(
            styles=('rendered', 'uci'),
            size=dict(
                rendered=16,  # height and width of drawn digits
                uci=8,  # and of handwritten ones
            ),
        )
        config.data.domains.shown = 5
        config.model = dict(name='domain_adversarial.projected_network', num_classes=10, sizes=(256, 64), units=128)
        # One batch cannot hold images of two sizes, as that of the rules would.
        del config.data.evals['rules'], config.run.evals['rules']
    return config
