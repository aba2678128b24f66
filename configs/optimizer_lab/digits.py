"""Eleven optimizers on the handwritten digits, each at its best learning rate of a small sweep.

    ./launch.sh sweep configs/optimizer_lab/digits.py
    ./launch.sh table runs/optimizer_lab/digits

Measured, two seeds, on 2 shared CPU cores (60 to 90 s per run, with eleven optimizers in each): 96.9 to 98.6 % of the
held-out digits at the best rates. docs/optimizers.md.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='optimizer_lab',
            of='digits',  # the task: experiments/optimizer_lab/digits.py
            seed=0,
            data=dict(batch_size=64, data_dir='~/tensorflow_datasets'),  # data_dir: where the digits are written once
            net=dict(hidden=(64, 64), goal='classify'),  # units of the tanh layers; or goal='reconstruct'
            only=(),  # names of the optimizers to train; all if empty
            scale=1.0,  # multiplies every learning rate
            # {name: arguments of canon.optim.NAME}, each rate about the best of a small sweep.
            optimizers=dict(
                sgd=dict(learning_rate=0.3),
                momentum=dict(learning_rate=0.03, momentum=0.9),
                nesterov=dict(learning_rate=0.03, momentum=0.9),
                adagrad=dict(learning_rate=0.03),
                rmsprop=dict(learning_rate=3e-3),
                adadelta=dict(learning_rate=3.0, decay=0.95, eps_in_sqrt=True),
                adam=dict(learning_rate=3e-3),
                nadam=dict(learning_rate=3e-3),
                lion=dict(learning_rate=1e-3, weight_decay=0.0),
                muon=dict(learning_rate=0.01, weight_decay=0.0),
                soap=dict(learning_rate=3e-3, weight_decay=0.0),
            ),
            run=dict(
                steps='5 epochs' if smoke else '15 epochs',
                log_every='1 epoch',
                evals=dict(test=dict(every='5 epochs')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='test/worst/accuracy', at_least=0.85, ci=True),
        )
    )


def sweep():
    """Yields rates a factor of about three apart, around each optimizer's own, for two seeds."""
    for seed in (0, 1):
        for scale in (0.1, 0.3, 1.0, 3.0, 10.0):
            yield {'scale': scale, 'seed': seed}


def pictures(runs):
    from experiments.claims.optimizers import draw_best_rates

    panels = {'training loss': 'train/*/loss', 'held-out accuracy': 'test/*/accuracy'}
    return draw_best_rates(runs, 'test/*/loss', panels, 'the digits, 15 epochs: each optimizer at its best rate')
