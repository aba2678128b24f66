"""A claim: Nesterov's momentum gains over momentum on recurrent networks (notes 2.1.2; Sutskever et al. 2013).

    ./launch.sh sweep configs/optimizer_lab/nesterov_rnn.py
    ./launch.sh table runs/optimizer_lab/nesterov_rnn

The adding problem over 30 steps with a tanh RNN of 50 units, initialised as theirs. Both methods get the same rates,
the same momenta, the same starts and the same batches.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    rate = {90: 3e-3, 98: 6e-4}  # a fifth of the rate at five times the terminal velocity
    return ConfigDict(
        dict(
            experiment='optimizer_lab',
            of='adding',
            seed=0,
            data=dict(length=20 if smoke else 30, batch_size=50, test_batches=20),
            net=dict(hidden=50, radius=1.1),
            only=('momentum_90', 'nesterov_90') if smoke else (),
            compare=('momentum_90', 'nesterov_90'),
            scale=3.0 if smoke else 1.0,
            rivals=dict(
                momentum_90=dict(name='momentum', learning_rate=rate[90], momentum=0.9),
                nesterov_90=dict(name='nesterov', learning_rate=rate[90], momentum=0.9, stored='theta'),
                momentum_98=dict(name='momentum', learning_rate=rate[98], momentum=0.98),
                nesterov_98=dict(name='nesterov', learning_rate=rate[98], momentum=0.98, stored='theta'),
            ),
            run=dict(
                steps=1500 if smoke else 2000,
                log_every=50,
                evals=dict(test=dict(every='20%')),
                checkpoint=dict(every='100%'),
                tensorboard=False,
            ),
            target=dict(metric='test/worst/loss', at_most=0.01),
        )
    )


def sweep():
    """Rates a factor of about three apart, the same for both methods, and three seeds."""
    for seed in (0, 1, 2):
        for scale in (1.0, 3.0, 10.0):
            yield {'scale': scale, 'seed': seed}


def pictures(runs):
    from experiments.optimizer_lab.pictures import best_rates

    panels = {'training loss': 'train/*/loss'}
    return best_rates(runs, 'test/*/loss', panels, 'the adding problem, tanh RNN: momentum and Nesterov')
