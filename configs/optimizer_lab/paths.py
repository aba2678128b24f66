"""Optimizers descending a surface side by side: a figure of their paths, and an animation.

    ./launch.sh run configs/optimizer_lab/paths.py:ravine
    ./launch.sh run configs/optimizer_lab/paths.py:beale --config.only="('adam','nesterov')"

Also `:rosenbrock` and `:saddle`; `:smoke` is the ravine. Measured on 2 shared CPU cores: 44 to 71 s, mostly compilation
and drawing. docs/optimizers.md.
"""

from ml_collections import ConfigDict

ARGUMENTS = ('ravine', 'rosenbrock', 'beale', 'saddle', 'smoke')

# Steps of a run; the loss that the worst optimizer has to reach; and learning rates, about the best of 0.001, 0.003,
# 0.01, ... whose path stays within the figure.
STEPS = dict(ravine=150, rosenbrock=1000, beale=500, saddle=150)
REACHED = dict(ravine=0.1, rosenbrock=0.6, beale=0.1, saddle=-0.2)  # from 31, 24, 41 and 1.1
RATES = dict(
    ravine=dict(sgd=0.03, momentum=0.01, nesterov=0.01, adagrad=1, rmsprop=0.03, adadelta=3, adam=0.3, free=0.03),
    rosenbrock=dict(sgd=1e-3, momentum=1e-3, nesterov=1e-3, adagrad=1, rmsprop=0.01, adadelta=0.1, adam=0.3, free=3e-3),
    beale=dict(sgd=0.01, momentum=3e-3, nesterov=3e-3, adagrad=1, rmsprop=0.01, adadelta=0.3, adam=0.1, free=0.01),
    saddle=dict(sgd=0.1, momentum=0.03, nesterov=0.03, adagrad=0.3, rmsprop=0.03, adadelta=3, adam=0.1, free=0.3),
)


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    surface = 'ravine' if smoke or not arg else arg
    rates = RATES[surface]
    return ConfigDict(
        dict(
            experiment='optimizer_lab',
            of='surfaces',  # the task: experiments/optimizer_lab/surfaces.py
            seed=0,
            surface=dict(
                name=surface,
                start=(),  # a point (x, y) in place of the surface's own
            ),
            only=(),  # names of the optimizers to train; all if empty
            scale=1.0,  # multiplies every learning rate
            optimizers=dict(
                sgd=dict(learning_rate=rates['sgd']),
                momentum=dict(learning_rate=rates['momentum'], momentum=0.9),
                # stored='theta': the parameters that are kept are theta, not the look-ahead point.
                nesterov=dict(learning_rate=rates['nesterov'], momentum=0.9, stored='theta'),
                adagrad=dict(learning_rate=rates['adagrad']),
                rmsprop=dict(learning_rate=rates['rmsprop']),
                adadelta=dict(learning_rate=rates['adadelta'], eps=1e-3),  # its first steps are about eps
                adam=dict(learning_rate=rates['adam']),
                schedule_free=dict(tx=dict(name='sgd', learning_rate=rates['free'])),
            ),
            run=dict(
                steps=STEPS[surface],
                log_every='2%',
                evals=dict(surface=dict(every='10%')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='surface/worst/loss', at_most=REACHED[surface], ci=True),
        )
    )
