"""A claim: Nesterov's momentum trains recurrent networks better than momentum (Sutskever et al. 2013).

    ./launch.sh sweep configs/optimizer_lab/nesterov_rnn.py
    ./launch.sh table runs/optimizer_lab/nesterov_rnn

The adding problem over 20 steps with a tanh RNN of 50 units, initialised as theirs. Both methods have the same rates,
momenta, initialisations and batches.

Measured, three seeds, on 2 shared CPU cores (50 to 100 s per run): at equal rates below the best one Nesterov is ahead,
in all six pairs with momentum 0.9; each at its best rate they are even (0.0010 and 0.0011). docs/optimizers.md.
`:smoke`, over 12 steps: 0.0012 and 0.0010 in 37 s.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    rate = {90: 3e-3, 99: 3e-4}  # a tenth of the rate at ten times the terminal velocity
    return ConfigDict(
        dict(
            experiment='optimizer_lab',
            of='adding',  # the task: experiments/optimizer_lab/adding.py
            seed=0,
            # Steps of a sequence; sequences per batch; batches of the evaluator.
            data=dict(length=12 if smoke else 20, batch_size=50, test_batches=20),
            net=dict(
                hidden=50,  # units
                radius=1.1,  # spectral radius of the recurrent weights
            ),
            only=('momentum_90', 'nesterov_90') if smoke else (),  # optimizers to train; all if empty
            compare=() if smoke else ('momentum_99', 'nesterov_99'),  # reports ratio/loss
            scale=3.0 if smoke else 1.0,  # multiplies every learning rate
            optimizers=dict(
                momentum_90=dict(name='momentum', learning_rate=rate[90], momentum=0.9),
                nesterov_90=dict(name='nesterov', learning_rate=rate[90], momentum=0.9, stored='theta'),
                momentum_99=dict(name='momentum', learning_rate=rate[99], momentum=0.99),
                nesterov_99=dict(name='nesterov', learning_rate=rate[99], momentum=0.99, stored='theta'),
            ),
            run=dict(
                steps=1500 if smoke else 3000,
                log_every=100,
                evals=dict(test=dict(every='20%')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='test/worst/loss', at_most=0.005),  # 0.0208 is reached with one of the two numbers
        )
    )


def sweep():
    """Yields rates a factor of about three apart, the same for both methods, for three seeds."""
    for seed in (0, 1, 2):
        for scale in (0.3, 1.0, 3.0, 10.0):
            yield {'scale': scale, 'seed': seed}


def pictures(runs):
    from experiments.claims.optimizers import draw_best_rates

    panels = {'training loss': 'train/*/loss'}
    return draw_best_rates(runs, 'test/*/loss', panels, 'the adding problem, tanh RNN: momentum and Nesterov')
