"""A claim: no method is better than ERM unless the target selects (DomainBed: Gulrajani & Lopez-Paz 2021).

    ./launch.sh sweep configs/claims/domainbed_colours.py
    ./launch.sh table runs/claims/domainbed_colours

Coloured digits of scikit-learn in three domains, whose colours contradict the label with probability 0.1, 0.2 and 0.9;
ERM and IRM, three draws of hyperparameters, two trials, 300 updates in place of 5,001, and 3 draws in place of 20. Not
measured yet.
"""

from configs.claims._domainbed import make_domainbed, sweep_domainbed

METHODS = ('source_only', 'irm')
DOMAINS = ('0.1', '0.2', '0.9')


def get_config(arg: str = ''):
    source = dict(flips=(0.1, 0.2, 0.9), style='uci', size=14, label_noise=0.25)
    model = dict(name='domain_adversarial.mlp_network', num_classes=2, units=64)
    return make_domainbed('coloured_digits', source, model, DOMAINS, steps=20 if arg == 'smoke' else 300)


def sweep():
    yield from sweep_domainbed(METHODS, DOMAINS, draws=3, trials=2)


def pictures(runs):
    from experiments.claims.adaptation import draw_domainbed

    return draw_domainbed(runs, METHODS)
