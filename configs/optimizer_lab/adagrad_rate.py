"""A claim: AdaGrad's effective rate falls too early, which RMSProp and Adadelta correct.

    ./launch.sh sweep configs/optimizer_lab/adagrad_rate.py
    ./launch.sh table runs/optimizer_lab/adagrad_rate

A deep autoencoder of tanh units with a bottleneck of eight units on the digits. `effective_rate` is the geometric mean
over the parameters of the factor on the gradient, epsilon / (delta + sqrt r).

Measured, three seeds, on 2 shared CPU cores (25 to 70 s per run): at its best rate AdaGrad's falls from 0.046 to 0.022,
and its error to 1.33; RMSProp's and Adadelta's rise, and their errors fall to 1.13 and 1.14.
The figure: docs/optimizers.md.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    """`:smoke` is the same: it is small."""
    return ConfigDict(
        dict(
            experiment='optimizer_lab',
            of='digits',  # the task: experiments/optimizer_lab/digits.py
            seed=0,
            data=dict(batch_size=64, data_dir='~/tensorflow_datasets'),
            net=dict(hidden=(128, 64, 32, 8, 32, 64, 128), goal='reconstruct'),  # the bottleneck has eight units
            only=(),  # names of the optimizers to train; all if empty
            compare=('adagrad', 'rmsprop'),  # reports ratio/loss, the loss of the first over the second's
            scale=1.0,  # multiplies every learning rate
            optimizers=dict(
                adagrad=dict(learning_rate=0.01, eps=1e-7),
                rmsprop=dict(learning_rate=1e-3, decay=0.9, eps=1e-6),
                adadelta=dict(learning_rate=1.0, decay=0.95, eps=1e-6, eps_in_sqrt=True),
            ),
            run=dict(
                steps=2000,
                log_every=20,
                evals=dict(test=dict(every='25%')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='test/ratio/loss', at_least=1.1),
        )
    )


def sweep():
    """Yields rates a factor of about three apart, around each optimizer's own, for three seeds."""
    for seed in (0, 1, 2):
        for scale in (0.1, 0.3, 1.0, 3.0):
            yield {'scale': scale, 'seed': seed}


def pictures(runs):
    from experiments.claims.optimizers import draw_best_rates

    panels = {'training loss': 'train/*/loss', 'effective rate': 'train/*/effective_rate'}
    return draw_best_rates(
        runs, 'test/*/loss', panels, 'a deep autoencoder of the digits: AdaGrad and its two successors'
    )
